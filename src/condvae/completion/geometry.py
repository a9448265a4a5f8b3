"""From a picture of any size to the model's canvas, with its mask and without a trace of the hole.

`fit_to_canvas` resamples with kernels wider than a pixel of the canvas, so that values from inside the
hole would reach observed pixels beside it. Therefore the hole is filled from what is observed before
the picture is resampled, and a pixel of the canvas counts as observed only when every source pixel
that it covers is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from condvae.masks.kinds import Mask

__all__ = ["Placement", "fill_hole"]


@dataclass(frozen=True)
class Placement:
    """Where the canvas lies on a picture: short side to `size`, centre cut out, as `fit_to_canvas`.

    Attributes:
        height: Of the upright picture, pixels.
        width: Of the upright picture, pixels.
        size: Side of the canvas, pixels.
    """

    height: int
    width: int
    size: int

    @property
    def enlarges(self) -> bool:
        """Whether the picture is smaller than the canvas."""
        return min(self.height, self.width) < self.size

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom edge of the part the model sees, in pixels of the picture."""
        (top, bottom), (left, right) = (
            (start * side / resized, (start + self.size) * side / resized)
            for side, resized, start in (self._rows, self._columns)
        )
        return left, top, right, bottom

    @property
    def reach(self) -> tuple[slice, slice]:
        """Rows and columns of the picture that resampling looks at."""
        left, top, right, bottom = self.box
        # Lanczos, the wider kernel, reaches 3 pixels of the canvas; one more for rounding.
        margin = 4 * max(1.0, min(self.height, self.width) / self.size)
        rows, columns = (
            slice(max(0, math.floor(low - margin)), math.ceil(high + margin))
            for low, high in ((top, bottom), (left, right))
        )
        return rows, columns

    @property
    def _rows(self) -> tuple[int, int, int]:
        return self.height, *self._resized(self.height)

    @property
    def _columns(self) -> tuple[int, int, int]:
        return self.width, *self._resized(self.width)

    def _resized(self, side: int) -> tuple[int, int]:
        """Length of a side after resizing and where the canvas starts on it."""
        resized = round(side * self.size / min(self.height, self.width))
        return resized, (resized - self.size) // 2

    def shrink_mask(self, mask: Mask) -> Mask:
        """Mask of the picture to mask of the canvas.

        Args:
            mask: bool (height,width), True = observed.

        Returns:
            bool (size,size), True where no source pixel is unobserved.
        """
        # In place: a photo has tens of millions of pixels.
        holes = np.zeros((self.height + 1, self.width + 1), dtype=np.int32)
        holes[1:, 1:] = ~mask
        for axis in (0, 1):
            np.cumsum(holes, axis=axis, out=holes)
        (top, bottom), (left, right) = (
            self._covered(*axis) for axis in (self._rows, self._columns)
        )
        inside = holes[np.ix_(bottom, right)] - holes[np.ix_(top, right)]
        inside += holes[np.ix_(top, left)] - holes[np.ix_(bottom, left)]
        return np.asarray(inside == 0)

    def enlarge_mask(self, mask: Mask) -> Mask:
        """Mask of the canvas to mask of the picture.

        Args:
            mask: bool (size,size), True = observed.

        Returns:
            bool (height,width), False where the centre of a pixel lies in the hole.
        """
        rows, columns = (
            (2 * np.arange(side) + 1) * resized // (2 * side) - start
            for side, resized, start in (self._rows, self._columns)
        )
        framed = np.pad(mask, 1, constant_values=True)
        rows, columns = (np.clip(places, -1, self.size) + 1 for places in (rows, columns))
        return framed[np.ix_(rows, columns)]

    def _covered(
        self, side: int, resized: int, start: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First and one past the last source pixel of every canvas pixel along one side."""
        places = np.arange(start, start + self.size)
        return places * side // resized, -(-(places + 1) * side // resized)


def fill_hole(pixels: NDArray[np.uint8], mask: Mask) -> NDArray[np.uint8]:
    """Fill unobserved pixels with means of observed ones nearby.

    The mean is that of the smallest aligned block of 2 x 2, 4 x 4, ... pixels with anything observed.

    Args:
        pixels: uint8 (H,W,C); unobserved values are not looked at.
        mask: bool (H,W), True = observed.

    Returns:
        uint8 (H,W,C), equal to `pixels` where observed; black when nothing is.
    """
    if mask.all():
        return pixels
    seen = mask[..., None]
    # Floating point from the first halving on: a photo takes four times as much in it.
    levels = [(_sum_blocks(np.where(seen, pixels, np.uint8(0))), _sum_blocks(seen))]
    while levels[-1][1].size > 1:
        sums, counts = (_sum_blocks(values) for values in levels[-1])
        levels.append((sums, counts))
    filled = np.zeros_like(levels[-1][0])
    for sums, counts in reversed(levels):
        height, width = counts.shape[:2]
        coarse = filled.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
        filled = np.where(counts > 0, sums / np.maximum(counts, 1), coarse)
    fine = np.rint(filled).astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    return np.where(seen, pixels, fine[: mask.shape[0], : mask.shape[1]])


def _sum_blocks(values: NDArray[Any]) -> NDArray[np.float32]:
    """(H,W,C) -> sums over 2 x 2 blocks; the last row or column may stand alone."""
    height, width, channels = values.shape
    sums = np.zeros(((height + 1) // 2, (width + 1) // 2, channels), dtype=np.float32)
    for row in (0, 1):
        for column in (0, 1):
            part = values[row::2, column::2]
            sums[: part.shape[0], : part.shape[1]] += part
    return sums
