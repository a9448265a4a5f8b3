"""Do intervals hold the truth, and classes come true, as often as they say?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from condvae.calibration import HEADLINE_LEVEL
from condvae.ground.configuration import ConfigurationError, check_choice
from condvae.plots.curves import label_lines
from condvae.plots.labels import BINS, POOLED, bin_label, format_value, is_finite
from condvae.plots.style import (
    FRAME,
    INK,
    MUTED,
    SamplerStyle,
    figure_style,
    style_samplers,
    write_heading,
)

__all__ = ["plot_interval_coverage", "plot_reliability"]

_Rows = Sequence[Mapping[str, Any]]
_DASHES = (0, (4, 3))


@dataclass(frozen=True)
class _Words:
    """What a reliability diagram says of where its probabilities come from."""

    title: str
    question: str
    confidence: str
    accuracy: str
    exact: str


_WORDS = {
    "completions": _Words(
        "Reliability of the likeliest class among the completions",
        "How often the most frequent class among the completions is the true one.",
        "Confidence: share of the completions",
        "Accuracy: share of images\nof that class",
        "exact sampler",
    ),
    "probabilities": _Words(
        "Reliability of the likeliest value",
        "How often the likeliest value is the true one.",
        "Confidence: its probability",
        "Accuracy: share of images\nwith that value",
        "exact classifier",
    ),
}


def plot_interval_coverage(
    coverage_by_sampler: Mapping[str, _Rows],
    *,
    title: str | None = None,
    styles: Mapping[str, SamplerStyle] | None = None,
) -> Figure:
    """Draw the coverage of central intervals against their level, and by observed share at 90 %.

    Error bars are 1.96 standard errors.

    Args:
        coverage_by_sampler: Sampler -> rows with ``group`` (one of `BINS` or ``pooled``),
            ``level``, ``value`` (both shares of 1), ``standard_error`` and ``n`` cases. Rows
            without a value are left out.
        title: Heading of the figure.
        styles: From `style_samplers`; by default made from the samplers given.

    Raises:
        ConfigurationError: No sampler has a pooled value.
    """
    found = {
        sampler: [row for row in rows if is_finite(row["value"])]
        for sampler, rows in coverage_by_sampler.items()
    }
    shown = {s: rows for s, rows in found.items() if any(r["group"] == POOLED for r in rows)}
    if not shown:
        raise ConfigurationError(
            f"coverage of {', '.join(found) or 'no samplers'}: no pooled value to draw"
        )
    styles = styles or style_samplers(list(shown))
    with figure_style():
        figure = Figure(figsize=(12.4, max(4.9, 0.72 * len(shown))), dpi=120)
        figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.1)
        left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.25))
        _draw_levels(left, shown, styles)
        _draw_shares(right, shown, styles)
        write_heading(
            figure,
            title or "Coverage of the central intervals of the draws",
            "Above the dashed line: intervals too wide. Below: too narrow, or biased. Bars: ± 1.96 "
            "standard errors.",
        )
    return figure


def plot_reliability(
    classes_by_sampler: Mapping[str, Mapping[str, Any] | None],
    *,
    of: str = "completions",
    title: str | None = None,
    styles: Mapping[str, SamplerStyle] | None = None,
) -> Figure:
    """Draw how often the likeliest class is the true one, against its share of the completions.

    Points have Wilson's 95 % intervals; grey bars hold 95 % of the accuracies that an exact sampler
    with as many images and completions would show; below stand the numbers of images.

    Args:
        classes_by_sampler: Sampler -> its class calibration: ``ece, exact_ece, p_value, n`` and
            ``reliability``, bins with ``low, high, n, confidence, accuracy, accuracy_low,
            accuracy_high, exact_low, exact_high``. Samplers with `None` are left out.
        of: What the shares are, for the words: shares of ``completions``, or ``probabilities`` of a
            classifier, an attribute in the place of each sampler.
        title: Heading of the figure.
        styles: From `style_samplers`; by default made from the samplers given.

    Raises:
        ConfigurationError: No sampler has a class calibration, or unknown `of`.
    """
    check_choice("of", of, _WORDS)
    words = _WORDS[of]
    shown = {sampler: found for sampler, found in classes_by_sampler.items() if found}
    if not shown:
        raise ConfigurationError(
            f"class calibration of {', '.join(classes_by_sampler) or 'no samplers'}: nothing to draw"
        )
    styles = styles or style_samplers(list(shown))
    columns = min(3, len(shown))
    rows = math.ceil(len(shown) / columns)
    with figure_style():
        figure = Figure(figsize=(max(7.5, 4.1 * columns), 4.5 * rows + 1.1), dpi=120)
        figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.08)
        ratios = [4.0, 1.0] * rows
        grid = figure.subplots(
            2 * rows, columns, sharex=True, squeeze=False, gridspec_kw={"height_ratios": ratios}
        )
        for axes in grid.flat:
            axes.set_axis_off()
        for place, (sampler, found) in enumerate(shown.items()):
            row, column = divmod(place, columns)
            _draw_accuracy(grid[2 * row, column], sampler, found, styles[sampler], words.exact)
            _draw_counts(grid[2 * row + 1, column], found, styles[sampler])
        for row in range(rows):
            grid[2 * row, 0].set_ylabel(words.accuracy)
            grid[2 * row + 1, 0].set_ylabel("Images")
        for place in range(len(shown)):
            row, column = divmod(place, columns)
            if place >= len(shown) - columns:
                lowest = grid[2 * row + 1, column]
                lowest.tick_params(labelbottom=True)
                lowest.set_xlabel(words.confidence)
        write_heading(
            figure,
            title or words.title,
            f"{words.question} Above the diagonal: too unsure; below: too sure.\n"
            "Error: expected calibration error; p: two-sided, among those of simulated "
            f"{words.exact}s. One case per image.",
        )
        figure.legend(handles=_reliability_legend(words.exact), loc="outside lower center", ncols=3)
    return figure


def _draw_levels(
    axes: Axes, shown: Mapping[str, _Rows], styles: Mapping[str, SamplerStyle]
) -> None:
    lows = []
    for place, (sampler, rows) in enumerate(shown.items()):
        pooled = sorted((r for r in rows if r["group"] == POOLED), key=lambda row: row["level"])
        shift = 0.003 * (place - (len(shown) - 1) / 2)  # bars must not hide each other
        _draw_points(axes, [row["level"] + shift for row in pooled], pooled, styles[sampler])
        lows += [row["level"] for row in pooled] + [row["value"] for row in pooled]
    start = max(0.0, math.floor(10 * min(lows) - 0.5) / 10)
    axes.plot([start, 1], [start, 1], color=INK, linewidth=1.2, linestyle=_DASHES)
    axes.set_ylim(start, 1.02)
    levels = sorted({float(r["level"]) for rows in shown.values() for r in rows})
    axes.set_xlim(levels[0] - 0.05, 1.0)
    axes.set_xticks(levels, [f"{100 * level:.3g} %" for level in levels])
    axes.set_xlabel("Level of the interval")
    axes.set_ylabel("Share of unobserved values inside")
    axes.set_title("All cases · dashed: calibrated", **_subtitle_style())


def _draw_shares(
    axes: Axes, shown: Mapping[str, _Rows], styles: Mapping[str, SamplerStyle]
) -> None:
    ends, names, texts = [], [], []
    counts: set[int] = set()
    for place, (sampler, rows) in enumerate(shown.items()):
        own = [row for row in rows if row["level"] == HEADLINE_LEVEL]
        binned = sorted(
            (row for row in own if row["group"] != POOLED), key=lambda r: BINS.index(r["group"])
        )
        if not binned:
            continue
        shift = 0.07 * (place - (len(shown) - 1) / 2)
        places = [BINS.index(row["group"]) + shift for row in binned]
        _draw_points(axes, places, binned, styles[sampler])
        counts |= {int(row["n"]) for row in binned}
        pooled = next((row for row in own if row["group"] == POOLED), {})
        names.append(sampler)
        ends.append((places[-1], float(binned[-1]["value"])))
        texts.append(f"all: {format_value(pooled.get('value'), pooled.get('standard_error'))}")
    axes.axhline(HEADLINE_LEVEL, color=INK, linewidth=1.2, linestyle=_DASHES)
    axes.set_xticks(range(len(BINS)), [bin_label(name) for name in BINS])
    axes.set_xlim(-0.5, len(BINS) - 0.5)
    axes.set_xlabel("Observed share of the image")
    axes.set_ylabel("Share inside the 90 % interval")
    number = (
        f"n = {min(counts)}–{max(counts)}" if len(counts) > 1 else f"n = {max(counts, default=0)}"
    )
    axes.set_title(f"90 % intervals · dashed: calibrated · {number} per bin", **_subtitle_style())
    label_lines(axes, ends, names, [styles[name].colour for name in names], texts)


def _draw_points(axes: Axes, x: Sequence[float], rows: _Rows, style: SamplerStyle) -> None:
    """Draw values with bars of 1.96 standard errors, within 0 and 1."""
    values = np.array([float(row["value"]) for row in rows])
    errors = [float(e) if is_finite(e := row["standard_error"]) else 0.0 for row in rows]
    half = 1.96 * np.array(errors)
    bars = [np.minimum(half, values), np.minimum(half, 1 - values)]
    axes.errorbar(
        x,
        values,
        yerr=bars,
        color=style.colour,
        marker=style.marker,
        markersize=5,
        capsize=2.5,
        linewidth=1.3,
        elinewidth=1.2,
    )


def _draw_accuracy(
    axes: Axes, sampler: str, found: Mapping[str, Any], style: SamplerStyle, exact: str
) -> None:
    axes.set_axis_on()
    axes.plot([0, 1], [0, 1], color=INK, linewidth=1.0, linestyle=_DASHES)
    points = [row for row in found["reliability"] if row["n"] and is_finite(row["accuracy"])]
    for row in points:
        if is_finite(row["exact_low"]) and is_finite(row["exact_high"]):
            height = row["exact_high"] - row["exact_low"]
            axes.bar(
                row["confidence"],
                max(height, 0.012),  # an interval of one value is still to be seen
                bottom=row["exact_low"] - (0.006 if height == 0 else 0.0),
                width=0.7 * (row["high"] - row["low"]),
                color=FRAME,
                alpha=0.6,
                linewidth=0,
            )
    if points:
        accuracy = np.array([row["accuracy"] for row in points])
        ends = np.array([[row["accuracy_low"], row["accuracy_high"]] for row in points])
        below, above = accuracy - ends[:, 0], ends[:, 1] - accuracy
        axes.errorbar(
            [row["confidence"] for row in points],
            accuracy,
            yerr=np.clip(np.nan_to_num([below, above]), 0.0, None),
            color=style.colour,
            marker=style.marker,
            markersize=5,
            capsize=2.5,
            linewidth=1.3,
            elinewidth=1.2,
        )
    axes.set_xlim(0, 1.04)
    axes.set_ylim(-0.03, 1.03)
    p = found.get("p_value")
    text = f"error {_short(found.get('ece'))}, {exact} {_short(found.get('exact_ece'))}"
    text += f", p {'< 0.01' if is_finite(p) and p < 0.01 else f'= {_short(p)}'}"
    axes.set_title(f"{sampler}\n", color=style.colour)
    axes.text(0, 1.02, text, transform=axes.transAxes, va="bottom", fontsize=8, color=MUTED)


def _draw_counts(axes: Axes, found: Mapping[str, Any], style: SamplerStyle) -> None:
    axes.set_axis_on()
    rows = found["reliability"]
    counts = [int(row["n"]) for row in rows]
    middles = [(row["low"] + row["high"]) / 2 for row in rows]
    widths = [0.9 * (row["high"] - row["low"]) for row in rows]
    axes.bar(middles, counts, width=widths, color=style.colour, alpha=0.7)
    for middle, count in zip(middles, counts, strict=True):
        axes.text(middle, count, f"{count}", ha="center", va="bottom", fontsize=7, color=MUTED)
    axes.set_ylim(0, 1.35 * max(1, *counts))
    axes.set_yticks([])
    axes.grid(visible=False)


def _reliability_legend(exact: str) -> list[Any]:
    return [
        Line2D([], [], color=MUTED, marker="o", markersize=5, label="accuracy, 95 % interval"),
        Patch(color=FRAME, alpha=0.6, label=f"95 % of {exact}s of this size"),
        Line2D([], [], color=INK, linewidth=1, linestyle=_DASHES, label="accuracy = confidence"),
    ]


def _short(value: Any) -> str:
    return f"{value:.2f}" if is_finite(value) else "–"


def _subtitle_style() -> dict[str, Any]:
    return {"fontsize": 8.5, "fontweight": "normal", "color": MUTED}
