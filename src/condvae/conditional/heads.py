"""Heads: from hidden state and features to a distribution over one latent group."""

from __future__ import annotations

import torch
from torch import Tensor

from condvae.distributions import DiagonalGaussian
from condvae.vdvae.architecture import Architecture, DecoderBlockSpec
from condvae.vdvae.blocks import Block

__all__ = ["GaussianHead"]


class GaussianHead(Block):
    """IPA's head: the same block as the posterior's, fed with the partial encoder's activations.

    It sees the decoder's hidden state before the prior's skip output is added, and gives absolute
    mean and log-std (Harvey, Naderiparizi, Wood 2022).
    """

    def __init__(self, architecture: Architecture, spec: DecoderBlockSpec) -> None:
        width = architecture.width_at(spec.resolution)
        super().__init__(
            2 * width,
            int(width * architecture.bottleneck),
            2 * architecture.latent_channels,
            spec.resolution,
        )

    def distribution(self, h: Tensor, features: Tensor) -> DiagonalGaussian:
        """c(z | z above, y) from (B,width,R,R) hidden state and features."""
        return DiagonalGaussian.from_parameters(self(torch.cat([h, features], dim=1)))
