"""Edges: a drawing of the outlines is seen, detected in the image or paired with it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from condvae.ground.configuration import ConfigurationError, check_choice
from condvae.ground.images import DataContract
from condvae.tasks.subject import Subject
from condvae.tasks.task import Task, normalise

__all__ = ["Edges", "detect_edges"]

STYLES = ("binary", "soft")
# Brightness as in `condvae.tasks.colourisation`, in thousandths.
_WEIGHTS = (299, 587, 114)
# Steps to the two neighbours across an edge, by direction of the gradient in steps of 45 degrees.
_ACROSS = ((0, 1), (1, 1), (1, 0), (1, -1))


@dataclass(frozen=True)
class Edges(Task):
    """y = a drawing, normalised like an image; equal colours where it is a detected one.

    Attributes:
        style: ``binary`` draws lines one or two pixels wide where the gradient is largest across
            itself, ``soft`` the size of the gradient everywhere.
        threshold: Least size of the gradient in a binary drawing, grey levels, where a sharp step
            from black to white has 255.
        paired: Take the second picture of each image, which the data set must have, and detect
            nothing.
    """

    style: str = "binary"
    threshold: float = 40.0
    paired: bool = False

    name = "edges"

    def __post_init__(self) -> None:
        check_choice("style", self.style, STYLES)
        if not 0 < self.threshold <= 255:
            raise ConfigurationError(f"threshold = {self.threshold!r}: expected in (0, 255]")

    @property
    def needs(self) -> tuple[str, ...]:
        """Second pictures, or pixels to find edges in."""
        return ("paired",) if self.paired else ("pixels",)

    def condition_channels(self, contract: DataContract) -> int:
        """Those of the image."""
        return contract.channels

    def condition(self, subject: Subject, contract: DataContract) -> Tensor:
        """The drawing: float32 (B,C,H,W)."""
        return normalise(self._draw(subject), contract)

    def measure(self, pixels: Tensor, mask: Tensor) -> Tensor | None:
        """The detected drawing, float32 (B,H*W); None for drawings that something else made."""
        del mask
        return None if self.paired else self._detect(pixels).flatten(1)

    def signature(self, subject: Subject, contract: DataContract) -> Tensor:
        """The drawing."""
        del contract
        return self._draw(subject).float().flatten(1)

    def picture(self, subject: Subject, contract: DataContract) -> Tensor:
        """The drawing."""
        return self._draw(subject).round().to(torch.uint8).expand(-1, contract.channels, -1, -1)

    def _draw(self, subject: Subject) -> Tensor:
        """Grey levels, (B,C,H,W) of a second picture and (B,1,H,W) of a detected drawing."""
        if self.paired:
            assert subject.paired is not None
            return subject.paired
        assert subject.pixels is not None
        return self._detect(subject.pixels)

    def _detect(self, pixels: Tensor) -> Tensor:
        return detect_edges(pixels, self.threshold if self.style == "binary" else None)


def detect_edges(pixels: Tensor, threshold: float | None) -> Tensor:
    """Find edges by Sobel's filters; everything is a whole number until the end, so no device rounds.

    The binary drawing keeps pixels whose gradient is no smaller than at both neighbours along its
    direction, rounded to 45 degrees (the thinning of J. Canny, 1986, without smoothing before it
    and without following weak edges).

    Args:
        pixels: uint8 (B,C,H,W); of colours their brightness is taken. The border is repeated.
        threshold: Least size of the gradient in a binary drawing; None for a soft one.

    Returns:
        float32 (B,1,H,W) in grey levels: 255 on edges and 0 elsewhere, or sizes of gradients, at
        most 255.
    """
    levels = pixels.int()
    if levels.shape[1] == 3:
        thousandths = (levels * torch.tensor(_WEIGHTS, device=pixels.device).reshape(3, 1, 1)).sum(
            1
        )
        levels = (thousandths.unsqueeze(1) + 500) // 1000
    grey = pad(levels.float(), (1, 1, 1, 1), mode="replicate")
    sobel = torch.tensor(
        [[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], dtype=torch.float32
    )
    filters = torch.stack([sobel, sobel.T]).unsqueeze(1).to(pixels.device)
    gradient: Tensor = conv2d(grey, filters).round()
    horizontal, vertical = gradient[:, :1], gradient[:, 1:]
    squared: Tensor = horizontal.square() + vertical.square()  # below 2^24: exact in float32
    if threshold is None:
        return (squared.sqrt() / 4).clamp(max=255.0)
    # tan 22.5° = sqrt 2 - 1 parts the directions.
    flat, steep = vertical.abs(), horizontal.abs()
    slope = 2.0**0.5 - 1
    across = torch.where(horizontal * vertical > 0, 1, 3)
    across = torch.where(flat <= slope * steep, 0, across)
    across = torch.where(steep <= slope * flat, 2, across)
    framed = pad(squared, (1, 1, 1, 1))
    height, width = squared.shape[2:]
    kept: Tensor = squared >= (4 * threshold) ** 2
    for index, (down, right) in enumerate(_ACROSS):
        for sign in (1, -1):
            y, x = 1 + sign * down, 1 + sign * right
            neighbour = framed[..., y : y + height, x : x + width]
            kept &= (across != index) | (squared >= neighbour)
    return kept.float() * 255.0
