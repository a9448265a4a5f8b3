"""Control over completions: what the first latent groups keep, and the way between completions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from condvae.ground.configuration import ConfigurationError
from condvae.plots.image_grid import ImageGrid, check_same_size
from condvae.plots.style import figure_style

__all__ = ["plot_interpolations", "plot_kept_groups"]

_TOP = 1.15  # inches above the first row: title, two lines of note, headings


def plot_kept_groups(
    observation: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    rows: Sequence[tuple[int, NDArray[np.uint8]]],
    groups: int,
) -> Figure:
    """Draw completions of one observation, each row with more of the first latent groups kept.

    Args:
        observation: uint8 (H,W,C); unobserved pixels may hold anything.
        mask: bool (H,W), true = observed.
        rows: Number of kept groups and uint8 (K,H,W,C) of `condvae.posterior.control.vary_details` with
            ``completion=0``.
        groups: L, how many groups there are.

    Raises:
        ConfigurationError: No rows, or images of different shapes.
    """
    numbers = [f"{kept} of {groups}" for kept, _ in rows]
    note = (
        "All images of a row have the latents of its first groups in common, and draw the others "
        "anew.\nThe first column is the same completion in every row. Teal stripes: not observed."
    )
    lines = [[number, "groups kept"] for number in numbers]
    images = [completions for _, completions in rows]
    title = "Same content, other details"
    return _draw_strips([observation], [mask], [0] * len(rows), images, lines, title, note)


def plot_interpolations(
    observations: NDArray[np.uint8],
    masks: NDArray[np.bool_],
    strips: NDArray[np.uint8],
    case_ids: Sequence[str],
) -> Figure:
    """Draw a strip for each observation that leads from one completion to another.

    Args:
        observations: uint8 (B,H,W,C).
        masks: bool (B,H,W), true = observed.
        strips: uint8 (S,B,H,W,C) of `condvae.posterior.control.interpolate`, colours last.
        case_ids: B names.

    Raises:
        ConfigurationError: No strips, or another number of them.
    """
    if strips.ndim != 5 or strips.shape[1] != len(observations) or len(case_ids) != len(masks):
        raise ConfigurationError(
            f"strips of shape {strips.shape} for {len(observations)} observations and "
            f"{len(case_ids)} names: expected (S,B,H,W,C)"
        )
    note = (
        "The ends are two completions; every image between them is a valid one, from noise on the arc "
        "between theirs.\nTeal stripes: not observed."
    )
    places, lines = list(range(len(masks))), [[name] for name in case_ids]
    images, title = list(np.moveaxis(strips, 1, 0)), "From one completion to another"
    return _draw_strips(list(observations), list(masks), places, images, lines, title, note)


def _draw_strips(
    observations: Sequence[NDArray[np.uint8]],
    masks: Sequence[NDArray[np.bool_]],
    places: Sequence[int],
    strips: Sequence[NDArray[np.uint8]],
    lines: Sequence[list[str]],
    title: str,
    note: str,
) -> Figure:
    """Rows of an observation, given by its place, and the images of a strip (K,H,W,C)."""
    size = check_same_size([strip.shape[1:] for strip in strips])
    shown = max(len(strip) for strip in strips)
    with figure_style():
        gaps = [_TOP, *[0.05] * (len(strips) - 1)]
        grid = ImageGrid(size, gaps, [1.2, 0.14, *[0.05] * (shown - 1)], bottom=0.15, right=0.15)
        grid.label_column(0, "Observation")
        for row, (place, strip) in enumerate(zip(places, strips, strict=True)):
            grid.label_row(row, 0, lines[row])
            grid.draw_observation(row, 0, observations[place], masks[place])
            for column, image in enumerate(strip):
                grid.draw_image(row, 1 + column, image)
        grid.label_figure(title, note)
    return grid.figure
