"""The part that is learned: c(z | y), a distribution over the frozen VAE's latents given y."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from condvae.conditional.heads import GaussianHead
from condvae.configuration import ConfigurationError, check_choice
from condvae.distributions import DiagonalGaussian
from condvae.vdvae.decoder import DecoderBlock, LatentGroup
from condvae.vdvae.encoder import Encoder
from condvae.vdvae.model import VDVAE

__all__ = [
    "INITIALISATIONS",
    "ConditionalLatents",
    "PartialEncoder",
    "UnconditionalLatents",
    "initialise",
]

INITIALISATIONS = ("copy", "random")


class ConditionalLatents(Protocol):
    """Anything that gives c(z | y) group by group."""

    def encode(self, condition: Tensor) -> dict[int, Tensor]:
        """Condition (B,Cy,H,W) -> features per resolution; run once per observation."""
        ...

    def distribution(
        self, group: LatentGroup, h: Tensor, features: dict[int, Tensor]
    ) -> DiagonalGaussian:
        """c(z | z above, y) of one group."""
        ...


class UnconditionalLatents:
    """The frozen prior in place of c(z | y): what sampling looks like when y is not used."""

    def encode(self, condition: Tensor) -> dict[int, Tensor]:
        """Nothing to encode."""
        del condition
        return {}

    def distribution(
        self, group: LatentGroup, h: Tensor, features: dict[int, Tensor]
    ) -> DiagonalGaussian:
        """The prior p(z | z above)."""
        del h, features
        return group.prior


class PartialEncoder(nn.Module):
    """IPA's partial encoder: a second bottom-up network and one Gaussian head per latent group.

    Args:
        vae: The frozen model whose latents are predicted; only its architecture is used.
        condition_channels: Cy, channels of the condition image.
    """

    def __init__(self, vae: VDVAE, condition_channels: int) -> None:
        super().__init__()
        self.condition_channels = condition_channels
        self.encoder = Encoder(vae.architecture, condition_channels)
        self.heads = nn.ModuleList(
            GaussianHead(vae.architecture, spec) for spec in vae.architecture.decoder_blocks
        )

    def encode(self, condition: Tensor) -> dict[int, Tensor]:
        """Condition (B,Cy,H,W) -> activations per resolution."""
        if condition.shape[1] != self.condition_channels:
            raise ConfigurationError(
                f"condition with {condition.shape[1]} channels: the partial encoder was built for "
                f"{self.condition_channels}"
            )
        features: dict[int, Tensor] = self.encoder(condition)
        return features

    def head(self, index: int) -> GaussianHead:
        """The head of one latent group."""
        head = self.heads[index]
        assert isinstance(head, GaussianHead)
        return head

    def distribution(
        self, group: LatentGroup, h: Tensor, features: dict[int, Tensor]
    ) -> DiagonalGaussian:
        """c(z | z above, y) of one group."""
        return self.head(group.index).distribution(h, features[group.block.resolution])


def initialise(partial: PartialEncoder, vae: VDVAE, how: str, generator_seed: int) -> None:
    """Set the starting weights of a partial encoder.

    ``copy``: the VAE's encoder (new input channels at zero) and its posterior heads, so that with
    y = all of x the partial encoder equals the encoder and KL(q || c) is 0.
    ``random``: the layers' own initialisation, as published.

    Args:
        partial: Changed in place.
        vae: The frozen model.
        how: One of `INITIALISATIONS`.
        generator_seed: Makes ``random`` reproducible; the global generator is left as it was.

    Raises:
        ConfigurationError: Unknown `how`.
    """
    check_choice("initialisation", how, INITIALISATIONS)
    if how == "random":
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which would also reseed every GPU.
            torch.default_generator.manual_seed(generator_seed)
            fresh = PartialEncoder(vae, partial.condition_channels)
        partial.load_state_dict(fresh.state_dict())
        return
    with torch.no_grad():
        state = vae.encoder.state_dict()
        weight = state["in_conv.weight"]
        wide = partial.encoder.in_conv.weight.new_zeros(partial.encoder.in_conv.weight.shape)
        shared = min(weight.shape[1], wide.shape[1])
        wide[:, :shared] = weight[:, :shared]
        partial.encoder.load_state_dict({**state, "in_conv.weight": wide})
        for head, block in zip(partial.heads, vae.decoder.dec_blocks, strict=True):
            assert isinstance(block, DecoderBlock)
            head.load_state_dict(block.enc.state_dict())
