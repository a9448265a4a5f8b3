"""How well scores of partly seen images tell foreign ones: AUROC by observed share, histograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from condvae.ground.configuration import ConfigurationError
from condvae.plots.labels import BINS, POOLED, bin_label
from condvae.plots.style import MUTED, SamplerStyle, figure_style, style_samplers, write_heading

__all__ = ["plot_auroc", "plot_score_histograms"]

_HISTOGRAM_BINS = 30
_CENTRAL = (0.01, 0.99)  # quantiles of normal scores that decide the scale of a histogram
_WIDENED = 3.0  # times the width between them on either side


def plot_auroc(rows: Sequence[Mapping[str, Any]], *, titles: Mapping[str, str]) -> Figure:
    """Draw AUROC over the bins of the observed share, a panel for each score, a line for each set.

    Error bars are 1.96 standard errors.

    Args:
        rows: Of `condvae.evaluation.anomaly.tabulate_auroc`.
        titles: Words by name of a score.

    Raises:
        ConfigurationError: No rows.
    """
    if not rows:
        raise ConfigurationError("rows = []: expected at least one AUROC to draw")
    scores = list(dict.fromkeys(str(row["score"]) for row in rows))
    sets = list(dict.fromkeys(str(row["set"]) for row in rows))
    styles = style_samplers(sets)
    places = [*BINS, POOLED]
    with figure_style():
        figure = Figure(figsize=(3.4 * len(scores) + 1.6, 4.4), dpi=120)
        figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.08)
        grid = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
        for axes, score in zip(grid, scores, strict=True):
            axes.axhline(0.5, color=MUTED, linewidth=1.0, linestyle="--")
            for number, name in enumerate(sets):
                own = [row for row in rows if (row["set"], row["score"]) == (name, score)]
                # Bars must not hide each other.
                _draw_line(axes, own, places, styles[name], 0.07 * (number - len(sets) / 2), name)
            axes.set_title(titles.get(score, score), fontsize=9)
            axes.set_xticks(range(len(places)), [bin_label(place) for place in places])
            axes.tick_params(axis="x", labelrotation=45)
            axes.set_xlabel("Observed")
        grid[0].set_ylabel("AUROC")
        grid[0].set_ylim(min(0.4, *(float(row["value"]) - 0.05 for row in rows)), 1.02)
        figure.legend(*grid[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
        write_heading(
            figure,
            "Telling foreign images by what is seen of them",
            "Probability that a foreign image scores higher than one of the data set, ± 1.96 standard "
            "errors; dashed: chance.",
        )
    return figure


def _draw_line(
    axes: Axes,
    rows: Sequence[Mapping[str, Any]],
    places: Sequence[str],
    style: SamplerStyle,
    shift: float,
    name: str,
) -> None:
    """Draw one set's AUROC; the pooled value stands apart."""
    found = {str(row["bin"]): row for row in rows}
    label: str | None = name
    for joined in (places[:-1], places[-1:]):
        shown = [place for place in joined if place in found]
        if not shown:
            continue
        axes.errorbar(
            [places.index(place) + shift for place in shown],
            [float(found[place]["value"]) for place in shown],
            yerr=[1.96 * float(found[place]["standard_error"]) for place in shown],
            color=style.colour,
            marker=style.marker,
            markersize=4,
            elinewidth=1.0,
            label=label,
        )
        label = None


def plot_score_histograms(
    scores: Mapping[str, Mapping[str, NDArray[np.float64]]],
    normal: str,
    *,
    titles: Mapping[str, str],
) -> Figure:
    """Draw the scores of normal and foreign images, a panel for each score.

    Values far outside the normal ones are drawn at the edges, so that these stay visible.

    Args:
        scores: Set -> score -> (N,); nan is left out, as is a score without normal values.
        normal: Name of the normal set.
        titles: Words by name of a score.

    Raises:
        ConfigurationError: No finite score of a normal image.
    """
    finite = {
        score: values[np.isfinite(values)]
        for score, values in scores[normal].items()
        if np.isfinite(values).any()
    }
    if not finite:
        raise ConfigurationError(f"set {normal!r}: no finite score to draw")
    others = [name for name in scores if name != normal]
    styles = style_samplers(others)
    with figure_style():
        figure = Figure(figsize=(3.4 * len(finite) + 1.6, 3.8), dpi=120)
        figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.08)
        grid = figure.subplots(1, len(finite), squeeze=False)[0]
        for axes, (score, values) in zip(grid, finite.items(), strict=True):
            low, high = np.quantile(values, _CENTRAL)
            margin = _WIDENED * max(float(high - low), 1e-9)
            drawn = np.concatenate([own[score] for own in scores.values()])
            drawn = drawn[np.isfinite(drawn)]
            first, last = max(low - margin, drawn.min()), min(high + margin, drawn.max())
            edges = np.linspace(first, max(last, first + 1e-9), _HISTOGRAM_BINS + 1)
            for name in (normal, *others):
                own = scores[name][score]
                own = np.clip(own[~np.isnan(own)], edges[0], edges[-1])
                weights = np.full(len(own), 1 / max(len(own), 1))
                how: dict[str, Any] = (
                    {"color": "#dfe4ea", "histtype": "stepfilled"}
                    if name == normal
                    else {"color": styles[name].colour, "histtype": "step", "linewidth": 1.4}
                )
                axes.hist(own, bins=list(edges), weights=weights, label=name, **how)
            axes.set_xlabel(titles.get(score, score))
        grid[0].set_ylabel("Share of images")
        figure.legend(*grid[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
        write_heading(
            figure,
            "Scores of what is seen",
            "Filled: images of the data set. The outermost bars hold all that lies beyond.",
        )
    return figure
