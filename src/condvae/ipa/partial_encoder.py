"""The part that is learned: c(z | y), a distribution over the frozen VAE's latents given y."""

from __future__ import annotations

from importlib import import_module
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from condvae.ground.configuration import ConfigurationError, check_choice
from condvae.ground.distributions import ConditionalDistribution, DiagonalGaussian
from condvae.ipa.heads import HEADS, MIXTURE, GaussianHead, normalise_flows, parse_flows
from condvae.vdvae.architecture import Architecture
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
NARROWEST_FLOW = 32


class ConditionalLatents(Protocol):
    """Anything that gives c(z | y) group by group."""

    def encode(self, condition: Tensor) -> dict[int, Tensor]:
        """Condition (B,Cy,H,W) -> features per resolution; run once per observation."""
        ...

    def distribution(
        self, group: LatentGroup, h: Tensor, features: dict[int, Tensor]
    ) -> ConditionalDistribution:
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
    """IPA's partial encoder: a second bottom-up network and one head per latent group.

    Args:
        vae: The frozen model whose latents are predicted; only its architecture is used.
        condition_channels: Cy, channels of the condition image.
        heads: ``absolute`` (published): a head gives mean and log-std. ``residual``: it gives their
            differences from the frozen prior's.
        flows: Which groups have a flow, or a mixture, after their Gaussian, and of what kind; see
            `parse_flows`. A new flow changes nothing, a new mixture next to nothing.
        flow_layers: Couplings per flow; mixtures have none.
        first_groups: Only so many groups, from the top, are conditioned on y; below them c(z | y) is
            the prior. None = all groups.

    Attributes:
        flow_kinds: `flows` as the card has it, resolutions in order.

    Raises:
        ConfigurationError: Unknown `heads`, flows that cannot be read or built, or more
            `first_groups` than there are.
    """

    def __init__(
        self,
        vae: VDVAE,
        condition_channels: int,
        heads: str = "absolute",
        flows: str = "",
        flow_layers: int = 2,
        first_groups: int | None = None,
    ) -> None:
        super().__init__()
        check_choice("heads", heads, HEADS)
        specs = vae.architecture.decoder_blocks
        if first_groups is not None and not 1 <= first_groups <= len(specs):
            raise ConfigurationError(
                f"first_groups = {first_groups!r}: the model has {len(specs)} latent groups; "
                f"expected 1 to {len(specs)}, or none for all"
            )
        self.condition_channels = condition_channels
        self.head_kind = heads
        self.flow_kinds = normalise_flows(flows)
        self.flow_layers = flow_layers
        self.encoder = new_encoder(vae.architecture, condition_channels)
        self.heads = nn.ModuleList(
            HEADS[heads](vae.architecture, spec) for spec in specs[:first_groups]
        )
        self.flows = _build_flows(
            vae.architecture, parse_flows(flows), flow_layers, len(self.heads)
        )
        self._groups = len(specs)

    @property
    def first_groups(self) -> int | None:
        """How many groups are conditioned on y, from the top; None = all."""
        return len(self.heads) if len(self.heads) < self._groups else None

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

    def conditional(
        self, index: int, h: Tensor, features: Tensor, prior: DiagonalGaussian | None = None
    ) -> ConditionalDistribution:
        """c(z | z above, y) of the group at `index`; see `GaussianHead.distribution`.

        Raises:
            ValueError: No prior where it is needed: by residual heads, and by groups without a head.
        """
        if index >= len(self.heads):
            if prior is None:
                raise ValueError(
                    f"prior = None: group {index} has no head, it needs p(z | z above)"
                )
            return prior
        head = self.head(index)
        base = head.distribution(h, features, prior)
        if str(index) not in self.flows:
            return base
        flow = cast(_Flow, self.flows[str(index)])
        return flow.distribution(base, torch.cat([h, features[:, head.link]], dim=1))

    def distribution(
        self, group: LatentGroup, h: Tensor, features: dict[int, Tensor]
    ) -> ConditionalDistribution:
        """c(z | z above, y) of one group."""
        prior = group.prior if self.needs_prior or group.index >= len(self.heads) else None
        return self.conditional(group.index, h, features[group.block.resolution], prior)


class _Flow(Protocol):
    """What a flow of the room `priors`, which the core does not know, is asked for."""

    def distribution(self, base: DiagonalGaussian, context: Tensor) -> ConditionalDistribution: ...


def _build_flows(
    architecture: Architecture, kinds: dict[int, str], layers: int, groups: int
) -> nn.ModuleDict:
    """Flows and mixtures by index of their group, for the first `groups` of them."""
    specs = architecture.decoder_blocks[:groups]
    resolutions = sorted({spec.resolution for spec in specs})
    for resolution in kinds:
        check_choice("resolution of flows", resolution, resolutions)
    flows = nn.ModuleDict()
    for index, spec in enumerate(specs):
        if spec.resolution not in kinds:
            continue
        kind, channels = kinds[spec.resolution], architecture.latent_channels
        width = architecture.width_at(spec.resolution)
        hidden = max(NARROWEST_FLOW, int(width * architecture.bottleneck))
        priors = import_module("condvae.priors")
        if kind == MIXTURE:
            flows[str(index)] = priors.GroupMixture(channels, 2 * width, hidden)
        else:
            flows[str(index)] = priors.CouplingFlow(
                kind, channels, spec.resolution, 2 * width, layers=layers, hidden=hidden
            )
    return flows


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
    Flows always start as the identity: c(z | y) is the Gaussian that it would be without them. With a
    mixture it has the moments of that Gaussian, see `condvae.priors.GroupMixture`.

    Args:
        partial: Changed in place.
        vae: The frozen model.
        how: One of `INITIALISATIONS`.
        generator_seed: Makes ``random`` and flows reproducible; the global generator is left as it
            was.

    Raises:
        ConfigurationError: Unknown `how`, or one for other heads than the partial encoder has.
    """
    if partial.head_kind != heads_for(how):
        raise ConfigurationError(
            f"initialisation = {how!r} is for {heads_for(how)} heads, the partial encoder has "
            f"{partial.head_kind} ones"
        )
    if how == "random" or partial.flows:
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which would also reseed every GPU.
            torch.default_generator.manual_seed(generator_seed)
            fresh = PartialEncoder(
                vae,
                partial.condition_channels,
                partial.head_kind,
                partial.flow_kinds,
                partial.flow_layers,
                partial.first_groups,
            )
        partial.load_state_dict(fresh.state_dict())
    if how == "random":
        return
    with torch.no_grad():
        state = vae.encoder.state_dict()
        weight = state["in_conv.weight"]
        wide = partial.encoder.in_conv.weight.new_zeros(partial.encoder.in_conv.weight.shape)
        shared = min(weight.shape[1], wide.shape[1])
        wide[:, :shared] = weight[:, :shared]
        partial.encoder.load_state_dict({**state, "in_conv.weight": wide})
        # Groups below the first ones may have no head.
        for head, block in zip(partial.heads, vae.decoder.dec_blocks, strict=False):
            assert isinstance(block, DecoderBlock)
            assert isinstance(head, GaussianHead)
            head.load_state_dict(block.enc.state_dict())
            if how == "residual":
                for parameter in head.c4.parameters():
                    parameter.zero_()
