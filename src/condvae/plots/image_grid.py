"""Images on a grid whose cells are whole screen pixels, so that every image pixel stays crisp."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from condvae.ground.configuration import ConfigurationError
from condvae.plots.style import FRAME, INK, MUTED, UNOBSERVED

__all__ = [
    "DEVIATION_COLOURS",
    "ImageGrid",
    "check_same_size",
    "deviation_ceiling",
    "deviation_map",
    "to_rgb_pixels",
]

DEVIATION_COLOURS = "magma"
_SMALLEST_CELL = 112  # screen pixels of a cell's longer side
_LARGEST_CELL = 256
_FRAME_COLOUR = np.rint(np.array(to_rgb(FRAME)) * 255).astype(np.uint8)
_STRIPE = 5  # width of the stripes over unobserved pixels, in screen pixels


def to_rgb_pixels(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Grey or colour (H,W,C) on the 0-255 scale -> uint8 (H,W,3), rounded and clipped."""
    pixels = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def deviation_map(standard_deviation: NDArray[Any]) -> NDArray[np.float64]:
    """Standard deviations (H,W,C) -> (H,W), the root mean square over channels, grey levels."""
    squares = np.square(np.asarray(standard_deviation, dtype=np.float64))
    return np.asarray(np.sqrt(squares.mean(axis=2)))


def deviation_ceiling(standard_deviations: Sequence[NDArray[Any]]) -> float:
    """Upper end of a colour scale shared by several (H,W,C) maps: a round number of grey levels."""
    largest = max(float(deviation_map(values).max()) for values in standard_deviations)
    step = 20.0 if largest > 20.0 else 2.0
    return max(step, step * math.ceil(largest / step))


class ImageGrid:
    """A figure with cells for images of one size; rows and columns count from the top left.

    The longer side of a cell is one inch, and the resolution is a whole multiple of the image size:
    text keeps its proportion to the images whether they have 16 or 256 pixels. Larger images are
    resampled to 256 pixels.

    Args:
        image_size: Height and width of the images, pixels.
        row_gaps: Inches of space above each row; its length is the number of rows.
        column_gaps: Inches of space left of each column.
        bottom: Inches below the last row.
        right: Inches right of the last column.
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        row_gaps: Sequence[float],
        column_gaps: Sequence[float],
        *,
        bottom: float,
        right: float,
    ) -> None:
        side = max(image_size)
        self._scale = max(1, math.ceil(_SMALLEST_CELL / side))
        self._dpi = min(self._scale * side, _LARGEST_CELL)
        self._height, self._width = (round(self._dpi * size / side) for size in image_size)
        self._tops = self._starts(row_gaps, self._height)
        self._lefts = self._starts(column_gaps, self._width)
        self._total_height = self._tops[-1] + self._height + round(bottom * self._dpi)
        self._total_width = self._lefts[-1] + self._width + round(right * self._dpi)
        # The hundredth keeps the canvas from losing a pixel to rounding.
        size = ((self._total_width + 0.01) / self._dpi, (self._total_height + 0.01) / self._dpi)
        self.figure = Figure(figsize=size, dpi=self._dpi)

    def _starts(self, gaps: Sequence[float], cell: int) -> list[int]:
        starts, position = [], 0
        for gap in gaps:
            position += round(gap * self._dpi)
            starts.append(position)
            position += cell
        return starts

    def cell(self, row: int, column: int) -> tuple[int, int, int, int]:
        """Return left, top, width and height of a cell in screen pixels from the top left."""
        return self._lefts[column], self._tops[row], self._width, self._height

    def draw_image(self, row: int, column: int, image: NDArray[Any]) -> None:
        """Draw an image (H,W,C) on the 0-255 scale."""
        self._show(row, column, to_rgb_pixels(image))

    def draw_observation(
        self, row: int, column: int, image: NDArray[Any], mask: NDArray[np.bool_]
    ) -> None:
        """Draw an image (H,W,C) with teal stripes wherever `mask` (H,W) is false."""
        pixels, seen = (
            np.repeat(np.repeat(values, self._scale, axis=0), self._scale, axis=1)
            for values in (to_rgb_pixels(image), mask)
        )
        diagonal = np.add.outer(np.arange(seen.shape[0]), np.arange(seen.shape[1]))
        colours = np.rint(np.array([to_rgb(colour) for colour in UNOBSERVED]) * 255)
        stripes = colours.astype(np.uint8)[diagonal // _STRIPE % 2]
        self._show(row, column, np.where(seen[..., None], pixels, stripes))

    def draw_deviation(
        self, row: int, column: int, standard_deviation: NDArray[Any], ceiling: float
    ) -> None:
        """Draw standard deviations (H,W,C) as a map of colours from 0 to `ceiling` grey levels."""
        colours = ScalarMappable(Normalize(0.0, ceiling), DEVIATION_COLOURS)
        rgba = colours.to_rgba(deviation_map(standard_deviation), bytes=True)
        self._show(row, column, np.asarray(rgba, dtype=np.uint8)[..., :3])

    def draw_colourbar(self, column: int, ceiling: float) -> None:
        """Draw the scale of the maps of standard deviations below a column."""
        top = self._tops[-1] + self._height + round(0.12 * self._dpi)
        axes = self.figure.add_axes(self._place(self._lefts[column], top, round(0.1 * self._dpi)))
        colours = ScalarMappable(Normalize(0.0, ceiling), DEVIATION_COLOURS)
        ticks = [0.0, ceiling / 2, ceiling]
        bar = self.figure.colorbar(colours, cax=axes, orientation="horizontal", ticks=ticks)
        bar.set_label("grey levels", fontsize=8, labelpad=1)
        bar.ax.grid(visible=False)
        bar.ax.tick_params(labelsize=8, pad=1, length=2)
        # Labels at the ends stay inside the column.
        labels = bar.ax.get_xticklabels()
        labels[0].set_horizontalalignment("left")
        labels[-1].set_horizontalalignment("right")

    def label_column(self, column: int, text: str) -> None:
        """Write a heading above a column."""
        x = self._lefts[column] + self._width / 2
        self._write(x, self._tops[0] - 0.07 * self._dpi, text, ha="center", va="bottom", color=INK)

    def label_row(self, row: int, column: int, lines: Sequence[str], colour: str = INK) -> None:
        """Write lines left of a cell, right-aligned; the first is bold."""
        x = self._lefts[column] - 0.1 * self._dpi
        middle = self._tops[row] + self._height / 2
        step = 0.165 * self._dpi
        top = middle - step * (len(lines) - 1) / 2
        for index, line in enumerate(lines):
            style = {"color": colour, "fontweight": "bold"} if index == 0 else {"color": MUTED}
            self._write(x, top + index * step, line, ha="right", va="center", **style)

    def label_figure(self, title: str, note: str) -> None:
        """Write a title and a note of a few short lines above everything, from the left edge."""
        x = 0.15 * self._dpi
        self._write(x, 0.12 * self._dpi, title, va="top", fontsize=12, fontweight="bold")
        style = {"color": MUTED, "fontsize": 8.5, "linespacing": 1.35}
        self._write(x, 0.38 * self._dpi, note, va="top", **style)

    def _write(self, x: float, y: float, text: str, **style: Any) -> None:
        self.figure.text(x / self._total_width, 1 - y / self._total_height, text, **style)

    def _place(self, left: int, top: int, height: int) -> tuple[float, float, float, float]:
        """Figure fractions of a box as wide as a cell; arguments in screen pixels."""
        total = self._total_height
        return (
            left / self._total_width,
            (total - top - height) / total,
            self._width / self._total_width,
            height / total,
        )

    def _show(self, row: int, column: int, pixels: NDArray[np.uint8]) -> None:
        left, top, width, height = self.cell(row, column)
        shrunk = max(pixels.shape[:2]) > _LARGEST_CELL
        resampling = Image.Resampling.LANCZOS if shrunk else Image.Resampling.NEAREST
        cell = np.asarray(Image.fromarray(pixels).resize((width, height), resampling))
        # A frame one pixel wide tells a white image from the page.
        framed = np.full((height + 2, width + 2, 3), _FRAME_COLOUR, np.uint8)
        framed[1:-1, 1:-1] = cell
        # Not an Axes for each image: hundreds of them would take most of the time of a figure.
        self.figure.figimage(framed, left - 1, self._total_height - top - height - 1)


def check_same_size(shapes: Sequence[tuple[int, ...]]) -> tuple[int, int]:
    """Return height and width shared by all image shapes (H,W,C).

    Raises:
        ConfigurationError: No images, or images of different sizes.
    """
    if not shapes:
        raise ConfigurationError("cases = []: expected at least one case to draw")
    for first, other in pairwise(shapes):
        if first != other:
            raise ConfigurationError(
                f"images of shapes {first} and {other}: expected one shape in a figure"
            )
    return shapes[0][0], shapes[0][1]
