"""What a method reaches in how much training time, methods beside each other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from condvae.ground.configuration import ConfigurationError
from condvae.plots.style import (
    INK,
    SamplerStyle,
    figure_style,
    style_samplers,
    write_heading,
)

__all__ = ["TimedRuns", "plot_training_time"]

# What starts far above the others must not flatten them.
_SHOWN_ABOVE = 1.6


@dataclass(frozen=True)
class TimedRuns:
    """Runs of one method with different seeds.

    Attributes:
        seconds: (N), training time, rising.
        bound: (N), mean over seeds.
        error: (N), standard error over seeds; nan for one seed.
        frechet: Mean and standard error of the Frechet distance at the end.
    """

    seconds: tuple[float, ...]
    bound: tuple[float, ...]
    error: tuple[float, ...]
    frechet: tuple[float, float]


def plot_training_time(
    methods: Mapping[str, TimedRuns],
    *,
    title: str,
    note: str,
    extractor: str,
    ceiling: tuple[float, str],
) -> Figure:
    """Draw bounds over training time on the left, Frechet distances at the end on the right.

    Bands and bars are one standard error over seeds.

    Args:
        methods: By name.
        title: Heading.
        note: Below it.
        extractor: What produced the features of the Frechet distance.
        ceiling: A bound that costs no training, and its name; drawn as a dashed line. Bounds far above
            it are not shown.

    Raises:
        ConfigurationError: No methods.
    """
    if not methods:
        raise ConfigurationError("methods = {}: expected at least one")
    styles = style_samplers(list(methods))
    with figure_style():
        figure = Figure(figsize=(9.6, 5.6), dpi=120)
        figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.1)
        left, right = figure.subplots(1, 2, width_ratios=[1.5, 1], sharex=True)
        for name, runs in methods.items():
            _draw_runs(left, right, name, runs, styles[name])
        lowest = min(min(runs.bound) for runs in methods.values())
        value, words = ceiling
        left.axhline(value, color=INK, linestyle=(0, (4, 3)), linewidth=1.2, label=words)
        low, span = min(lowest, value), abs(value - lowest)
        left.set_ylim(low - 0.05 * span, low + _SHOWN_ABOVE * span)
        left.set_title("Negative ELBO of x given y, validation images")
        left.set_ylabel("Nats per dimension (lower is better)")
        right.set_title("Frechet distance at the end")
        right.set_ylabel(f"{extractor} (lower is better)")
        right.set_ylim(bottom=0)
        for axes in (left, right):
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_xlabel("Training time in seconds")
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8)
        write_heading(figure, title, note)
    return figure


def _draw_runs(left: Axes, right: Axes, name: str, runs: TimedRuns, style: SamplerStyle) -> None:
    colour, marker = style.colour, style.marker
    bound, error = np.asarray(runs.bound), np.nan_to_num(runs.error)
    left.plot(
        runs.seconds, bound, color=colour, marker=marker, markersize=3.5, linewidth=1.4, label=name
    )
    left.fill_between(
        runs.seconds, bound - error, bound + error, color=colour, alpha=0.2, linewidth=0
    )
    distance, spread = runs.frechet
    spread = 0.0 if math.isnan(spread) else spread
    right.errorbar(
        runs.seconds[-1], distance, spread, color=colour, marker=marker, markersize=6, capsize=3
    )
