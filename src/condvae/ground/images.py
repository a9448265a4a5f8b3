"""The one place that knows value ranges and layouts of images.

Pixels are stored and returned as uint8, NCHW in the library and NHWC in files. Two float versions
exist, both defined by the pretrained model's `DataContract`: the *encoder input* ``(x - mean) / std``
and the *likelihood target* ``(x - 127.5) / 127.5`` in [-1, 1], on a coarser grid when the likelihood
has fewer than 8 bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from condvae.ground.configuration import ConfigurationError, check_choice, check_positive

__all__ = [
    "DataContract",
    "composite",
    "encoder_input",
    "likelihood_target",
    "pixels_from_unit_range",
    "to_nchw",
]


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
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or tuple(pixels.shape[1:]) != expected:
            raise ConfigurationError(
                f"images of type {pixels.dtype} and shape {tuple(pixels.shape)}: the model expects "
                f"torch.uint8 and (B, {self.channels}, {self.size}, {self.size})"
            )


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
