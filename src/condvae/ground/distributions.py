"""Distributions over one latent group: what every one can do, and diagonal Gaussians."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["LATENT_STDS", "ConditionalDistribution", "DiagonalGaussian", "log_softplus"]

LATENT_STDS = ("exp", "softplus")
BETA = math.log(2)
# Beyond it e^-t is less than the rounding of 1, in float64 too.
NEGLIGIBLE = 40.0


class ConditionalDistribution(Protocol):
    """A density over a latent group (B,Z,h,w), its parameters fixed by what it is conditioned on.

    Log densities and divergences come as terms of the latent's shape: only their sum over a case's
    Z,h,w has a meaning for every distribution.
    """

    def sample(self, noise: Tensor, temperature: float = 1.0) -> Tensor:
        """Map standard normal `noise` (B,Z,h,w), scaled by `temperature`, to a draw; differentiable."""
        ...

    def log_prob(self, z: Tensor) -> Tensor:
        """Terms (B,Z,h,w) of the log density of `z` in nats."""
        ...

    def kl_from(self, other: ConditionalDistribution, z: Tensor) -> Tensor:
        """Terms (B,Z,h,w) of KL(other || self) in nats.

        In closed form where there is one, else an unbiased estimate from `z`, one draw from `other`.
        """
        ...

    def with_floor(self, log_std_floor: float) -> ConditionalDistribution:
        """Count smaller log-stds as `log_std_floor`, gradients passing as if they were unchanged."""
        ...


@dataclass(frozen=True)
class DiagonalGaussian:
    """Independent normals with means and log standard deviations of one shape (B,Z,h,w)."""

    mean: Tensor
    log_std: Tensor

    @classmethod
    def from_parameters(cls, parameters: Tensor, std: str = "exp") -> DiagonalGaussian:
        """Split (B,2Z,h,w) network outputs into mean (first Z channels) and log-std (from the last Z).

        Args:
            parameters: Network outputs of any floating type; the result is float32 at least.
            std: How an output a of the last Z gives a standard deviation, 1 at a = 0 in both cases.
                ``exp``: e^a, so that a is the log-std (Child 2020). ``softplus``: log2(1 + 2^a), the
                softplus with beta = ln 2, whose slope stays below 1: the gradient smoothing of
                Hazami, Mama and Thurairatnam, Efficient-VDVAE, 2022.
        """
        # A KL computed in half precision is wrong enough to come out negative.
        parameters = parameters.to(torch.promote_types(parameters.dtype, torch.float32))
        mean, output = parameters.chunk(2, dim=1)
        return cls(mean, log_softplus(output) if std == "softplus" else output)

    def sample(self, noise: Tensor, temperature: float = 1.0) -> Tensor:
        """Return ``mean + temperature * std * noise`` for standard normal `noise` of the same shape."""
        std = torch.exp(self.log_std)
        return self.mean + (std if temperature == 1.0 else temperature * std) * noise

    def standardise(self, z: Tensor) -> Tensor:
        """Return ``(z - mean) / std``, the noise that `sample` maps to `z`."""
        return (z - self.mean) * torch.exp(-self.log_std)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density in nats, element by element, same shape as `z`."""
        return -0.5 * self.standardise(z).square() - self.log_std - 0.5 * math.log(2 * math.pi)

    def kl_from(self, other: ConditionalDistribution, z: Tensor | None = None) -> Tensor:
        """KL(other || self) in nats, element by element: closed form if `other` is Gaussian too.

        Args:
            other: Where the expectation is taken.
            z: A draw from `other`; only used, and then needed, if it is no Gaussian.

        Raises:
            ValueError: `other` is no Gaussian and there is no draw.
        """
        if not isinstance(other, DiagonalGaussian):
            if z is None:
                raise ValueError(f"z = None: KL from {type(other).__name__} needs a draw from it")
            return other.log_prob(z) - self.log_prob(z)
        variance_ratio = torch.exp(2.0 * (other.log_std - self.log_std))
        standardised = (other.mean - self.mean) * torch.exp(-self.log_std)
        return 0.5 * (variance_ratio + standardised.square() - 1.0) + self.log_std - other.log_std

    def with_floor(self, log_std_floor: float) -> DiagonalGaussian:
        """Count smaller log-stds as `log_std_floor`, gradients passing as if they were unchanged."""
        lift = (self.log_std.clamp(min=log_std_floor) - self.log_std).detach()
        return DiagonalGaussian(self.mean, self.log_std + lift)


def log_softplus(output: Tensor) -> Tensor:
    """log(log2(1 + 2^a)) for outputs a of any shape, finite wherever a is, its gradient too."""
    t = BETA * output
    # The clamp keeps the branch that is not taken, and its gradient, finite.
    softplus = F.softplus(t.clamp(min=-NEGLIGIBLE), threshold=NEGLIGIBLE)
    return torch.where(t < -NEGLIGIBLE, t, softplus.log()) - math.log(BETA)
