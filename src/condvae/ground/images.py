"""The one place that knows value ranges and layouts of images.

Pixels are stored and returned as uint8, NCHW in the library and NHWC in files. Two float versions
exist, both defined by the pretrained model's `DataContract`: the *encoder input* ``(x - mean) / std``
and the *likelihood target* ``(x - 127.5) / 127.5`` in [-1, 1], on a coarser grid when the likelihood
has fewer than 8 bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from condvae.ground.configuration import ConfigurationError, check_choice, check_positive

__all__ = [
    "DataContract",
    "check_scale",
    "composite",
    "encoder_input",
    "likelihood_target",
    "odd_values",
    "pixels_from_unit_range",
    "to_nchw",
]

_DARK = 32  # grey levels: pictures that stay below it are hardly on the scale to 255


@dataclass(frozen=True)
class DataContract:
    """What a pretrained model expects of its images.

    Attributes:
        channels: Colour channels, 1 or 3.
        size: Height and width in pixels.
        mean: Subtracted from pixels on the 0-255 scale before the encoder.
        std: Divides afterwards, same scale.
        bits: Bits per channel of the likelihood, 8 or 5 (Child 2020 uses 5 for FFHQ-256).
    """

    channels: int
    size: int
    mean: float
    std: float
    bits: int = 8

    def __post_init__(self) -> None:
        check_choice("channels", self.channels, (1, 3))
        check_choice("bits", self.bits, (5, 8))
        check_positive("size", self.size)
        check_positive("std", self.std)

    @property
    def dimensions(self) -> int:
        """Number of values in one image, C * H * W."""
        return self.channels * self.size * self.size

    def check(self, pixels: Tensor) -> None:
        """Raise `ConfigurationError` unless `pixels` is uint8 (B,C,H,W) of this contract."""
        expected = (self.channels, self.size, self.size)
        if pixels.dtype != torch.uint8:
            raise ConfigurationError(
                f"images of type {pixels.dtype}: expected torch.uint8, grey levels from 0 to 255"
            )
        if pixels.ndim != 4 or tuple(pixels.shape[1:]) != expected:
            raise ConfigurationError(
                f"images of shape {tuple(pixels.shape)}: the model expects "
                f"(B, {self.channels}, {self.size}, {self.size})"
            )


def check_scale(highest: float, what: str) -> None:
    """Refuse pictures none of whose values is above 1: they are on the scale from 0 to 1.

    Args:
        highest: Largest value of all pictures that belong together, or of the one there is.
        what: Names them in the message.

    Raises:
        ConfigurationError: The largest value is 1; pictures that are black everywhere may be.
    """
    if highest == 1:
        raise ConfigurationError(
            f"{what}: no value above 1, expected grey levels from 0 to 255: multiply by 255 before "
            "turning them into integers"
        )


def odd_values(pixels: NDArray[np.uint8], what: str) -> list[str]:
    """What is suspicious about pictures that belong together, for warnings; [] for nothing.

    Args:
        pixels: (N,...,C), N >= 1.
        what: Names them.
    """
    found = []
    if len(pixels) > 1 and (pixels == pixels[:1]).all():
        found.append(f"{what}: all {len(pixels)} pictures are equal")
    channels = pixels.reshape(-1, pixels.shape[-1])
    constant = [c for c in range(channels.shape[1]) if (channels[:, c] == channels[0, c]).all()]
    if constant:
        which = "every channel" if len(constant) == channels.shape[1] else f"channel {constant[0]}"
        found.append(f"{what}: {which} has one value everywhere, {channels[0, constant[0]]}")
    elif pixels.max() < _DARK:
        found.append(f"{what}: no value above {pixels.max()}; expected grey levels from 0 to 255")
    return found


def to_nchw(pixels: Tensor) -> Tensor:
    """(N,H,W,C) -> contiguous (N,C,H,W)."""
    return pixels.permute(0, 3, 1, 2).contiguous()


def encoder_input(
    pixels: Tensor, contract: DataContract, dtype: torch.dtype = torch.float32
) -> Tensor:
    """uint8 (B,C,H,W) -> the network's input ``(x - mean) / std``."""
    return (pixels.to(dtype) - contract.mean) / contract.std


def likelihood_target(
    pixels: Tensor, contract: DataContract, dtype: torch.dtype = torch.float32
) -> Tensor:
    """uint8 (B,C,H,W) -> the likelihood's target in [-1, 1], snapped to the contract's grid."""
    levels = float(1 << (8 - contract.bits))
    return (torch.floor(pixels.to(dtype) / levels) * levels - 127.5) / 127.5


def pixels_from_unit_range(x: Tensor) -> Tensor:
    """Floats in [-1, 1] -> uint8, rounded to the nearest level (never truncated) and clipped."""
    return torch.round((x + 1.0) * 127.5).clamp_(0, 255).to(torch.uint8)


def composite(completion: Tensor, observed: Tensor, mask: Tensor) -> Tensor:
    """Paste observed pixels into completions.

    Args:
        completion: uint8 (..., C, H, W).
        observed: uint8, broadcastable to `completion`.
        mask: bool or 0/1, broadcastable, 1 = observed.

    Returns:
        uint8 like `completion`; equal to `observed` wherever `mask` is 1.
    """
    return torch.where(mask.bool(), observed, completion)
