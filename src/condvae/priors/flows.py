"""Coupling flows over latent groups, every parameter a function of a context.

References:
    L. Dinh, D. Krueger, Y. Bengio. NICE: non-linear independent components estimation. 2015.
    L. Dinh, J. Sohl-Dickstein, S. Bengio. Density estimation using Real NVP. ICLR 2017.
    C. Durkan, A. Bekasov, I. Murray, G. Papamakarios. Neural spline flows. NeurIPS 2019.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condvae.ground.configuration import check_choice, check_positive
from condvae.ground.distributions import ConditionalDistribution, DiagonalGaussian
from condvae.priors.univariate import BOUND, UNIVARIATES
from condvae.vdvae.blocks import convolution

__all__ = ["CouplingFlow", "FlowDistribution", "full_precision", "transformed_elements"]


class CouplingFlow(nn.Module):
    """An invertible map between a group's latents and noise, the identity when it is new.

    Every layer leaves half of the elements as they are and sends the others through increasing
    functions of one variable whose parameters a small network computes from the first half and the
    context. Both directions therefore cost one pass.

    Args:
        kind: ``affine``, ``spline`` or ``additive``, the functions; see `UNIVARIATES`.
        channels: Z.
        resolution: R.
        context_channels: Cc, channels of the context.
        layers: Couplings; 0 = the identity for ever.
        hidden: Width of the networks.

    Raises:
        ConfigurationError: Unknown `kind` or negative `layers`.
    """

    def __init__(
        self,
        kind: str,
        channels: int,
        resolution: int,
        context_channels: int,
        *,
        layers: int,
        hidden: int,
    ) -> None:
        super().__init__()
        check_choice("flow", kind, UNIVARIATES)
        check_positive("flow_layers", layers, zero=True)
        self.layers = nn.ModuleList(
            _Coupling(
                kind, transformed_elements(channels, resolution, layer), context_channels, hidden
            )
            for layer in range(layers)
        )

    def forward(self, u: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """From standardised latents to noise.

        Args:
            u: (B,Z,R,R), float32 or float64.
            context: (B,Cc,R,R).

        Returns:
            Noise (B,Z,R,R) and terms (B,Z,R,R) whose sum over a case is the log-determinant.
        """
        log_slopes = torch.zeros_like(u)
        with full_precision(u):
            context = context.to(u.dtype)
            for layer in self.layers:
                u, log_slope = layer(u, context)
                log_slopes = log_slopes + log_slope
        return u, log_slopes

    def inverse(self, noise: Tensor, context: Tensor) -> Tensor:
        """From noise (B,Z,R,R) to standardised latents of the same shape."""
        with full_precision(noise):
            context = context.to(noise.dtype)
            for layer in reversed(self.layers):
                assert isinstance(layer, _Coupling)
                noise = layer.inverse(noise, context)
        return noise

    def distribution(self, base: DiagonalGaussian, context: Tensor) -> FlowDistribution:
        """The density of what `base` gives to noise that went through the inverse."""
        return FlowDistribution(base, self, context)


@dataclass(frozen=True)
class FlowDistribution:
    """z = mean + std * u, u = the flow's inverse of standard normal noise.

    Attributes:
        base: Mean and log-std (B,Z,R,R): the distribution itself while the flow is the identity.
        flow: The map between u and noise.
        context: (B,Cc,R,R), what the flow's parameters depend on.
    """

    base: DiagonalGaussian
    flow: CouplingFlow
    context: Tensor

    def sample(self, noise: Tensor, temperature: float = 1.0) -> Tensor:
        """Map standard normal `noise` (B,Z,R,R), scaled by `temperature`, to a draw; differentiable."""
        scaled = noise if temperature == 1.0 else temperature * noise
        return self.base.sample(self.flow.inverse(scaled, self.context))

    def log_prob(self, z: Tensor) -> Tensor:
        """Terms (B,Z,R,R) of the log density of `z` in nats."""
        noise, log_slopes = self.flow(self.base.standardise(z), self.context)
        terms: Tensor = log_slopes - self.base.log_std - 0.5 * noise.square()
        return terms - 0.5 * math.log(2 * math.pi)

    def kl_from(self, other: ConditionalDistribution, z: Tensor) -> Tensor:
        """Terms (B,Z,R,R) of an unbiased estimate of KL(other || self) in nats.

        For a Gaussian `other` it is the closed form against the base less what the flow adds to the
        base's log density of the draw: no noise while the flow is the identity, and little while it
        changes slowly over the width of `other`.

        Args:
            other: Where the expectation is taken.
            z: (B,Z,R,R), a draw from `other`.
        """
        if not isinstance(other, DiagonalGaussian):
            return other.log_prob(z) - self.log_prob(z)
        u = self.base.standardise(z)
        noise, log_slopes = self.flow(u, self.context)
        gain = 0.5 * (u.square() - noise.square()) + log_slopes
        divergence: Tensor = self.base.kl_from(other) - gain
        return divergence

    def with_floor(self, log_std_floor: float) -> FlowDistribution:
        """Count smaller log-stds of the base as `log_std_floor`; see `DiagonalGaussian.with_floor`."""
        return FlowDistribution(self.base.with_floor(log_std_floor), self.flow, self.context)


def transformed_elements(channels: int, resolution: int, layer: int) -> Tensor:
    """Which elements of a group a layer transforms; the others it only looks at.

    A checkerboard over positions that alternates from channel to channel, so that every element is
    transformed given half of its own position and half of its neighbours. The next layer swaps the two
    halves, the next pair of layers alternates over pairs of channels, then over fours, and so on. A
    group of one element has nothing else to look at and is always transformed.

    Args:
        channels: Z.
        resolution: R.
        layer: Position in the flow, 0 = next to the latents.

    Returns:
        bool (1,Z,R,R).
    """
    if channels * resolution == 1:
        return torch.ones(1, 1, 1, 1, dtype=torch.bool)
    periods = max(1, (channels - 1).bit_length())
    channel = torch.arange(channels) >> (layer // 2 % periods)
    place = torch.arange(resolution)
    parity = channel[:, None, None] + place[:, None] + place + layer
    return (parity % 2 == 0)[None]


def full_precision(values: Tensor) -> torch.autocast:
    """Undo autocast: a map rounded to half precision is not the inverse of the other direction."""
    return torch.autocast(values.device.type, enabled=False)


class _Coupling(nn.Module):
    """One layer; see `CouplingFlow`."""

    transformed: Tensor
    places: Tensor

    def __init__(self, kind: str, transformed: Tensor, context_channels: int, hidden: int) -> None:
        super().__init__()
        self.univariate = UNIVARIATES[kind]
        self.register_buffer("transformed", transformed, persistent=False)
        places = transformed.flatten().nonzero().flatten()
        self.register_buffer("places", places, persistent=False)
        channels, resolution = transformed.shape[1:3]
        kernel_size = 3 if resolution > 1 else 1
        self.context = convolution(context_channels, hidden, 1)
        self.seen = None if bool(transformed.all()) else convolution(channels, hidden, kernel_size)
        self.middle = convolution(hidden, hidden, kernel_size)
        self.last = convolution(hidden, channels * self.univariate.parameters, 1, zero=True)

    def forward(self, u: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Towards the noise, with the logs of the slopes."""
        changing = u.flatten(1)[:, self.places]
        v, log_slopes = self.univariate.apply(changing, self._shape(u, context))
        return self._put(u, v), self._put(torch.zeros_like(u), log_slopes)

    def inverse(self, v: Tensor, context: Tensor) -> Tensor:
        """Towards the latents."""
        changing = v.flatten(1)[:, self.places]
        return self._put(v, self.univariate.invert(changing, self._shape(v, context)))

    def _put(self, values: Tensor, changed: Tensor) -> Tensor:
        """`values` (B,Z,R,R) with the transformed elements replaced by `changed` (B,D)."""
        return values.flatten(1).index_copy(1, self.places, changed).reshape(values.shape)

    def _shape(self, values: Tensor, context: Tensor) -> Tensor:
        """Parameters (B,D,P) of the D functions, from the elements that stay as they are."""
        x: Tensor = self.context(F.gelu(context))
        if self.seen is not None:
            # Heads copied from the posterior's start with values far out: they would drown the rest.
            kept = values.masked_fill(self.transformed, 0.0).clamp(-BOUND, BOUND)
            x = x + self.seen(kept)
        x = self.last(F.gelu(self.middle(F.gelu(x))))
        # (B,Z*P,R,R) -> (B,Z*R*R,P); functions that are not used would cost as much as the others.
        count = x.shape[1] // values.shape[1]
        x = x.reshape(len(x), values.shape[1], count, *x.shape[2:]).movedim(2, -1).flatten(1, 3)
        return x[:, self.places]
