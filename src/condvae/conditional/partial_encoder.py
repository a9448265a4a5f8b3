"""The part that is learned: c(z | y), a distribution over the frozen VAE's latents given y."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from condvae.conditional.heads import HEADS, GaussianHead
from condvae.configuration import ConfigurationError, check_choice
from condvae.distributions import DiagonalGaussian
from condvae.vdvae.decoder import DecoderBlock, LatentGroup
from condvae.vdvae.encoder import new_encoder
from condvae.vdvae.model import VDVAE

__all__ = [
    "INITIALISATIONS",
    "ConditionalLatents",
    "PartialEncoder",
    "UnconditionalLatents",
    "heads_for",
    "initialise",
]

INITIALISATIONS = ("copy", "random", "residual")


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
        heads: ``absolute`` (published): a head gives mean and log-std. ``residual``: it gives their
            differences from the frozen prior's.

    Raises:
        ConfigurationError: Unknown `heads`.
    """

    def __init__(self, vae: VDVAE, condition_channels: int, heads: str = "absolute") -> None:
        super().__init__()
        check_choice("heads", heads, HEADS)
        self.condition_channels = condition_channels
        self.head_kind = heads
        self.encoder = new_encoder(vae.architecture, condition_channels)
        self.heads = nn.ModuleList(
            HEADS[heads](vae.architecture, spec) for spec in vae.architecture.decoder_blocks
        )

    @property
    def needs_prior(self) -> bool:
        """Whether heads look at the prior; see `run_trunk`."""
        return HEADS[self.head_kind].needs_prior

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
        prior = group.prior if self.needs_prior else None
        return self.head(group.index).distribution(h, features[group.block.resolution], prior)


def heads_for(initialisation: str) -> str:
    """Kind of heads that an initialisation fills.

    Raises:
        ConfigurationError: Unknown `initialisation`.
    """
    check_choice("initialisation", initialisation, INITIALISATIONS)
    return "residual" if initialisation == "residual" else "absolute"


def initialise(partial: PartialEncoder, vae: VDVAE, how: str, generator_seed: int) -> None:
    """Set the starting weights of a partial encoder.

    ``copy``: the VAE's encoder (new input channels at zero) and its posterior heads, so that with
    y = all of x the partial encoder equals the encoder and KL(q || c) is 0.
    ``random``: the layers' own initialisation, as published.
    ``residual``: a copy whose heads end in zeros and are read as differences from the prior, so that
    c(z | y) starts as the prior and KL(q || c) as KL(q || p), whatever y is.

    Args:
        partial: Changed in place.
        vae: The frozen model.
        how: One of `INITIALISATIONS`.
        generator_seed: Makes ``random`` reproducible; the global generator is left as it was.

    Raises:
        ConfigurationError: Unknown `how`, or one for other heads than the partial encoder has.
    """
    if partial.head_kind != heads_for(how):
        raise ConfigurationError(
            f"initialisation = {how!r} is for {heads_for(how)} heads, the partial encoder has "
            f"{partial.head_kind} ones"
        )
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
            assert isinstance(head, GaussianHead)
            head.load_state_dict(block.enc.state_dict())
            if how == "residual":
                for parameter in head.c4.parameters():
                    parameter.zero_()
