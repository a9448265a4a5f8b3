"""A mixture of diagonal Gaussians, every parameter a function of a context."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from condvae.ground.distributions import DiagonalGaussian

__all__ = ["GaussianMixture"]

SPREAD = 0.9


class GaussianMixture(nn.Module):
    """From a context to K weights and K diagonal Gaussians.

    When it is new the context changes nothing, the weights are equal, the means lie apart (equal ones
    would learn the same for ever) and the mixture as a whole has mean 0 and standard deviation 1 in
    every dimension: with K = 1 it is N(0, I).

    Args:
        latents: Z.
        features: E, length of the context.
        components: K.
        hidden: Width of the network.
        spread: Below 1, half the width of what the first means are drawn from, in standard deviations
            of the whole: the smaller, the more a new mixture is N(0, I).
    """

    def __init__(
        self, latents: int, features: int, components: int, hidden: int, spread: float = SPREAD
    ) -> None:
        super().__init__()
        self.components = components
        last = nn.Linear(hidden, components * (1 + 2 * latents))
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.network = nn.Sequential(nn.Linear(features, hidden), nn.GELU(), last)
        means = spread * (2.0 * torch.rand(components, latents) - 1.0)
        means = means - means.mean(dim=0)
        log_std = 0.5 * torch.log(1.0 - means.square().mean(dim=0))
        with torch.no_grad():
            rows = last.bias.view(components, 1 + 2 * latents)
            rows[:, 1:] = torch.cat([means, log_std.expand_as(means)], dim=1)

    def forward(self, context: Tensor) -> tuple[Tensor, DiagonalGaussian]:
        """Log weights (B,K), which add up to 1, and components of shape (B,K,Z) for `context` (B,E)."""
        parameters = self.network(context).unflatten(1, (self.components, -1))
        mean, log_std = parameters[..., 1:].chunk(2, dim=-1)
        return parameters[..., 0].log_softmax(dim=1), DiagonalGaussian(mean, log_std)

    def log_prob(self, z: Tensor, context: Tensor) -> Tensor:
        """Log density (B,) in nats of `z` (B,Z)."""
        log_weights, components = self(context)
        terms = components.log_prob(z[:, None]).sum(dim=2)
        log_density: Tensor = (log_weights + terms).logsumexp(dim=1)
        return log_density

    def sample(self, noise: Tensor, context: Tensor, uniform: Tensor) -> Tensor:
        """Draws (B,Z).

        Args:
            noise: (B,Z), standard normal; scales with the temperature.
            context: (B,E).
            uniform: (B,), in [0, 1): which part of the cumulated weights it falls into decides the
                component. No gradient reaches the weights through it.
        """
        log_weights, components = self(context)
        ends = log_weights.exp().cumsum(dim=1)
        # Rounded sums may end a little below 1.
        chosen = (ends <= uniform[:, None]).sum(dim=1).clamp(max=self.components - 1)
        cases = torch.arange(len(chosen), device=chosen.device)
        mean, log_std = components.mean[cases, chosen], components.log_std[cases, chosen]
        return DiagonalGaussian(mean, log_std).sample(noise)
