"""The architecture of a VDVAE as a frozen value; its layer strings are parsed here and nowhere else.

Grammar, as published (Child 2020): items separated by commas;
``RxN`` = N blocks at resolution R, ``RdK`` = a block at R followed by average pooling by K (encoder),
``RmS`` = the first block at R, which mixes in the hidden state of resolution S, enlarged (decoder).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from condvae.configuration import ConfigurationError, check_positive

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "DecoderBlockSpec",
    "EncoderBlockSpec",
    "architecture_named",
]


@dataclass(frozen=True)
class EncoderBlockSpec:
    """One bottom-up block: where it works and by how much it pools afterwards (None = not)."""

    resolution: int
    down_rate: int | None

    @property
    def resolution_after(self) -> int:
        """Size of the block's output."""
        return self.resolution // (self.down_rate or 1)


@dataclass(frozen=True)
class DecoderBlockSpec:
    """One latent group: where it works and which resolution it mixes in (None = none)."""

    resolution: int
    mixin: int | None


@dataclass(frozen=True)
class Architecture:
    """Hyper-parameters that fix every tensor shape of a VDVAE.

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

    def __post_init__(self) -> None:
        for name in ("image_size", "width", "latent_channels", "bottleneck", "mixtures"):
            check_positive(name, getattr(self, name))
        self._check_encoder()
        self._check_decoder()
        self._check_widths()

    @property
    def encoder_blocks(self) -> tuple[EncoderBlockSpec, ...]:
        """Bottom-up blocks in order."""
        blocks: list[EncoderBlockSpec] = []
        for resolution, kind, number in _items(self.encoder, "xd", "encoder"):
            if kind == "x":
                blocks += [EncoderBlockSpec(resolution, None)] * number
            else:
                blocks.append(EncoderBlockSpec(resolution, number))
        return tuple(blocks)

    @property
    def decoder_blocks(self) -> tuple[DecoderBlockSpec, ...]:
        """Latent groups from the top (1x1) down."""
        blocks: list[DecoderBlockSpec] = []
        for resolution, kind, number in _items(self.decoder, "xm", "decoder"):
            if kind == "x":
                blocks += [DecoderBlockSpec(resolution, None)] * number
            else:
                blocks.append(DecoderBlockSpec(resolution, number))
        return tuple(blocks)

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
        if self.decoder_blocks[-1].resolution != self.image_size:
            raise ConfigurationError(
                f"decoder = {self.decoder!r}: ends at {self.decoder_blocks[-1].resolution}, images "
                f"have size {self.image_size}"
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


ARCHITECTURES: dict[str, Architecture] = {
    # Small models for a processor: the bundled digits and 28- to 32-pixel grey images.
    "digits16": Architecture(
        image_size=16,
        channels=1,
        width=64,
        latent_channels=6,
        encoder="16x1,16d2,8x3,8d2,4x3,4d4,1x2",
        decoder="1x2,4m1,4x3,8m4,8x5,16m8",
        mixtures=5,
    ),
    "grey32": Architecture(
        image_size=32,
        channels=1,
        width=64,
        latent_channels=8,
        encoder="32x1,32d2,16x2,16d2,8x3,8d2,4x3,4d4,1x2",
        decoder="1x2,4m1,4x3,8m4,8x4,16m8,16x3,32m16",
        mixtures=5,
    ),
    # As small as the grammar allows: for tests of the machinery.
    "tiny16": Architecture(
        image_size=16,
        channels=1,
        width=16,
        latent_channels=2,
        encoder="16x1,16d2,8x1,8d2,4x1,4d4,1x1",
        decoder="1x1,4m1,8m4,16m8",
        mixtures=2,
    ),
    # As published (Child 2020); `condvae.vdvae.presets` has what belongs to them.
    "cifar10": Architecture(
        image_size=32,
        channels=3,
        width=384,
        latent_channels=16,
        encoder="32x11,32d2,16x6,16d2,8x6,8d2,4x3,4d4,1x3",
        decoder="1x1,4m1,4x2,8m4,8x5,16m8,16x10,32m16,32x21",
    ),
    "imagenet32": Architecture(
        image_size=32,
        channels=3,
        width=512,
        latent_channels=16,
        encoder="32x15,32d2,16x9,16d2,8x8,8d2,4x6,4d4,1x6",
        decoder="1x2,4m1,4x4,8m4,8x9,16m8,16x19,32m16,32x40",
    ),
    "imagenet64": Architecture(
        image_size=64,
        channels=3,
        width=512,
        latent_channels=16,
        encoder="64x11,64d2,32x20,32d2,16x9,16d2,8x8,8d2,4x7,4d4,1x5",
        decoder="1x2,4m1,4x3,8m4,8x7,16m8,16x15,32m16,32x31,64m32,64x12",
    ),
    "ffhq256": Architecture(
        image_size=256,
        channels=3,
        width=512,
        latent_channels=16,
        encoder="256x3,256d2,128x8,128d2,64x12,64d2,32x17,32d2,16x7,16d2,8x5,8d2,4x5,4d4,1x4",
        decoder="1x2,4m1,4x3,8m4,8x4,16m8,16x9,32m16,32x21,64m32,64x13,128m64,128x7,256m128",
    ),
    "ffhq1024": Architecture(
        image_size=1024,
        channels=3,
        width=16,
        latent_channels=16,
        encoder="1024x1,1024d2,512x3,512d2,256x5,256d2,128x7,128d2,64x10,64d2,32x14,32d2,16x7,"
        "16d2,8x5,8d2,4x5,4d4,1x4",
        decoder="1x2,4m1,4x3,8m4,8x4,16m8,16x9,32m16,32x20,64m32,64x14,128m64,128x7,256m128,"
        "256x2,512m256,1024m512",
        mixtures=2,
        widths="512:32,256:64,128:512,64:512,32:512,16:512,8:512,4:512,1:512",
    ),
}


def architecture_named(name: str) -> Architecture:
    """Return a registered architecture.

    Raises:
        ConfigurationError: The name is not registered; the message lists those that are.
    """
    if name not in ARCHITECTURES:
        raise ConfigurationError(
            f"architecture = {name!r}: expected one of {', '.join(ARCHITECTURES)}"
        )
    return ARCHITECTURES[name]
