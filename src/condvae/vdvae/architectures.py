"""Architectures by name."""

from __future__ import annotations

from condvae.ground.configuration import ConfigurationError
from condvae.vdvae.architecture import Architecture

__all__ = ["ARCHITECTURES", "architecture_named"]

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
    # Colour photographs, narrow at full resolution, where nearly all the arithmetic is.
    "colour32": Architecture(
        image_size=32,
        channels=3,
        width=96,
        widths="32:48",
        latent_channels=8,
        encoder="32x2,32d2,16x3,16d2,8x3,8d2,4x3,4d4,1x2",
        decoder="1x2,4m1,4x3,8m4,8x5,16m8,16x4,32m16,32x1",
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
    # As published (Child 2020); `condvae.models.presets` has what belongs to them.
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
    # Hyper-parameters released by Hazami et al. 2022 as examples; a checkpoint says its own, see
    # `condvae.models.efficient_vdvae`.
    "efficient_celeba64": Architecture(
        image_size=64,
        channels=3,
        width=512,
        latent_channels=32,
        encoder="64x11,64d2,32x8,32d2,16x6,16d2,8x6,8d2,4x3,4d4,1x2",
        decoder="1x2,4m1,4x3,8m4,8x6,16m8,16r4,16x6,32m16,32r7,32x8,64m32,64r10,64x11",
        latent_std="softplus",
        family="efficient_vdvae",
    ),
    "efficient_imagenet32": Architecture(
        image_size=32,
        channels=3,
        width=512,
        latent_channels=32,
        encoder="32x15,32d2,16x9,16d2,8x8,8d2,4x6,4d4,1x6",
        decoder="1x6,4m1,4x6,8m4,8r10,8x8,16m8,16r15,16x9,32m16,32x15",
        latent_std="softplus",
        family="efficient_vdvae",
    ),
    "efficient_imagenet64": Architecture(
        image_size=64,
        channels=3,
        width=512,
        latent_channels=32,
        encoder="64x4,64d2,32x15,32d2,16x9,16d2,8x8,8d2,4x6,4d4,1x6",
        decoder="1x6,4m1,4x6,8m4,8r10,8x8,16m8,16r15,16x9,32m16,32x15,64m32,64r6,64x4",
        latent_std="softplus",
        family="efficient_vdvae",
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
