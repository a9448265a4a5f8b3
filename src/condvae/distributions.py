"""Diagonal Gaussians, the distribution of every latent group."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["DiagonalGaussian"]


@dataclass(frozen=True)
class DiagonalGaussian:
    """Independent normals with means and log standard deviations of one shape (B,Z,h,w)."""

    mean: Tensor
    log_std: Tensor

    @classmethod
    def from_parameters(cls, parameters: Tensor) -> DiagonalGaussian:
        """Split (B,2Z,h,w) network outputs into mean (first Z channels) and log-std (last Z)."""
        # A KL computed in half precision is wrong enough to come out negative.
        parameters = parameters.to(torch.promote_types(parameters.dtype, torch.float32))
        mean, log_std = parameters.chunk(2, dim=1)
        return cls(mean, log_std)

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
