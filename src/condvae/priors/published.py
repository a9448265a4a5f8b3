"""The coupling that T. S. De put between latents and a Gaussian of the attributes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["PublishedCoupling"]

HIDDEN = 16


class PublishedCoupling(nn.Module):
    """One affine coupling that knows no condition and leaves the first half of the latents as it is.

    T. S. De, Improving Conditional VAE with approximation using Normalizing Flows, 2025: log-slope and
    shift of the second half from two networks Z-16-16-Z with leaky rectifiers over all Z latents, the
    second half at zero. Unlike the published code the inverse is the inverse, and the networks end in
    zeros: a new coupling is the identity. Log-slopes have no bound, as published.

    Args:
        latents: Z; the first Z // 2 stay.
    """

    transformed: Tensor

    def __init__(self, latents: int) -> None:
        super().__init__()
        transformed = torch.arange(latents) >= latents // 2
        self.register_buffer("transformed", transformed, persistent=False)
        self.log_slope = _network(latents)
        self.shift = _network(latents)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Towards the noise: values (B,Z), and the logs (B,Z) of the slopes."""
        log_slope, shift = self._slopes_and_shifts(z)
        return z * torch.exp(log_slope) + shift, log_slope

    def inverse(self, v: Tensor) -> Tensor:
        """Towards the latents, (B,Z)."""
        log_slope, shift = self._slopes_and_shifts(v)
        return (v - shift) * torch.exp(-log_slope)

    def _slopes_and_shifts(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Log-slopes and shifts (B,Z), both 0 where nothing is transformed."""
        kept = values.masked_fill(self.transformed, 0.0)
        log_slope, shift = self.log_slope(kept), self.shift(kept)
        return log_slope * self.transformed, shift * self.transformed


def _network(latents: int) -> nn.Sequential:
    last = nn.Linear(HIDDEN, latents)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(
        nn.Linear(latents, HIDDEN),
        nn.LeakyReLU(),
        nn.Linear(HIDDEN, HIDDEN),
        nn.LeakyReLU(),
        last,
    )
