"""Curves: how training went, and how a metric depends on the share of the image observed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from condvae.ground.configuration import ConfigurationError
from condvae.plots.labels import (
    BINS,
    POOLED,
    axis_title,
    bin_label,
    direction_words,
    format_value,
    is_finite,
    metric_label,
)
from condvae.plots.style import INK, MUTED, SamplerStyle, figure_style, style_samplers

__all__ = ["label_lines", "plot_metric_by_bin", "plot_training"]

_Points = tuple[NDArray[np.float64], NDArray[np.float64]]
_COLOURS = {"train": "#0072B2", "validation": "#D55E00"}
_SMOOTHED_FROM = 60  # points; shorter curves are drawn as they are
_LABEL_HEIGHT = 0.15  # of the axes, for two lines of text
_HEIGHT_PER_SAMPLER = 0.72  # inches of the figure, so that the labels of many lines fit


def plot_training(history: Sequence[Mapping[str, Any]], *, loss_unit: str | None = None) -> Figure:
    """Draw every logged quantity over the optimiser steps, one panel each.

    ``train/x`` and ``validation/x`` share a panel; ``loss`` counts as ``train/loss``. Values that
    are missing or not finite leave gaps. Long curves get a running mean.

    Args:
        history: Rows with ``step``, optionally ``images_seen``, and any other numbers.
        loss_unit: Unit of the loss, for the axis title.

    Raises:
        ConfigurationError: No rows, a row without ``step``, or nothing to draw.
    """
    panels = _training_panels(history)
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    with figure_style():
        figure = Figure(figsize=(4.6 * columns + 1.0, 2.7 * rows + 0.5), dpi=120)
        figure.set_layout_engine("constrained", h_pad=0.1, w_pad=0.1)
        grid = figure.subplots(rows, columns, squeeze=False).flat
        for axes, (name, curves) in zip(grid, panels.items(), strict=False):
            title = axis_title(name)
            title = f"{title} ({loss_unit})" if name == "loss" and loss_unit else title
            axes.set_title(title)
            axes.set_xlabel(_step_title(history))
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            for part, points in curves.items():
                _draw_curve(axes, part, points)
            if _spans_decades([value for _, values in curves.values() for value in values]):
                axes.set_yscale("log")
            axes.legend(loc="best", fontsize=8)
        for axes in figure.axes[len(panels) :]:
            axes.set_axis_off()
        figure.suptitle("Training", x=0.01, ha="left", fontsize=12, fontweight="bold")
    return figure


def plot_metric_by_bin(
    rows: Sequence[Mapping[str, Any]],
    metric: str,
    *,
    reference: tuple[float, str] | None = None,
    styles: Mapping[str, SamplerStyle] | None = None,
) -> Figure:
    """Draw a metric over the bins of the observed share, one line per sampler.

    Error bars are the ``low`` and ``high`` of a row where it has them, else 1.96 standard errors.
    The text at the end of a line names the sampler and its value over all bins.

    Args:
        rows: Rows of the tidy metrics table: ``metric, bin, sampler, value, standard_error`` and,
            where known, ``n, k, extractor, low, high, level``. Rows of other metrics are left out.
        metric: The metric to draw.
        reference: A value drawn as a dashed line, and its name.
        styles: From `style_samplers`; by default made from the samplers of all rows.

    Raises:
        ConfigurationError: No row has a finite value of this metric in a bin.
    """
    styles = styles or style_samplers([str(row["sampler"]) for row in rows])
    rows = [row for row in rows if row["metric"] == metric]
    drawn = [row for row in rows if row["bin"] != POOLED and is_finite(row["value"])]
    if not drawn:
        raise ConfigurationError(f"metric {metric!r}: no finite value in any bin to draw")
    label = metric_label(metric)
    samplers = list(dict.fromkeys(str(row["sampler"]) for row in drawn))
    with figure_style():
        height = max(4.4, _HEIGHT_PER_SAMPLER * len(samplers))
        figure = Figure(figsize=(7.6, height), dpi=120)
        figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.1)
        axes = figure.add_subplot()
        ends = []
        for position, sampler in enumerate(samplers):
            own = [row for row in drawn if row["sampler"] == sampler]
            shift = 0.07 * (position - (len(samplers) - 1) / 2)  # bars must not hide each other
            ends.append(_draw_sampler(axes, own, styles[sampler], shift))
        if reference is not None:
            _draw_reference(axes, *reference)
        scale = _finish_axes(axes, [float(row["value"]) for row in drawn], label.unit)
        style: dict[str, Any] = {
            "fontsize": 8.5,
            "fontweight": "normal",
            "color": MUTED,
            "linespacing": 1.35,
        }
        axes.set_title(_subtitle(drawn, direction_words(metric) + scale), **style)
        figure.suptitle(label.title, x=0.01, ha="left", fontsize=12, fontweight="bold")
        texts = [_legend_text(rows, sampler) for sampler in samplers]
        colours = [styles[sampler].colour for sampler in samplers]
        label_lines(axes, ends, samplers, colours, texts)
    return figure


def _training_panels(history: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, _Points]]:
    """Group the columns of the history: name of the quantity -> part of the data -> points."""
    if not history:
        raise ConfigurationError("training history = []: expected at least one row")
    keys = list(dict.fromkeys(key for row in history for key in row))
    panels: dict[str, dict[str, _Points]] = {}
    for key in keys:
        if key in ("step", "images_seen"):
            continue
        if any("step" not in row for row in history):
            raise ConfigurationError("training history: a row without 'step'")
        found = [(row["step"], row[key]) for row in history if is_finite(row.get(key))]
        if found:
            steps, values = np.array(found, dtype=np.float64).T
            part, slash, name = key.partition("/")
            known = slash and part in _COLOURS
            panels.setdefault(name if known else key, {})[part if known else "train"] = (
                steps,
                values,
            )
    if not panels:
        raise ConfigurationError(f"training history with keys {keys}: nothing to draw over 'step'")
    # The loss first; everything else as logged.
    return dict(sorted(panels.items(), key=lambda item: item[0] != "loss"))


def _draw_curve(axes: Axes, part: str, points: _Points) -> None:
    steps, values = points
    colour = _COLOURS[part]
    if len(values) < _SMOOTHED_FROM:
        axes.plot(steps, values, color=colour, marker="o", markersize=3, label=part)
        return
    width = max(5, len(values) // 25)
    start = (width - 1) // 2  # centred: a trailing mean would lag behind a falling loss
    means = np.convolve(values, np.full(width, 1 / width), mode="valid")
    axes.plot(steps, values, color=colour, alpha=0.3, linewidth=0.8, label=f"{part}, as logged")
    text = f"{part}, mean of {width} logged values"
    axes.plot(steps[start : start + len(means)], means, color=colour, label=text)


def _step_title(history: Sequence[Mapping[str, Any]]) -> str:
    last = history[-1]
    if not is_finite(last.get("images_seen")):
        return "Optimiser step"
    return f"Optimiser step ({int(last['images_seen']):,} images after step {int(last['step']):,})"


def _draw_sampler(
    axes: Axes, rows: Sequence[Mapping[str, Any]], style: SamplerStyle, shift: float
) -> tuple[float, float]:
    """Draw one line with error bars; return the data coordinates of its end."""
    rows = sorted(rows, key=lambda row: BINS.index(row["bin"]))
    places = [BINS.index(row["bin"]) + shift for row in rows]
    values = [float(row["value"]) for row in rows]
    bars = np.array([_interval(row) for row in rows]).T
    axes.errorbar(
        places,
        values,
        yerr=bars,
        color=style.colour,
        marker=style.marker,
        markersize=6,
        capsize=3,
        elinewidth=1.2,
    )
    return places[-1], values[-1]


def _interval(row: Mapping[str, Any]) -> tuple[float, float]:
    """Lengths of the error bar below and above the value; zero where nothing is known."""
    value = float(row["value"])
    if is_finite(row.get("low")) and is_finite(row.get("high")):
        return max(0.0, value - float(row["low"])), max(0.0, float(row["high"]) - value)
    error = row.get("standard_error")
    half = 1.96 * float(error) if is_finite(error) else 0.0
    return half, half


def _draw_reference(axes: Axes, value: float, name: str) -> None:
    axes.axhline(value, color=INK, linestyle=(0, (4, 3)), linewidth=1.2)
    axes.annotate(
        name,
        (0.01, value),
        (0, 3),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        fontsize=8,
        color=INK,
    )


def _finish_axes(axes: Axes, values: Sequence[float], unit: str) -> str:
    """Set scales and titles of the axes; return a remark on the scale for the subtitle."""
    axes.set_xticks(range(len(BINS)), [bin_label(name) for name in BINS])
    axes.set_xlim(-0.4, len(BINS) - 0.6)
    axes.set_xlabel("Observed share of the image")
    axes.set_ylabel(unit[:1].upper() + unit[1:])
    if _spans_decades(values):
        axes.set_yscale("log")
        return " · logarithmic scale"
    return ""


def _subtitle(rows: Sequence[Mapping[str, Any]], direction: str) -> str:
    """What the figure needs to be read alone: direction, error bars, counts; below, features."""
    levels = [float(row["level"]) for row in rows if is_finite(row.get("level"))]
    parts = [direction, f"bars: {100 * max(levels, default=0.95):.3g} % intervals"]
    for key, text in (("n", "n = {} per bin"), ("k", "K = {}")):
        found = [int(row[key]) for row in rows if is_finite(row.get(key))]
        if found:
            low, high = min(found), max(found)
            parts.append(text.format(low if low == high else f"{low}–{high}"))
    first = " · ".join(parts)
    if metric_label(str(rows[0]["metric"])).source in ("likelihood", "pixels"):
        return first
    extractors = [row["extractor"] for row in rows if isinstance(row.get("extractor"), str)]
    named = [name for name in dict.fromkeys(extractors) if name]
    return f"{first}\nfeatures: {', '.join(named)}" if named else first


def _legend_text(rows: Sequence[Mapping[str, Any]], sampler: str) -> str:
    for row in rows:
        if row["sampler"] == sampler and row["bin"] == POOLED:
            return f"all bins: {format_value(row['value'], row.get('standard_error'))}"
    return "all bins: –"


def label_lines(
    axes: Axes,
    ends: Sequence[tuple[float, float]],
    names: Sequence[str],
    colours: Sequence[str],
    texts: Sequence[str],
) -> None:
    """Name each line right of the axes, at the height of its end but without overlaps.

    Args:
        axes: With every line drawn and its scales set.
        ends: Data coordinates of the last point of each line.
        names: Written in bold.
        colours: Of the lines.
        texts: Written below the names.
    """
    axes.get_ylim()  # settles the limits, on which the heights depend
    heights = [
        float(axes.transAxes.inverted().transform(axes.transData.transform(end))[1]) for end in ends
    ]
    gap = min(_LABEL_HEIGHT, 0.92 / max(1, len(ends)))
    labels = zip(names, colours, texts, ends, _spread(heights, gap), strict=True)
    for name, colour, text, end, height in labels:
        line = {"arrowstyle": "-", "color": colour, "linewidth": 0.8, "alpha": 0.6}
        style: dict[str, Any] = {
            "color": colour,
            "textcoords": "axes fraction",
            "annotation_clip": False,
        }
        axes.annotate(name, end, (1.04, height + 0.01), va="bottom", weight="bold", **style)
        axes.annotate(text, end, (1.04, height), va="top", fontsize=8, arrowprops=None, **style)
        axes.annotate("", end, (1.035, height), arrowprops=line, **style)


def _spread(heights: Sequence[float], gap: float = _LABEL_HEIGHT) -> list[float]:
    """Move heights apart to at least `gap`, as little as needed, within [0, 1]."""
    order = np.argsort(heights, kind="stable")
    placed = np.array(heights, dtype=np.float64)[order]
    for i in range(1, len(placed)):
        placed[i] = max(placed[i], placed[i - 1] + gap)
    ceiling = 1.0 - gap / 2
    for i in reversed(range(len(placed))):
        placed[i] = min(placed[i], ceiling)
        ceiling = placed[i] - gap
    result = np.empty_like(placed)
    result[order] = placed
    return [float(height) for height in result]


def _spans_decades(values: Sequence[float]) -> bool:
    return min(values) > 0 and max(values) > 20 * min(values)
