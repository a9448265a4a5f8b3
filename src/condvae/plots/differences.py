"""Paired differences from one sampler or run, by observed share, one panel a metric."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from condvae.ground.configuration import ConfigurationError
from condvae.plots.labels import BINS, POOLED, bin_label, is_finite, metric_label
from condvae.plots.style import (
    INK,
    MUTED,
    SamplerStyle,
    figure_style,
    style_samplers,
    write_heading,
)

__all__ = ["plot_differences"]

COLUMNS = 4
TITLE_WIDTH = 40  # characters
_ARROWS = {"lower": "below 0: better", "higher": "above 0: better", None: "no direction is better"}


def plot_differences(
    rows: Sequence[Mapping[str, Any]],
    *,
    title: str | None = None,
    styles: Mapping[str, SamplerStyle] | None = None,
) -> Figure:
    """Draw differences and their intervals, in the units of the metrics.

    Args:
        rows: ``metric, bin, sampler_a, sampler_b, difference`` (a minus b), ``low``, ``high`` and
            ``level``; every row has the same `sampler_b`. Rows without a finite difference are left
            out.
        title: Heading of the figure.
        styles: From `style_samplers`; by default made from the samplers of `rows`.

    Raises:
        ConfigurationError: Nothing to draw, or differences from several samplers.
    """
    drawn = [row for row in rows if is_finite(row["difference"])]
    references = list(dict.fromkeys(str(row["sampler_b"]) for row in drawn))
    if len(references) != 1:
        raise ConfigurationError(
            f"differences from {', '.join(references) or 'nothing'}: expected those from one sampler"
        )
    samplers = list(dict.fromkeys(str(row["sampler_a"]) for row in drawn))
    styles = styles or style_samplers([*references, *samplers])
    metrics = list(dict.fromkeys(str(row["metric"]) for row in drawn))
    groups = [name for name in (*BINS, POOLED) if any(row["bin"] == name for row in drawn)]
    columns = min(COLUMNS, len(metrics))
    lines = math.ceil(len(metrics) / columns)
    with figure_style():
        figure = Figure(figsize=(max(7.0, 3.3 * columns), 2.4 * lines + 1.3), dpi=120)
        figure.set_layout_engine("constrained", h_pad=0.08, w_pad=0.08)
        grid = figure.subplots(lines, columns, squeeze=False).flat
        for axes, metric in zip(grid, metrics, strict=False):
            own = [row for row in drawn if row["metric"] == metric]
            _draw_panel(axes, metric, own, groups, samplers, styles)
        for axes in figure.axes[len(metrics) :]:
            axes.set_axis_off()
        level = 100 * float(drawn[0]["level"])
        note = f"Paired by case; bars are {level:.3g} % bootstrap intervals over images."
        write_heading(figure, title or f"Differences from {references[0]}", note)
        marks = [
            Line2D([], [], color=styles[s].colour, marker=styles[s].marker, label=s)
            for s in samplers
        ]
        figure.legend(handles=marks, loc="outside lower left", ncols=min(3, len(marks)))
    return figure


def _draw_panel(
    axes: Axes,
    metric: str,
    rows: Sequence[Mapping[str, Any]],
    groups: Sequence[str],
    samplers: Sequence[str],
    styles: Mapping[str, SamplerStyle],
) -> None:
    label = metric_label(metric)
    axes.axhline(0.0, color=INK, linewidth=1.0)
    if POOLED in groups and len(groups) > 1:
        axes.axvline(len(groups) - 1.5, color=MUTED, linewidth=0.6)
    for position, sampler in enumerate(samplers):
        shift = 0.16 * (position - (len(samplers) - 1) / 2)  # bars must not hide each other
        for row in (row for row in rows if row["sampler_a"] == sampler):
            value, low, high = (float(row[key]) for key in ("difference", "low", "high"))
            axes.errorbar(
                groups.index(str(row["bin"])) + shift,
                value,
                # A bootstrap interval need not hold the estimate.
                yerr=[[max(0.0, value - low)], [max(0.0, high - value)]],
                color=styles[sampler].colour,
                marker=styles[sampler].marker,
                markersize=4,
                capsize=2,
                elinewidth=1.1,
            )
    title = textwrap.fill(label.title, TITLE_WIDTH)
    axes.set_title(f"{title}\n{_ARROWS[label.better]}", fontsize=8)
    axes.set_xticks(
        range(len(groups)), [bin_label(name).removesuffix(" %") for name in groups], fontsize=7
    )
    axes.set_xlim(-0.5, len(groups) - 0.5)
    axes.tick_params(axis="y", labelsize=7)
