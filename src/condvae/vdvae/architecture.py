"""The architecture of a VDVAE as a frozen value; its layer strings are parsed here and nowhere else.

Grammar, as published (Child 2020): items separated by commas;
``RxN`` = N blocks at resolution R, ``RdK`` = a block at R followed by average pooling by K (encoder),
``RmS`` = the first block at R, which mixes in the hidden state of resolution S, enlarged (decoder).

The family ``efficient_vdvae`` (Hazami, Mama, Thurairatnam 2022) links single blocks of the encoder to
single groups, the last one at a resolution to the first: ``RuN`` = N blocks at R without a link
(encoder; all others have one), ``RrN`` = N groups at R that share the link of the group before
(decoder; all others take the next one).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from condvae.ground.configuration import ConfigurationError, check_choice, check_positive
from condvae.ground.distributions import LATENT_STDS

__all__ = [
    "Architecture",
    "DecoderBlockSpec",
    "EncoderBlockSpec",
]

FAMILIES = ("vdvae", "efficient_vdvae")


@dataclass(frozen=True)
class EncoderBlockSpec:
    """One bottom-up block: where it works and by how much it pools afterwards (None = not).

    `linked`: some groups see this very block, before it pools (only in ``efficient_vdvae``).
    """

    resolution: int
    down_rate: int | None
    linked: bool = False

    @property
    def resolution_after(self) -> int:
        """Size of the block's output."""
        return self.resolution // (self.down_rate or 1)


@dataclass(frozen=True)
class DecoderBlockSpec:
    """One latent group: where it works and which resolution it mixes in (None = none).

    `link`: which linked block of the encoder at this resolution the group sees, counted bottom-up;
    None = the last activation at this resolution.
    """

    resolution: int
    mixin: int | None
    link: int | None = None


@dataclass(frozen=True)
class Architecture:
    """Hyper-parameters that fix every tensor shape of a VDVAE and what its outputs mean.

    Attributes:
        image_size: Height and width of images.
        channels: Colour channels, 1 or 3.
        width: Channels of the hidden states.
        latent_channels: Z, channels of every latent group.
        encoder: Layer string of the bottom-up network.
        decoder: Layer string of the top-down network; one latent group per block.
        bottleneck: Width inside a block relative to the width outside.
        mixtures: Components of the logistic mixture.
        bias_up_to: Resolutions up to this one have a learned constant as first hidden state.
        widths: Exceptions to `width`, ``R:W`` items separated by commas (FFHQ-1024 has them).
        latent_std: How networks give the standard deviations of latents, in prior, posterior and
            heads alike: ``exp`` (published) or ``softplus``; see `DiagonalGaussian.from_parameters`.
        family: ``vdvae`` (Child 2020), or ``efficient_vdvae`` (Hazami et al. 2022): SiLU, a first
            convolution of 1x1, learned pooling and enlarging, links of single blocks, and softplus in
            place of exp for the scales of the mixture.
    """

    image_size: int
    channels: int
    width: int
    latent_channels: int
    encoder: str
    decoder: str
    bottleneck: float = 0.25
    mixtures: int = 10
    bias_up_to: int = 64
    widths: str = ""
    latent_std: str = "exp"
    family: str = "vdvae"

    def __post_init__(self) -> None:
        for name in ("image_size", "width", "latent_channels", "bottleneck", "mixtures"):
            check_positive(name, getattr(self, name))
        check_choice("latent_std", self.latent_std, LATENT_STDS)
        check_choice("family", self.family, FAMILIES)
        self._check_encoder()
        self._check_decoder()
        self._check_widths()

    def facts(self) -> dict[str, Any]:
        """Fields by name, for cards and fingerprints."""
        facts = asdict(self)
        # Younger than the first cards and fingerprints: at their defaults they must not change any.
        for name, default in (("latent_std", "exp"), ("family", "vdvae")):
            if facts[name] == default:
                del facts[name]
        return facts

    @property
    def encoder_blocks(self) -> tuple[EncoderBlockSpec, ...]:
        """Bottom-up blocks in order."""
        blocks: list[EncoderBlockSpec] = []
        kinds = "xdu" if self.is_efficient else "xd"
        for resolution, kind, number in _items(self.encoder, kinds, "encoder"):
            linked = self.is_efficient and kind != "u"
            if kind == "d":
                blocks.append(EncoderBlockSpec(resolution, number, linked))
            else:
                blocks += [EncoderBlockSpec(resolution, None, linked)] * number
        return tuple(blocks)

    @property
    def decoder_blocks(self) -> tuple[DecoderBlockSpec, ...]:
        """Latent groups from the top (1x1) down."""
        blocks: list[DecoderBlockSpec] = []
        kinds = "xmr" if self.is_efficient else "xm"
        unused = self.links
        for resolution, kind, number in _items(self.decoder, kinds, "decoder"):
            mixin = number if kind == "m" else None
            for _ in range(1 if kind == "m" else number):
                if self.is_efficient and kind != "r":
                    unused[resolution] = unused.get(resolution, 0) - 1
                blocks.append(DecoderBlockSpec(resolution, mixin, unused.get(resolution)))
        return tuple(blocks)

    @property
    def is_efficient(self) -> bool:
        """Whether this is an Efficient-VDVAE."""
        return self.family == "efficient_vdvae"

    @property
    def activation(self) -> str:
        """Name of the blocks' activation."""
        return "silu" if self.is_efficient else "gelu"

    @property
    def links(self) -> dict[int, int]:
        """Number of linked blocks of the encoder per resolution; empty in the family ``vdvae``."""
        return dict(Counter(block.resolution for block in self.encoder_blocks if block.linked))

    def linked_channels(self, group: DecoderBlockSpec) -> slice:
        """Which channels of the encoder's activations at its resolution a group sees."""
        if group.link is None:
            return slice(None)
        width = self.width_at(group.resolution)
        return slice(group.link * width, (group.link + 1) * width)

    @property
    def _width_table(self) -> dict[int, int]:
        table = {}
        for item in filter(None, self.widths.split(",")):
            match = re.fullmatch(r"\s*(\d+):(\d+)\s*", item)
            if match is None:
                raise ConfigurationError(
                    f"widths = {self.widths!r}: {item!r} is not RESOLUTION:WIDTH"
                )
            table[int(match[1])] = int(match[2])
        return table

    def width_at(self, resolution: int) -> int:
        """Channels of the hidden state at a resolution."""
        return self._width_table.get(resolution, self.width)

    @property
    def latent_dimensions(self) -> int:
        """Number of latent values of one image over all groups."""
        return sum(self.latent_channels * b.resolution**2 for b in self.decoder_blocks)

    def _check_encoder(self) -> None:
        resolution = self.image_size
        for block in self.encoder_blocks:
            if block.resolution != resolution:
                raise ConfigurationError(
                    f"encoder = {self.encoder!r}: a block at {block.resolution} where the "
                    f"activations have size {resolution}"
                )
            if block.down_rate is not None:
                if block.down_rate < 2 or resolution % block.down_rate:
                    raise ConfigurationError(
                        f"encoder = {self.encoder!r}: cannot pool {resolution} by {block.down_rate}"
                    )
                resolution //= block.down_rate

    def _check_widths(self) -> None:
        used = sorted({self.image_size, *(b.resolution_after for b in self.encoder_blocks)})
        used_widths = [self.width_at(resolution) for resolution in used]
        # Activations are padded where they get wider on the way up, never cut.
        if used_widths != sorted(used_widths, reverse=True):
            raise ConfigurationError(
                f"widths = {self.widths!r} with width = {self.width}: {used_widths} at resolutions "
                f"{used}, expected none smaller than at the next larger resolution"
            )
        narrowest = used_widths[-1]
        if int(narrowest * self.bottleneck) < 1:
            raise ConfigurationError(
                f"bottleneck = {self.bottleneck!r}: leaves no channel of a width of {narrowest}"
            )

    def _check_decoder(self) -> None:
        # The input convolution's output counts too: a decoder may start where no encoder block is.
        available = {self.image_size, *(b.resolution_after for b in self.encoder_blocks)}
        seen: set[int] = set()
        for block in self.decoder_blocks:
            if block.resolution not in available:
                raise ConfigurationError(
                    f"decoder = {self.decoder!r}: the encoder has no activations at {block.resolution}"
                )
            if block.mixin is not None and block.mixin not in seen:
                raise ConfigurationError(
                    f"decoder = {self.decoder!r}: {block.resolution}m{block.mixin} before any block "
                    f"at {block.mixin}"
                )
            if block.mixin is not None and block.resolution % block.mixin:
                raise ConfigurationError(
                    f"decoder = {self.decoder!r}: {block.mixin} does not divide {block.resolution}"
                )
            without_start = block.mixin is None and block.resolution not in seen
            if without_start and block.resolution > self.bias_up_to:
                raise ConfigurationError(
                    f"decoder = {self.decoder!r}: the first block at {block.resolution} needs a mixin "
                    f"(no bias above {self.bias_up_to})"
                )
            seen.add(block.resolution)
        if self.is_efficient:
            self._check_links()
        if self.decoder_blocks[-1].resolution != self.image_size:
            raise ConfigurationError(
                f"decoder = {self.decoder!r}: ends at {self.decoder_blocks[-1].resolution}, images "
                f"have size {self.image_size}"
            )

    def _check_links(self) -> None:
        last: dict[int, int | None] = {}
        for block in self.decoder_blocks:
            if last.get(block.resolution) is None and block.mixin is None and last:
                raise ConfigurationError(
                    f"decoder = {self.decoder!r}: the first block at {block.resolution} needs a mixin"
                )
            if block.link == self.links.get(block.resolution):
                raise ConfigurationError(
                    f"decoder = {self.decoder!r}: no group at {block.resolution} before the first one, "
                    "whose link it could share"
                )
            last[block.resolution] = block.link
        # The last link to be taken is the first block's.
        if last != dict.fromkeys(self.links, 0):
            raise ConfigurationError(
                f"decoder = {self.decoder!r}: takes other links than encoder = {self.encoder!r} has: "
                f"{self.links} (resolution: number)"
            )
        if self.bias_up_to < self.image_size:
            raise ConfigurationError(
                f"bias_up_to = {self.bias_up_to}: expected at least the image size, "
                f"{self.image_size}, in the family efficient_vdvae"
            )


def _items(text: str, kinds: str, name: str) -> list[tuple[int, str, int]]:
    """Split a layer string into (resolution, kind, number)."""
    items = []
    for item in text.split(","):
        match = re.fullmatch(rf"\s*([1-9]\d*)([{kinds}])([1-9]\d*)\s*", item)
        if match is None:
            forms = " or ".join(f"R{k}N" for k in kinds)
            raise ConfigurationError(f"{name} = {text!r}: {item!r} is not of the form {forms}")
        items.append((int(match[1]), match[2], int(match[3])))
    return items
