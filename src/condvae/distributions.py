"""Diagonal Gaussians, the distribution of every latent group."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["LATENT_STDS", "DiagonalGaussian", "log_softplus"]

LATENT_STDS = ("exp", "softplus")
BETA = math.log(2)
# Beyond it e^-t is less than the rounding of 1, in float64 too.
NEGLIGIBLE = 40.0


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

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density in nats, element by element, same shape as `z`."""
        standardised = (z - self.mean) * torch.exp(-self.log_std)
        return -0.5 * standardised.square() - self.log_std - 0.5 * math.log(2 * math.pi)

    def kl_from(self, other: DiagonalGaussian) -> Tensor:
        """KL(other || self) in nats, element by element (closed form)."""
        variance_ratio = torch.exp(2.0 * (other.log_std - self.log_std))
        standardised = (other.mean - self.mean) * torch.exp(-self.log_std)
        return 0.5 * (variance_ratio + standardised.square() - 1.0) + self.log_std - other.log_std


def log_softplus(output: Tensor) -> Tensor:
    """log(log2(1 + 2^a)) for outputs a of any shape, finite wherever a is, its gradient too."""
    t = BETA * output
    # The clamp keeps the branch that is not taken, and its gradient, finite.
    softplus = F.softplus(t.clamp(min=-NEGLIGIBLE), threshold=NEGLIGIBLE)
    return torch.where(t < -NEGLIGIBLE, t, softplus.log()) - math.log(BETA)
