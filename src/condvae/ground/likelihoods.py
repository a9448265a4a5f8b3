"""Pixel likelihoods: the discretised mixture of logistics of PixelCNN++, as VDVAE uses it.

References:
    T. Salimans, A. Karpathy, X. Chen, D. Kingma. PixelCNN++: Improving the PixelCNN with discretized
    logistic mixture likelihood and other modifications. ICLR 2017.
    R. Child. Very deep VAEs generalize autoregressive models and can outperform them on images.
    ICLR 2021.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from condvae.ground.configuration import check_choice, check_positive
from condvae.ground.distributions import log_softplus

__all__ = ["LogisticMixture"]

MIN_LOG_SCALE = -7.0
# With softplus none is published (-250, where exp overflows): scales far below a bin's width.
MIN_SOFTPLUS_LOG_SCALE = -80.0
# Uniform noise is kept this far from 0 and 1: both logarithms below stay finite.
UNIFORM_MARGIN = 1e-5


@dataclass(frozen=True)
class LogisticMixture:
    """Discretised mixture of logistics over pixels in [-1, 1].

    With three channels green depends on red and blue on both, linearly, inside a pixel; with one
    channel there is nothing to couple and 3 numbers per component are enough (logit, mean, log-scale).

    Attributes:
        channels: 1 or 3.
        mixtures: Number of components M.
        bits: Bits per channel, 8 or 5. With 5 bits the bin half-width is 1/31, as published.
        scale: How an output a gives a scale. ``exp``: e^a, at least e^-7 (Child 2020). ``softplus``:
            log2(1 + 2^a), without a floor (Hazami, Mama and Thurairatnam, Efficient-VDVAE, 2022).
    """

    channels: int
    mixtures: int = 10
    bits: int = 8
    scale: str = "exp"

    def __post_init__(self) -> None:
        check_choice("channels", self.channels, (1, 3))
        check_choice("bits", self.bits, (5, 8))
        check_positive("mixtures", self.mixtures)
        check_choice("scale", self.scale, ("exp", "softplus"))

    @property
    def parameter_channels(self) -> int:
        """Channels of the parameter map: 10 M for colour, 3 M for grey."""
        return self.mixtures * (10 if self.channels == 3 else 3)

    @property
    def noise_channels(self) -> int:
        """Channels of the uniform noise that `sample` takes: M to choose, C to draw."""
        return self.mixtures + self.channels

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Return logits (B,M,H,W), means and log-scales (B,C,M,H,W), coefficients or None."""
        batch, _, height, width = parameters.shape
        m = self.mixtures
        logits = parameters[:, :m]
        rest = parameters[:, m:].reshape(batch, self.channels, -1, height, width)
        means = rest[:, :, :m]
        if self.scale == "softplus":
            log_scales = log_softplus(rest[:, :, m : 2 * m]).clamp(min=MIN_SOFTPLUS_LOG_SCALE)
        else:
            log_scales = rest[:, :, m : 2 * m].clamp(min=MIN_LOG_SCALE)
        coefficients = torch.tanh(rest[:, :, 2 * m :]) if self.channels == 3 else None
        return logits, means, log_scales, coefficients

    def log_prob(self, parameters: Tensor, target: Tensor) -> Tensor:
        """Log probability of each pixel, all its channels together.

        Args:
            parameters: (B, `parameter_channels`, H, W).
            target: (B,C,H,W) in [-1, 1] on the grid of `bits`.

        Returns:
            (B,H,W) in nats.
        """
        logits, means, log_scales, coefficients = self._split(parameters)
        x = target.unsqueeze(2)
        if coefficients is not None:
            # Autoregression over colours (Salimans 2017, eq. 3): coefficient maps 0, 1, 2 are
            # red->green, red->blue, green->blue.
            red, green = x[:, 0], x[:, 1]
            means = torch.stack(
                [
                    means[:, 0],
                    means[:, 1] + coefficients[:, 0] * red,
                    means[:, 2] + coefficients[:, 1] * red + coefficients[:, 2] * green,
                ],
                dim=1,
            )
        levels = 2**self.bits - 1
        half_width = 1.0 / levels
        centred = x - means
        inverse_scale = torch.exp(-log_scales)
        upper = inverse_scale * (centred + half_width)
        lower = inverse_scale * (centred - half_width)
        middle = inverse_scale * centred
        bin_probability = torch.sigmoid(upper) - torch.sigmoid(lower)
        # Where the bin's probability vanishes in floating point: density at the middle times width.
        log_density = middle - log_scales - 2.0 * F.softplus(middle) - math.log(levels / 2)
        log_probability = torch.where(
            bin_probability > 1e-5, torch.log(bin_probability.clamp(min=1e-12)), log_density
        )
        # The edge bins reach to minus and plus infinity.
        log_probability = torch.where(x > 0.999, -F.softplus(lower), log_probability)
        log_probability = torch.where(x < -0.999, upper - F.softplus(upper), log_probability)
        return torch.logsumexp(log_probability.sum(dim=1) + F.log_softmax(logits, dim=1), dim=1)

    def sample(self, parameters: Tensor, uniform: Tensor) -> Tensor:
        """Draw pixels.

        Args:
            parameters: (B, `parameter_channels`, H, W).
            uniform: (B, `noise_channels`, H, W), independent uniforms on [0, 1).

        Returns:
            (B,C,H,W) in [-1, 1], not rounded.
        """
        logits, means, log_scales, coefficients = self._split(parameters)
        u = UNIFORM_MARGIN + (1.0 - 2.0 * UNIFORM_MARGIN) * uniform
        gumbel = -torch.log(-torch.log(u[:, : self.mixtures]))
        component = (logits + gumbel).argmax(dim=1, keepdim=True)

        def chosen(values: Tensor) -> Tensor:
            index = component.unsqueeze(1).expand(-1, values.shape[1], -1, -1, -1)
            return values.gather(2, index).squeeze(2)

        v = u[:, self.mixtures :]
        logistic = torch.log(v) - torch.log1p(-v)
        x = chosen(means) + torch.exp(chosen(log_scales)) * logistic
        if coefficients is None:
            return x.clamp(-1.0, 1.0)
        c = chosen(coefficients)
        red = x[:, 0].clamp(-1.0, 1.0)
        green = (x[:, 1] + c[:, 0] * red).clamp(-1.0, 1.0)
        blue = (x[:, 2] + c[:, 1] * red + c[:, 2] * green).clamp(-1.0, 1.0)
        return torch.stack([red, green, blue], dim=1)
