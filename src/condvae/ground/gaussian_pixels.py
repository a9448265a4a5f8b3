"""Pixels as normals around a decoded mean, with one standard deviation for a whole data set.

References:
    O. Rybkin, K. Daniilidis, S. Levine. Simple and effective VAE training with calibrated decoders.
    ICML 2021 (sigma-VAE: the optimal variance).
    L. Theis, A. van den Oord, M. Bethge. A note on the evaluation of generative models. ICLR 2016
    (why a density on integers has to be dequantised).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from condvae.ground.configuration import ConfigurationError, check_choice
from condvae.ground.images import pixels_from_unit_range

__all__ = ["LEVEL", "SMALLEST_STD", "VARIANCES", "GaussianPixels", "log_bin_probability"]

VARIANCES = ("fixed", "learned", "optimal")
# Two neighbouring grey levels of 8 bits on [-1, 1].
LEVEL = 2.0 / 255.0
# Half a grey level: below it the likelihood of integers says more about rounding than about images.
SMALLEST_STD = LEVEL / 2.0
# Where a bin is narrow the difference of two distribution functions cancels; the series there is exact
# to 1e-7 at this argument.
NARROW = 0.3
# Uniform noise is kept this far from 0 and 1, where the normal's inverse is infinite.
UNIFORM_MARGIN = 1e-6


class GaussianPixels(nn.Module):
    """p(x | mean) = product of N(x; mean, std^2) over channels and pixels, 8-bit images on [-1, 1].

    Log-likelihoods are sums over channels and pixels, in nats per grey level: those of the continuous
    likelihood are densities over [-1, 1] less ln 127.5 per value, so that
    ``-log_prob / (C H W ln 2)`` are bits per dimension of 8-bit images in both cases. The discretised
    one is a probability; the continuous one is a lower bound on the log of one, in expectation over
    the uniform noise that dequantises the pixels.

    Args:
        variance: ``fixed``: `std` for ever. ``learned``: one scalar trained by gradients. ``optimal``:
            in training the mean squared error of the batch, which maximises the batch's continuous
            likelihood. The discretised likelihood is highest at another, close value as long as many
            grey levels fit into the std; gradients pass through the std in both, so that what is
            differentiated is the loss itself. Scores use the value of `keep_std`, never the images
            that are scored.
        discretised: Probabilities of grey levels (differences of the normal distribution function,
            the outer levels reaching to infinity), or densities of dequantised pixels.
        std: Fixed value, or what to start from; at least `SMALLEST_STD`, as are all others.

    Raises:
        ConfigurationError: Unknown `variance`, or a `std` below half a grey level.
    """

    log_std: Tensor

    def __init__(
        self, variance: str = "optimal", *, discretised: bool = True, std: float = 1.0
    ) -> None:
        super().__init__()
        check_choice("variance", variance, VARIANCES)
        if not SMALLEST_STD <= std < math.inf:
            raise ConfigurationError(
                f"std = {std!r}: expected at least half a grey level, {SMALLEST_STD:.4f}"
            )
        self.variance = variance
        self.discretised = discretised
        log_std = torch.tensor(math.log(std))
        if variance == "learned":
            self.log_std = nn.Parameter(log_std)
        else:
            self.register_buffer("log_std", log_std)

    def log_prob(
        self,
        mean: Tensor,
        pixels: Tensor,
        uniform: Tensor | None = None,
        *,
        fit_variance: bool = False,
    ) -> Tensor:
        """Log-likelihood of each image, in nats per grey level, summed over channels and pixels.

        Args:
            mean: (B,C,H,W) on the scale of [-1, 1], not bounded by it.
            pixels: uint8 (B,C,H,W).
            uniform: (B,C,H,W) in [0, 1), dequantises; needed by the continuous likelihood and only
                looked at by it.
            fit_variance: With ``optimal``, take the std that fits this batch best. For training only:
                images of a batch then depend on each other, and have seen what they are judged by.

        Returns:
            (B,), float32 at least.
        """
        mean = mean.to(torch.promote_types(mean.dtype, torch.float32))
        target = self.target(pixels, mean.dtype, uniform)
        if fit_variance and self.variance == "optimal":
            log_std = 0.5 * (mean - target).square().mean().clamp(min=SMALLEST_STD**2).log()
        else:
            log_std = self.scoring_log_std
        if self.discretised:
            terms = log_bin_probability(mean, target, log_std)
        else:
            standardised = (target - mean) * torch.exp(-log_std)
            normalisation = log_std + 0.5 * math.log(2 * math.pi) - math.log(LEVEL)
            terms = -0.5 * standardised.square() - normalisation
        return terms.flatten(1).sum(dim=1)

    @property
    def scoring_log_std(self) -> Tensor:
        """Log of the std that scores and samples use; gradients pass its floor unchanged."""
        lift = (self.log_std.clamp(min=math.log(SMALLEST_STD)) - self.log_std).detach()
        return self.log_std + lift

    def target(self, pixels: Tensor, dtype: torch.dtype, uniform: Tensor | None = None) -> Tensor:
        """Pixels on [-1, 1]: uint8 (B,C,H,W) -> the middles of their bins, or dequantised.

        Raises:
            ValueError: The likelihood is continuous and there is no uniform noise.
        """
        levels = pixels.to(dtype)
        if not self.discretised:
            if uniform is None:
                raise ValueError(
                    "uniform = None: a continuous likelihood needs noise to dequantise"
                )
            levels = levels + uniform.to(dtype) - 0.5
        return (levels - 127.5) / 127.5

    @torch.no_grad()
    def keep_std(self, mean_squared_error: float) -> None:
        """Score from now on with the std of this mean squared error; no effect unless ``optimal``."""
        if self.variance == "optimal":
            self.log_std.fill_(0.5 * math.log(max(mean_squared_error, SMALLEST_STD**2)))

    def mean_image(self, mean: Tensor) -> Tensor:
        """uint8 (B,C,H,W), the mean rounded to the nearest grey level."""
        return pixels_from_unit_range(mean)

    def sample_image(self, mean: Tensor, uniform: Tensor) -> Tensor:
        """Draw pixels, uint8 (B,C,H,W), from uniform noise (B,C,H,W) in [0, 1)."""
        u = uniform.clamp(UNIFORM_MARGIN, 1.0 - UNIFORM_MARGIN).to(mean.dtype)
        # Rounded and clipped is what the discretised likelihood is the probability of.
        return pixels_from_unit_range(
            mean + torch.exp(self.scoring_log_std) * torch.special.ndtri(u)
        )


def log_bin_probability(mean: Tensor, target: Tensor, log_std: Tensor) -> Tensor:
    """Log probability of 8-bit grey levels under a rounded and clipped normal; finite in the tails.

    Args:
        mean: On the scale of [-1, 1], any shape.
        target: The middle of a bin on [-1, 1], shape of `mean`.
        log_std: Scalar, or broadcastable.

    Returns:
        Shape of `mean`, nats; probabilities of the 256 levels sum to 1.
    """
    inverse_std = torch.exp(-log_std)
    centre = (target - mean) * inverse_std
    half = SMALLEST_STD * inverse_std
    distance = centre.abs()
    narrow = half * (1.0 + distance) < NARROW
    # By symmetry always the lower tail, where the distribution function has no rounding to 1.
    upper = torch.special.log_ndtr(half - distance)
    lower = torch.special.log_ndtr(-half - distance)
    # Both branches stay finite everywhere, for the gradient of the one not taken.
    gap = (lower - upper).masked_fill(narrow, -1.0)
    difference = upper + torch.log(-torch.expm1(gap))
    h, c = torch.where(narrow, half.expand_as(centre), 0.0).square(), centre.square()
    c = c.masked_fill(~narrow, 0.0)
    series = torch.log1p(h * (c - 1.0) / 6.0 + h.square() * (c * c - 6.0 * c + 3.0) / 120.0)
    density = math.log(LEVEL) - log_std - 0.5 * math.log(2 * math.pi) - 0.5 * centre.square()
    result = torch.where(narrow, density + series, difference)
    # The outer bins reach to minus and plus infinity.
    result = torch.where(target > 1.0 - SMALLEST_STD, torch.special.log_ndtr(half - centre), result)
    return torch.where(target < -1.0 + SMALLEST_STD, torch.special.log_ndtr(centre + half), result)
