"""Heads: from hidden state and features to a distribution over one latent group."""

from __future__ import annotations

import torch
from torch import Tensor

from condvae.distributions import DiagonalGaussian
from condvae.vdvae.architecture import Architecture, DecoderBlockSpec
from condvae.vdvae.blocks import Block

__all__ = ["HEADS", "GaussianHead", "ResidualHead"]


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
