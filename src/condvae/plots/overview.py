"""One observation and everything a posterior says about it, as one figure for its owner."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from condvae.ground.configuration import ConfigurationError
from condvae.plots.image_grid import ImageGrid, check_same_size, deviation_ceiling, to_rgb_pixels
from condvae.plots.style import INK, UNOBSERVED, figure_style

__all__ = ["hatch_unobserved", "plot_deviation", "plot_overview"]

_COLUMNS = 8
_LINE = 0.165  # inches between lines of the note
_LONGEST_LINE = 138  # characters
_LONGEST_TITLE = 36
_RED = "#b3261e"


class _CaptionedGrid(ImageGrid):
    """A grid in which every cell has a heading of its own."""

    def write_caption(self, row: int, column: int, text: str) -> None:
        """Write a heading above a cell."""
        left, top, width, _ = self.cell(row, column)
        y = top - 0.07 * self._dpi
        self._write(left + width / 2, y, text, ha="center", va="bottom", color=INK, fontsize=8.5)

    def write_warnings(self, after: int, lines: Sequence[str]) -> None:
        """Write red lines below the first `after` lines of the note."""
        for place, line in enumerate(lines, start=after):
            y = (0.38 + _LINE * place) * self._dpi
            self._write(0.15 * self._dpi, y, line, va="top", color=_RED, fontsize=8.5)

    def stamp(self, text: str) -> None:
        """Write a line of white on red in the upper right corner."""
        x = self._total_width - 0.2 * self._dpi
        box = {"facecolor": _RED, "edgecolor": "none", "boxstyle": "round,pad=0.35"}
        style = {"color": "white", "fontsize": 10.5, "fontweight": "bold", "bbox": box}
        self._write(x, 0.14 * self._dpi, text, ha="right", va="top", **style)


def plot_overview(
    title: str,
    observed: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    completions: NDArray[np.uint8],
    mean: NDArray[Any],
    standard_deviation: NDArray[Any],
    *,
    quantiles: Mapping[float, NDArray[np.uint8]],
    modes: Sequence[tuple[int, float]],
    note: Sequence[str] = (),
    warnings: Sequence[str] = (),
    stamp: str | None = None,
) -> Figure:
    """Draw what was seen, the first seven completions, statistics of all, and the modes.

    Args:
        title: Heading.
        observed: uint8 (H,W,C); values in the hole are not shown.
        mask: bool (H,W), True = observed.
        completions: uint8 (S,H,W,C).
        mean: (H,W,C) in grey levels.
        standard_deviation: (H,W,C) in grey levels.
        quantiles: Level -> uint8 (H,W,C); the lowest and the highest are drawn.
        modes: Number of the completion and share of each mode, 1 to 4.
        note: Lines below the title; long ones are broken.
        warnings: Lines in red below the note.
        stamp: A warning in the corner; None for none.

    Raises:
        ConfigurationError: Images of different sizes, or no or too many modes.
    """
    if not 1 <= len(modes) <= 4:
        raise ConfigurationError(f"{len(modes)} modes: expected 1 to 4")
    size = check_same_size([observed.shape, *(image.shape for image in completions), mean.shape])
    levels = sorted(quantiles)
    levels = levels if len(levels) < 2 else [levels[0], levels[-1]]
    lines, red = (
        [part for line in given for part in textwrap.wrap(line, _LONGEST_LINE)]
        for given in (note, warnings)
    )
    top = 0.75 + _LINE * (len(lines) + len(red))
    with figure_style():
        columns = [0.15, 0.14, *[0.07] * (_COLUMNS - 2)]
        grid = _CaptionedGrid(size, [top, 0.48], columns, bottom=0.55, right=0.15)
        # A long name must not run into the stamp.
        half = _LONGEST_TITLE // 2
        short = title if len(title) <= _LONGEST_TITLE else f"{title[:half]}…{title[1 - half :]}"
        grid.label_figure(short, "\n".join(lines))
        grid.write_warnings(len(lines), red)
        if stamp is not None:
            grid.stamp(stamp)
        grid.draw_observation(0, 0, observed, mask)
        grid.write_caption(0, 0, "Observed")
        for k, completion in enumerate(completions[: _COLUMNS - 1]):
            grid.draw_image(0, 1 + k, completion)
            grid.write_caption(0, 1 + k, f"Completion {k}")
        grid.draw_image(1, 0, mean)
        grid.write_caption(1, 0, "Mean")
        ceiling = deviation_ceiling([standard_deviation])
        grid.draw_deviation(1, 1, standard_deviation, ceiling)
        grid.draw_colourbar(1, ceiling)
        grid.write_caption(1, 1, "Standard\ndeviation")
        for column, level in enumerate(levels, start=2):
            grid.draw_image(1, column, quantiles[level])
            grid.write_caption(1, column, f"{100 * level:g} %\nquantile")
        for place, (k, share) in enumerate(modes):
            column = _COLUMNS - 4 + place
            grid.draw_image(1, column, completions[k])
            name = f"Mode {place + 1}: {100 * share:.0f} %" if len(modes) > 1 else "Most central"
            grid.write_caption(1, column, f"{name}\ncompletion {k}")
    return grid.figure


def plot_deviation(standard_deviation: NDArray[Any]) -> Figure:
    """Draw a map of standard deviations (H,W,C), grey levels, with its scale."""
    size = check_same_size([standard_deviation.shape])
    with figure_style():
        grid = _CaptionedGrid(size, [0.45], [0.3], bottom=0.55, right=0.3)
        ceiling = deviation_ceiling([standard_deviation])
        grid.draw_deviation(0, 0, standard_deviation, ceiling)
        grid.draw_colourbar(0, ceiling)
        grid.write_caption(0, 0, "Standard\ndeviation")
    return grid.figure


def hatch_unobserved(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Show an image (H,W,C) with teal stripes in the hole, at its own size: uint8 (H,W,3)."""
    height, width = mask.shape
    stripe = max(1, min(height, width) // 32)
    diagonal = np.add.outer(np.arange(height), np.arange(width)) // stripe % 2
    colours = np.rint(np.array([to_rgb(colour) for colour in UNOBSERVED]) * 255)
    return np.where(mask[..., None], to_rgb_pixels(image), colours.astype(np.uint8)[diagonal])
