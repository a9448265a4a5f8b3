"""A mixture of Gaussians after the Gaussian head of a latent group of 1x1."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from condvae.ground.configuration import ConfigurationError, check_positive
from condvae.ground.distributions import ConditionalDistribution, DiagonalGaussian
from condvae.priors.flows import full_precision
from condvae.priors.mixture import GaussianMixture

__all__ = ["GroupMixture", "MixtureDistribution"]

COMPONENTS = 8
# Wide enough for the components to come apart, see the tests.
SPREAD = 0.4
# Uniform numbers are kept this far from 0 and 1, where the normal's inverse is infinite.
MARGIN = 1e-12


class GroupMixture(nn.Module):
    """From a context to a mixture around a group's Gaussian; see `GaussianMixture`.

    A new mixture has the mean and the standard deviation of the Gaussian and is within a hundredth of a
    nat of it for each latent. It cannot be the Gaussian itself: equal components have equal gradients,
    and components that hardly differ are held at a Gaussian of the right moments.

    Args:
        channels: Z of the group, whose resolution is 1.
        context_channels: Cc, channels of the context.
        hidden: Width of the network.
        components: K.
    """

    def __init__(
        self, channels: int, context_channels: int, hidden: int, components: int = COMPONENTS
    ) -> None:
        super().__init__()
        check_positive("components", components)
        self.channels = channels
        self.mixture = GaussianMixture(
            channels, context_channels, components, hidden, spread=SPREAD
        )

    def distribution(self, base: DiagonalGaussian, context: Tensor) -> MixtureDistribution:
        """The mixture around `base`, mean and log-std (B,Z,1,1), for a context (B,Cc,1,1).

        Raises:
            ConfigurationError: A group that is larger than 1x1.
        """
        shape = tuple(base.mean.shape[1:])
        if shape != (self.channels, 1, 1):
            raise ConfigurationError(
                f"latents of shape {shape}: a mixture expects ({self.channels}, 1, 1)"
            )
        with full_precision(context):
            weights, components = self.mixture(context.to(base.mean.dtype).flatten(1))
        return MixtureDistribution(base, weights, components)


@dataclass(frozen=True)
class MixtureDistribution:
    """z = mean + std * u, u from a mixture of K diagonal Gaussians.

    Attributes:
        base: Mean and log-std (B,Z,1,1).
        log_weights: (B,K), of the components.
        components: Means and log-stds (B,K,Z) of u.
    """

    base: DiagonalGaussian
    log_weights: Tensor
    components: DiagonalGaussian

    def sample(self, noise: Tensor, temperature: float = 1.0) -> Tensor:
        """Map standard normal `noise` (B,Z,1,1) to a draw; `temperature` scales the components' noise.

        The first element of the noise decides the component, by the part of the cumulated weights that
        its distribution function falls into; its place within that part is standard normal noise
        again. Weights get no gradient through the choice.
        """
        flat = noise.flatten(1)
        place = torch.special.ndtr(flat[:, 0].double())
        ends = self.log_weights.double().exp().cumsum(dim=1)
        # Rounded sums may end a little below 1.
        chosen = (ends <= place[:, None]).sum(dim=1).clamp(max=ends.shape[1] - 1)
        cases = torch.arange(len(flat), device=flat.device)
        weight = self.log_weights.double().exp()[cases, chosen]
        inside = ((place - ends[cases, chosen]) / weight + 1.0).clamp(MARGIN, 1.0 - MARGIN)
        first = torch.special.ndtri(inside).to(flat.dtype)
        own = torch.cat([first[:, None], flat[:, 1:]], dim=1)
        component = DiagonalGaussian(
            self.components.mean[cases, chosen], self.components.log_std[cases, chosen]
        )
        return self.base.sample(component.sample(own, temperature)[:, :, None, None])

    def log_prob(self, z: Tensor) -> Tensor:
        """Terms (B,Z,1,1) of the log density of `z` in nats; what is not the base's lies even."""
        return self.base.log_prob(z) + self._gain(z)

    def kl_from(self, other: ConditionalDistribution, z: Tensor) -> Tensor:
        """Terms (B,Z,1,1) of an unbiased estimate of KL(other || self) in nats.

        For a Gaussian `other` it is the closed form against the base less what the mixture adds to the
        base's log density of the draw, as with `FlowDistribution.kl_from`.

        Args:
            other: Where the expectation is taken.
            z: (B,Z,1,1), a draw from `other`.
        """
        if not isinstance(other, DiagonalGaussian):
            return other.log_prob(z) - self.log_prob(z)
        return self.base.kl_from(other) - self._gain(z)

    def with_floor(self, log_std_floor: float) -> MixtureDistribution:
        """Count smaller log-stds of the base as `log_std_floor`; see `DiagonalGaussian.with_floor`."""
        return MixtureDistribution(
            self.base.with_floor(log_std_floor), self.log_weights, self.components
        )

    def _gain(self, z: Tensor) -> Tensor:
        """What the mixture adds to the base's log density, the same term (B,Z,1,1) for every Z."""
        u = self.base.standardise(z).flatten(1)
        terms = self.components.log_prob(u[:, None]).sum(dim=2)
        normal = -0.5 * u.square().sum(dim=1) - 0.5 * u.shape[1] * math.log(2 * math.pi)
        gain = (self.log_weights + terms).logsumexp(dim=1) - normal
        return (gain / u.shape[1])[:, None, None, None].expand_as(z)
