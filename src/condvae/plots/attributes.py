"""Images made of attributes: samples, sweeps, edits, ways between conditions, and rungs of a ladder."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from condvae.ground.configuration import ConfigurationError
from condvae.plots.image_grid import ImageGrid, check_same_size
from condvae.plots.labels import is_finite, metric_label
from condvae.plots.style import MUTED, SamplerStyle, figure_style, style_samplers, write_heading
from condvae.scores.definitions import MetricDefinition

__all__ = [
    "plot_attribute_samples",
    "plot_attribute_sweep",
    "plot_condition_paths",
    "plot_edits",
    "plot_ladder",
]

Images = NDArray[np.uint8]

SAME_ATTRIBUTES = (
    "Every image of a row was asked for the same attributes; what was not asked is left free."
)
_LABEL, _HEADING = 20, 13  # characters that fit beside a row and above a column
_LINE = 0.165  # inches
_MOST_LINES = 6
_SIDE, _NOTE = 1.8, 5.6  # inches: words beside a row; the longest note


def plot_attribute_samples(
    rows: Mapping[str, Images],
    *,
    real: Images | None = None,
    title: str = "Samples for given attributes",
    note: str = SAME_ATTRIBUTES,
) -> Figure:
    """Draw a row of samples for each condition.

    Args:
        rows: Words for a condition (``class = 3, slant = right``) -> uint8 (K,H,W,C).
        real: uint8 (N,H,W,C), for each of the N rows a real image with its attributes; they are the
            first column. None = none.
        title: Heading.
        note: Below the heading, what the images of a row have in common.

    Raises:
        ConfigurationError: No rows, images of different shapes, or another number of real ones.
    """
    images = list(rows.values())
    if real is None:
        return _draw_rows(list(rows), images, [], title, note)
    _check(real, 4, 0, list(rows), "rows")
    check_same_size([real.shape[1:], *(row.shape[1:] for row in images)])
    beside = [np.concatenate([one[None], row]) for one, row in zip(real, images, strict=True)]
    return _draw_rows(list(rows), beside, ["Real", "Sampled"], title, note, lead=1)


def plot_attribute_sweep(images: Images, name: str, values: Sequence[str]) -> Figure:
    """Draw what changes when one attribute does, noise and the other attributes being kept.

    Args:
        images: uint8 (S,V,H,W,C) as of `condvae.cvae.generation.sweep`, colours last; a row per noise.
        name: The attribute.
        values: Its V values.

    Raises:
        ConfigurationError: Another shape or number of values, or no images.
    """
    _check(images, 5, 1, values, "values")
    title = f"From value to value of {name}"
    note = (
        "Along a row only this attribute and what follows from it change; noise and all else stay."
    )
    labels = [f"noise {row + 1}" for row in range(len(images))]
    return _draw_rows(labels, list(images), [f"{name} = {value}" for value in values], title, note)


def plot_edits(
    pictures: Images, edited: Images, changes: Sequence[str], names: Sequence[str]
) -> Figure:
    """Draw given pictures and, beside each, what other attributes make of it.

    Args:
        pictures: uint8 (N,H,W,C), before.
        edited: uint8 (E,N,H,W,C) of `condvae.cvae.generation.edit`, colours last.
        changes: Words for each of the E changes (``slant = left``). Where the first is "unchanged", it
            shows what comes of encoding and decoding alone.
        names: N names of the pictures.

    Raises:
        ConfigurationError: Shapes or numbers that do not fit, or no pictures.
    """
    _check(pictures, 4, 0, names, "names")
    _check(edited, 5, 0, changes, "changes")
    if edited.shape[1:] != pictures.shape:
        raise ConfigurationError(
            f"edited pictures of shape {edited.shape}: expected (E, "
            f"{', '.join(map(str, pictures.shape))})"
        )
    note = "The picture's own noise under other attributes; first column: the given picture."
    rows = list(np.moveaxis(np.concatenate([pictures[None], edited]), 1, 0))
    return _draw_rows(names, rows, ["Given", *changes], "Edits of given pictures", note, lead=1)


def plot_condition_paths(
    strips: Images, starts: Sequence[str], ends: Sequence[str], *, noise_kept: bool = True
) -> Figure:
    """Draw a strip for each pair of conditions that leads from one to the other.

    Args:
        strips: uint8 (S,B,H,W,C) of `condvae.cvae.generation.interpolate`, colours last.
        starts: Words for the B conditions on the left.
        ends: And on the right.
        noise_kept: Whether the noise stayed; false where `interpolate` was given a `seed_b`.

    Raises:
        ConfigurationError: Another shape or number of conditions, or no strips.
    """
    _check(strips, 5, 1, starts, "starts")
    _check(strips, 5, 1, ends, "ends")
    labels = [f"{start} → {end}" for start, end in zip(starts, ends, strict=True)]
    steps = "Equal steps between the two conditions"
    note = f"{steps}, the noise being kept." if noise_kept else f"{steps} and two draws of noise."
    title = "From one condition to another"
    return _draw_rows(labels, list(np.moveaxis(strips, 1, 0)), [], title, note)


def plot_ladder(
    rows: Sequence[Mapping[str, Any]],
    metrics: Sequence[str],
    *,
    definitions: Mapping[str, MetricDefinition] | None = None,
) -> Figure:
    """Draw every rung's score with its standard error, a panel for each metric.

    Points and not bars from zero: log-densities have no zero to begin at. A value so far away that the
    others could not be told apart stands in words at the edge.

    Args:
        rows: With ``rung``, ``stage`` (how it was trained; one colour each), ``metric``, ``value`` and
            ``standard_error``, over seeds or cases; rungs from the top in the order they come. A value
            that is not finite is left out.
        metrics: Panels, from the left.
        definitions: Title and direction by metric, where those of `metric_label` will not do.

    Raises:
        ConfigurationError: A metric without a finite value.
    """
    rungs = list(dict.fromkeys(str(row["rung"]) for row in rows))
    stages = list(dict.fromkeys(str(row["stage"]) for row in rows))
    styles = style_samplers(stages)
    height = 0.34 * max(len(rungs), 3) + 1.7
    with figure_style():
        figure = Figure(figsize=(2.9 * max(len(metrics), 2) + 1.6, height), dpi=120)
        figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.08)
        grid = figure.subplots(1, max(len(metrics), 1), sharey=True, squeeze=False)[0]
        for axes, metric in zip(grid, metrics, strict=True):
            own = [row for row in rows if row["metric"] == metric and is_finite(row["value"])]
            if not own:
                raise ConfigurationError(f"metric {metric!r}: no rung has a finite value to draw")
            limits = _readable_range([float(row["value"]) for row in own])
            for number, stage in enumerate(stages):
                # Points of one rung must not hide each other.
                shift = 0.18 * (number - (len(stages) - 1) / 2)
                _draw_stage(axes, own, stage, rungs, shift, styles[stage], limits)
            axes.set_xlim(limits)
            words = (definitions or {}).get(metric) or metric_label(metric)
            axes.set_title(_plain(textwrap.fill(words.title, 34)), fontsize=9)
            if words.better:
                axes.set_xlabel(words.direction, fontsize=8)
        grid[0].set_yticks(range(len(rungs)), [_plain(textwrap.fill(r, 26)) for r in rungs])
        grid[0].set_ylim(len(rungs) - 0.5, -0.5)
        handles, names = grid[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside right upper", fontsize=8)
        write_heading(figure, "Rungs of the ladder", "Value ± one standard error.")
    return figure


def _draw_stage(
    axes: Axes,
    rows: Sequence[Mapping[str, Any]],
    stage: str,
    rungs: Sequence[str],
    shift: float,
    style: SamplerStyle,
    limits: tuple[float, float] | None,
) -> None:
    own = [row for row in rows if row["stage"] == stage]
    if limits is not None:
        for row in own:
            value, place = float(row["value"]), rungs.index(str(row["rung"])) + shift
            if not limits[0] <= value <= limits[1]:
                below = value < limits[0]
                axes.text(
                    *(
                        0.02 if below else 0.98,
                        place,
                        f"← {value:.4g}" if below else f"{value:.4g} →",
                    ),
                    transform=axes.get_yaxis_transform(),
                    ha="left" if below else "right",
                    va="center",
                    fontsize=8,
                    color=style.colour,
                )
        own = [row for row in own if limits[0] <= float(row["value"]) <= limits[1]]
    errors = [row.get("standard_error") for row in own]
    axes.errorbar(
        [float(row["value"]) for row in own],
        [rungs.index(str(row["rung"])) + shift for row in own],
        xerr=[float(error) if is_finite(error) else 0.0 for error in errors],
        linestyle="none",
        marker=style.marker,
        markersize=4,
        elinewidth=1.0,
        ecolor=MUTED,
        color=style.colour,
        label=_plain(stage.replace("_", " ")),
    )


def _readable_range(values: Sequence[float]) -> tuple[float, float] | None:
    """Limits without what is far from the rest, if the rest would share a tenth of the axis."""
    ordered = np.sort(values)
    low, high = np.quantile(ordered, [0.25, 0.75])
    fence = 3.0 * (high - low)
    near = ordered[(ordered >= low - fence) & (ordered <= high + fence)]
    span = near[-1] - near[0]
    if not 0.0 < span < 0.1 * (ordered[-1] - ordered[0]):
        return None
    return float(near[0] - 0.15 * span), float(near[-1] + 0.15 * span)


def _draw_rows(
    labels: Sequence[str],
    rows: Sequence[Images],
    headings: Sequence[str],
    title: str,
    note: str,
    lead: int = 0,
) -> Figure:
    """Rows of images (K,H,W,C) with words at the left; the first `lead` columns stand apart."""
    size = check_same_size([row.shape[1:] for row in rows])
    shown = max(len(row) for row in rows)
    wrapped = [textwrap.wrap(heading, _HEADING) for heading in headings]
    top = 0.72 + _LINE * max((len(lines) for lines in wrapped), default=0)
    words = [_label_lines(label) for label in labels]
    # Of wide images a row is lower than its words may be.
    gap = max(0.05, _LINE * (max(map(len, words)) + 0.5) - min(size) / max(size))
    columns = [_SIDE, *(0.14 if 0 < lead == place else 0.05 for place in range(1, shown))]
    right = max(0.15, _NOTE - _SIDE - shown * size[1] / max(size))
    with figure_style():
        gaps = [top + gap / 2, *[gap] * (len(rows) - 1)]
        grid = ImageGrid(size, gaps, columns, bottom=0.15, right=right)
        for column, lines in enumerate(wrapped):
            grid.label_column(column, _plain("\n".join(lines)))
        for number, (lines, row) in enumerate(zip(words, rows, strict=True)):
            grid.label_row(number, 0, [_plain(line) for line in lines])
            for column, image in enumerate(row):
                grid.draw_image(number, column, image)
        grid.label_figure(_plain(title), note)
    return grid.figure


def _label_lines(label: str) -> list[str]:
    """One attribute on a line, as far as it fits; what is beyond an image's height is cut."""
    parts = label.replace(" → ", ", → ").split(", ")
    lines = [line for part in parts for line in textwrap.wrap(part, _LABEL)] or [""]
    return lines if len(lines) <= _MOST_LINES else [*lines[: _MOST_LINES - 1], "…"]


def _check(images: Images, axes: int, axis: int, words: Sequence[str], what: str) -> None:
    """Refuse images without as many along an axis as there are words for them."""
    if images.ndim != axes or images.shape[axis] != len(words) or 0 in images.shape:
        raise ConfigurationError(
            f"images of shape {images.shape} with {len(words)} {what}: expected {axes} axes, as many "
            f"along axis {axis}, and none of them empty"
        )


def _plain(text: str) -> str:
    """Names of attributes are words: two dollar signs do not make a formula."""
    return text.replace("$", r"\$")
