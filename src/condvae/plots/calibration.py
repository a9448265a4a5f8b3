"""Ranks of truths among draws: histograms and distribution functions, one curve per statistic."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray
from scipy import stats

from condvae.ground.configuration import ConfigurationError
from condvae.plots.labels import is_finite, statistic_label
from condvae.plots.style import (
    ALARM,
    FRAME,
    INK,
    MUTED,
    QUIET,
    WARNING,
    figure_style,
    write_heading,
)

__all__ = ["plot_rank_ecdf", "plot_rank_histograms"]

_BAND = "#dfe4ea"
_COLUMNS = 6
_HIGHEST_BAR = 5.0  # times the expected level; taller bars are cut and their height is written
_FAMILIES = {
    "pixel": "Single pixels and mean of the hole",
    "projection": "Random projections of pixels",
    "feature_projection": "Random projections of features",
    "tarp": "Distances to reference images",
    "class": "Class",
    "other": "Other statistics",
}
_LINES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))


def plot_rank_histograms(tests: Sequence[Mapping[str, Any]], *, title: str | None = None) -> Figure:
    """Draw a histogram of ranks per statistic, relative to uniform ranks.

    A bar's colour says whether the test of its statistic rejects after Holm's correction. The band
    holds 95 % of the counts of an exact sampler, each bin by itself (binomial).

    Args:
        tests: One mapping per statistic with ``name``, ``n`` images, ``draws``, ``counts`` per
            equally wide bin, ``adjusted_p_value``, and where known ``bias`` and ``spread``.
        title: Heading of the figure.

    Raises:
        ConfigurationError: No tests, or one without images.
    """
    _check_tests(tests)
    heights = [np.array(test["counts"]) * len(test["counts"]) / test["n"] for test in tests]
    tallest = max(float(values.max()) for values in heights)
    ceiling = min(_HIGHEST_BAR, max(2.0, 1.1 * tallest))
    columns = min(_COLUMNS, len(tests))
    rows = math.ceil(len(tests) / columns)
    with figure_style():
        figure = Figure(figsize=(max(9.6, 2.1 * columns), 1.6 * rows + 2.0), dpi=120)
        figure.set_layout_engine("constrained", h_pad=0.06, w_pad=0.06)
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes, test, values in zip(grid.flat, tests, heights, strict=False):
            _draw_histogram(axes, test, values, ceiling)
        _label_ranks(grid, len(tests))
        write_heading(
            figure,
            title or "Ranks of the truth among the draws",
            f"{_count_text(tests)}\n"
            "U shape: draws too narrow. Hill: too wide. Slope: biased. Distances to references tilt "
            "for each of these.\n"
            "p: chi-square test, Holm's correction, hidden pixels and features apart. Bias in standard "
            "deviations of the draws; spread of the truth relative to theirs.",
        )
        for axes in grid[:, 0]:
            axes.set_ylabel("Cases, relative\nto uniform", fontsize=8)
        figure.legend(handles=_histogram_legend(), loc="outside lower center", ncols=5)
    return figure


def plot_rank_ecdf(tests: Sequence[Mapping[str, Any]], *, title: str | None = None) -> Figure:
    """Draw the distribution function of each statistic's ranks, less that of uniform ranks.

    Statistics that reject after Holm's correction, and those whose curve leaves its band, are
    named; the others are thin grey lines.

    Args:
        tests: As for `plot_rank_histograms`, with ``ecdf``: ``points``, ``ecdf``, ``low``, ``high``
            (each (P,), shares of 1) and the ``level`` of the simultaneous band.
        title: Heading of the figure.

    Raises:
        ConfigurationError: No tests, or one without images.
    """
    _check_tests(tests)
    families: dict[str, list[Mapping[str, Any]]] = {}
    for test in tests:
        families.setdefault(_family(str(test["name"])), []).append(test)
    columns = min(3, len(families))
    rows = math.ceil(len(families) / columns)
    level = 100 * float(tests[0]["ecdf"]["level"])
    with figure_style():
        figure = Figure(figsize=(max(7.5, 4.1 * columns), 3.2 * rows + 1.2), dpi=120)
        figure.set_layout_engine("constrained", h_pad=0.08, w_pad=0.08)
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes, (family, members) in zip(grid.flat, families.items(), strict=False):
            axes.set_title(_FAMILIES[family], fontsize=9.5)
            _draw_ecdfs(axes, members)
        _label_ranks(grid, len(families))
        write_heading(
            figure,
            title or "Distribution of the ranks, less the uniform one",
            f"{_count_text(tests)}\n"
            f"Band: {level:.3g} % of exact samplers stay inside with their whole curve, so that about "
            f"{100 - level:.3g} % of curves leave it by chance.\n"
            "Above zero: the truth ranks low more often than it should; below: high.",
        )
        for axes in grid[:, 0]:
            axes.set_ylabel("Share of cases up to this\nrank, less the uniform one", fontsize=8)
    return figure


def _label_ranks(grid: NDArray[Any], count: int) -> None:
    """Label the rank axis below the last panel of every column and hide cells without a panel."""
    columns = grid.shape[1]
    for place, axes in enumerate(grid.flat):
        if place >= count:
            axes.set_axis_off()
        elif place >= count - columns:
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("Rank / draws", fontsize=8)


def _check_tests(tests: Sequence[Mapping[str, Any]]) -> None:
    if not tests:
        raise ConfigurationError("tests = []: expected at least one statistic to draw")
    for test in tests:
        if test["n"] < 1:
            raise ConfigurationError(f"test {test['name']!r}: n = {test['n']}, expected images")


def _verdict_colour(test: Mapping[str, Any]) -> str:
    p = test["adjusted_p_value"]
    if not is_finite(p) or p > 0.05:
        return QUIET
    return ALARM if p <= 0.01 else WARNING


def _draw_histogram(
    axes: Axes, test: Mapping[str, Any], heights: NDArray[np.float64], ceiling: float
) -> None:
    count = len(heights)
    low, high = stats.binom.ppf([0.025, 0.975], test["n"], 1 / count) * count / test["n"]
    axes.axhspan(low, high, color=_BAND, linewidth=0)
    edges = np.linspace(0.0, 1.0, count + 1)
    axes.bar(
        edges[:-1],
        np.minimum(heights, ceiling),
        width=1 / count,
        align="edge",
        color=_verdict_colour(test),
        edgecolor="white",
        linewidth=0.6,
    )
    axes.axhline(1.0, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
    for left, height in zip(edges, heights, strict=False):
        if height > ceiling:
            axes.text(
                left + 0.5 / count,
                0.98 * ceiling,
                f"×{height:.0f}",
                ha="center",
                va="top",
                rotation=90,
                color="white",
                fontsize=7,
            )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.4 * ceiling)  # the numbers stand above the bars
    axes.set_yticks(range(1 + math.floor(ceiling)))
    axes.set_xticks([0, 0.5, 1], ["0", "½", "1"])
    axes.grid(visible=False)
    axes.set_title(textwrap.fill(statistic_label(str(test["name"])), 26), fontsize=8)
    axes.text(0.03, 0.97, _numbers(test), transform=axes.transAxes, va="top", fontsize=7, color=INK)


def _numbers(test: Mapping[str, Any]) -> str:
    p = test["adjusted_p_value"]
    first = ("p < 0.001" if p < 0.001 else f"p = {p:.2g}") if is_finite(p) else "p –"
    shape = [
        f"{name} {round(test[name], 2) + 0.0:.2f}".replace("-", "−")
        for name in ("bias", "spread")
        if is_finite(test.get(name))
    ]
    return "\n".join([first, ", ".join(shape)]) if shape else first


def _histogram_legend() -> list[Any]:
    return [
        Patch(color=QUIET, label="not rejected"),
        Patch(color=WARNING, label="rejected, p ≤ 0.05"),
        Patch(color=ALARM, label="rejected, p ≤ 0.01"),
        Line2D([], [], color=INK, linewidth=1, linestyle=(0, (4, 3)), label="uniform ranks"),
        Patch(color=_BAND, label="95 % of an exact sampler's bars"),
    ]


def _count_text(tests: Sequence[Mapping[str, Any]]) -> str:
    """How many images, draws and rejections: "14 images · 99 draws · 0 of 26 statistics reject"."""
    parts = []
    for key, noun in (("n", "images, one case of each"), ("draws", "draws")):
        values = [int(test[key]) for test in tests]
        low, high = min(values), max(values)
        parts.append(f"{low if low == high else f'{low}–{high}'} {noun}")
    rejected = sum(_verdict_colour(test) != QUIET for test in tests)
    return " · ".join([*parts, f"{rejected} of {len(tests)} statistics rejected at 5 % (Holm)"])


def _family(name: str) -> str:
    kind = name.rpartition("_")[0] or name
    if kind in ("projection", "feature_projection"):
        return kind
    for prefix in ("pixel", "tarp", "class"):
        if name.startswith(prefix):
            return prefix
    return "pixel" if name == "hole_mean" else "other"


def _draw_ecdfs(axes: Axes, tests: Sequence[Mapping[str, Any]]) -> None:
    """Draw the curves of one family with the bands that belong to them."""
    bands = {(test["n"], test["draws"]): test["ecdf"] for test in tests}
    for ecdf in bands.values():
        x, low = _less_uniform(ecdf, "low")
        axes.fill_between(x, low, _less_uniform(ecdf, "high")[1], color=_BAND, linewidth=0)
    axes.axhline(0.0, color=FRAME, linewidth=1.0)
    rejected = sorted(
        (test for test in tests if _verdict_colour(test) != QUIET),
        key=lambda test: test["adjusted_p_value"],
    )
    outside = [test for test in tests if test not in rejected and _leaves_band(test)]
    inside = [test for test in tests if test not in rejected and test not in outside]
    thin: dict[str, Any] = {"linewidth": 1.0}
    _draw_curves(axes, inside, "inside the band", color=QUIET, **thin)
    _draw_curves(axes, outside, "outside the band, not rejected", color=MUTED, **thin)
    for place, test in enumerate(rejected[: len(_LINES)]):
        axes.plot(
            *_less_uniform(test["ecdf"], "ecdf"),
            color=_verdict_colour(test),
            linewidth=1.5,
            linestyle=_LINES[place],
            label=statistic_label(str(test["name"])),
        )
    _draw_curves(axes, rejected[len(_LINES) :], "more rejected", color=ALARM, alpha=0.5, **thin)
    axes.set_xlim(0, 1)
    # Below the axes: curves of poor samplers fill the panel.
    axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.2), fontsize=7, labelspacing=0.25)


def _draw_curves(axes: Axes, tests: Sequence[Mapping[str, Any]], words: str, **style: Any) -> None:
    """Draw curves that share one entry of the legend, which says how many they are."""
    for place, test in enumerate(tests):
        label = None if place else f"{len(tests)} {words}"
        axes.plot(*_less_uniform(test["ecdf"], "ecdf"), label=label, **style)


def _less_uniform(
    ecdf: Mapping[str, Any], key: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points with both ends of the unit interval, and a curve over them less the diagonal."""
    points = np.array([0.0, *ecdf["points"], 1.0])
    return points, np.array([0.0, *ecdf[key], 1.0]) - points


def _leaves_band(test: Mapping[str, Any]) -> bool:
    found, low, high = (np.asarray(test["ecdf"][key], float) for key in ("ecdf", "low", "high"))
    return bool(((found < low) | (found > high)).any())
