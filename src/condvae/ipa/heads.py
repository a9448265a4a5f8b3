"""Heads: from hidden state and features to a distribution over one latent group."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from condvae.ground.configuration import ConfigurationError
from condvae.ground.distributions import DiagonalGaussian
from condvae.vdvae.architecture import Architecture, DecoderBlockSpec
from condvae.vdvae.blocks import Block

__all__ = [
    "FLOWS",
    "HEADS",
    "MIXTURE",
    "GaussianHead",
    "ResidualHead",
    "normalise_flows",
    "parse_flows",
]


class GaussianHead(Block):
    """IPA's head: the same block as the posterior's, fed with the partial encoder's activations.

    It sees the decoder's hidden state before the prior's skip output is added, and gives absolute
    mean and log-std (Harvey, Naderiparizi, Wood 2022), the latter in the architecture's way
    (`latent_std`).
    """

    needs_prior = False

    def __init__(self, architecture: Architecture, spec: DecoderBlockSpec) -> None:
        width = architecture.width_at(spec.resolution)
        super().__init__(
            2 * width,
            int(width * architecture.bottleneck),
            2 * architecture.latent_channels,
            spec.resolution,
            activation=architecture.activation,
        )
        self.link = architecture.linked_channels(spec)
        self.latent_std = architecture.latent_std

    def distribution(
        self, h: Tensor, features: Tensor, prior: DiagonalGaussian | None = None
    ) -> DiagonalGaussian:
        """c(z | z above, y).

        Args:
            h: (B,width,R,R), the decoder's hidden state.
            features: (B,·,R,R), the partial encoder's activations; the head sees those of its link.
            prior: p(z | z above) with (B,Z,R,R); only heads with `needs_prior` look at it.
        """
        del prior
        parameters: Tensor = self(torch.cat([h, features[:, self.link]], dim=1))
        return DiagonalGaussian.from_parameters(parameters, self.latent_std)


class ResidualHead(GaussianHead):
    """The same block, its output read as a difference from the prior's mean and log-std.

    With its last convolution at zero c(z | y) is the prior.
    """

    needs_prior = True

    def distribution(
        self, h: Tensor, features: Tensor, prior: DiagonalGaussian | None = None
    ) -> DiagonalGaussian:
        """c(z | z above, y); see `GaussianHead.distribution`.

        Raises:
            ValueError: No prior.
        """
        if prior is None:
            raise ValueError("prior = None: a residual head needs p(z | z above)")
        difference = super().distribution(h, features)
        return DiagonalGaussian(prior.mean + difference.mean, prior.log_std + difference.log_std)


HEADS: dict[str, type[GaussianHead]] = {"absolute": GaussianHead, "residual": ResidualHead}

FLOWS = ("affine", "spline", "additive")
MIXTURE = "mixture"
"""In place of a flow, for groups of 1x1."""


def parse_flows(text: str) -> dict[int, str]:
    """Read which groups have a flow after their Gaussian head, and of what kind.

    Args:
        text: ``resolution:kind`` pairs apart by commas or spaces (``1:spline,4:affine``): all groups of
            that resolution get one. Groups of 1x1 may have a ``mixture`` instead. Empty = none.

    Returns:
        Kind by resolution, smallest resolution first.

    Raises:
        ConfigurationError: Anything else.
    """
    kinds: dict[int, str] = {}
    for pair in re.split(r"[,\s]+", text.strip()) if text.strip() else []:
        match = re.fullmatch(r"([1-9]\d*):(\w+)", pair)
        known = match is not None and match[2] in (*FLOWS, MIXTURE)
        if match is None or not known or int(match[1]) in kinds:
            raise ConfigurationError(
                f"flows = {text!r}: {pair!r} is not one of the expected pairs resolution:kind, each "
                f"resolution once, kind one of {', '.join(FLOWS)} or, at 1, {MIXTURE} (like "
                "1:spline,4:affine)"
            )
        if match[2] == MIXTURE and match[1] != "1":
            raise ConfigurationError(
                f"flows = {text!r}: {pair!r}: a mixture is for groups of 1x1; expected 1:{MIXTURE}, or "
                f"one of {', '.join(FLOWS)}"
            )
        kinds[int(match[1])] = match[2]
    return dict(sorted(kinds.items()))


def normalise_flows(text: str) -> str:
    """Write what `parse_flows` reads in the one way that cards and runs have it."""
    return ",".join(f"{resolution}:{kind}" for resolution, kind in parse_flows(text).items())
