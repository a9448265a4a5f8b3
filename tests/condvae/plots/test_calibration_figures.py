import math

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from scipy import stats

from condvae.ground.configuration import ConfigurationError
from condvae.plots import (
    BINS,
    plot_interval_coverage,
    plot_rank_ecdf,
    plot_rank_histograms,
    plot_reliability,
    png_bytes,
    style_samplers,
)
from condvae.plots.style import ALARM, QUIET, WARNING

POINTS = [0.25, 0.5, 0.75]


def rank_test(name="pixel_1", counts=(10, 10, 10, 10), p=0.5, ecdf=(0.25, 0.5, 0.75), **fields):
    values = {
        "name": name,
        "n": sum(counts),
        "draws": 99,
        "counts": list(counts),
        "p_value": p,
        "adjusted_p_value": p,
        "bias": 0.1,
        "spread": 1.25,
        "ecdf": {
            "points": POINTS,
            "ecdf": list(ecdf),
            "low": [0.1, 0.3, 0.6],
            "high": [0.4, 0.7, 0.9],
            "level": 0.95,
        },
    }
    return values | fields


def coverage_rows(shift=0.0, **fields):
    rows = []
    for group in ("pooled", *BINS):
        for level in (0.5, 0.8, 0.9, 0.95):
            row = {"group": group, "level": level, "value": level + shift}
            rows.append(row | {"standard_error": 0.02, "n": 8} | fields)
    return rows


def reliability_bin(low, n=0, confidence=None, accuracy=None, interval=None, exact=None):
    interval, exact = interval or (None, None), exact or (None, None)
    return {
        "low": low,
        "high": low + 0.5,
        "n": n,
        "confidence": confidence,
        "accuracy": accuracy,
        "accuracy_low": interval[0],
        "accuracy_high": interval[1],
        "exact_low": exact[0],
        "exact_high": exact[1],
    }


def class_calibration(**fields):
    bins = [
        reliability_bin(0.0),
        reliability_bin(0.5, 12, 0.8, 0.75, (0.5, 0.9), (0.6, 0.95)),
    ]
    values = {"ece": 0.05, "exact_ece": 0.04, "p_value": 0.3, "n": 12, "reliability": bins}
    return values | fields


def bars(axes):
    """Rectangles of a bar chart, without the band across the axes."""
    return [p for p in axes.patches if isinstance(p, Rectangle) and p.get_width() < 1]


def panels(figure):
    return [axes for axes in figure.axes if axes.axison]


def texts(figure):
    own = [text.get_text() for axes in figure.axes for text in axes.texts]
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    legends = [axes.get_legend() for axes in figure.axes]
    entries = [t.get_text() for legend in legends if legend for t in legend.get_texts()]
    over_all = [text.get_text() for text in figure.texts]
    over_all += [t.get_text() for legend in figure.legends for t in legend.get_texts()]
    return "\n".join([*own, *titles, *entries, *over_all, figure.get_suptitle()])


def data(lines):
    return [np.array(line.get_data(), dtype=float).T for line in lines]


def check_texts_lie_inside(figure):
    png_bytes(figure)  # settles the layout
    width, height = figure.canvas.get_width_height()
    drawn = [*figure.texts, *figure.legends]
    drawn += [part for axes in panels(figure) for part in (axes.title, axes.xaxis.label)]
    for part in drawn:
        box = part.get_window_extent()
        if box.width and box.height:
            assert box.x0 >= 0, part
            assert box.y0 >= 0, part
            assert box.x1 <= width, part
            assert box.y1 <= height, part


def test_bars_are_counts_relative_to_uniform_ranks_with_their_binomial_band():
    figure = plot_rank_histograms([rank_test(counts=(20, 10, 10, 0))])
    (axes,) = panels(figure)
    assert [bar.get_height() for bar in bars(axes)] == [2.0, 1.0, 1.0, 0.0]
    assert [bar.get_x() for bar in bars(axes)] == [0.0, 0.25, 0.5, 0.75]
    (band,) = [patch for patch in axes.patches if patch not in bars(axes)]
    low, high = stats.binom(40, 0.25).ppf([0.025, 0.975]) / 10
    edges = band.get_y(), band.get_y() + band.get_height()
    assert edges == pytest.approx((low, high))
    assert any(np.allclose(points[:, 1], 1.0) for points in data(axes.lines))


def test_colours_tell_verdicts_apart_after_the_correction():
    p_values = (0.2, 0.03, 0.004, None, math.nan)
    tests = [rank_test(f"pixel_{i}", p=p) | {"p_value": 1e-6} for i, p in enumerate(p_values)]
    figure = plot_rank_histograms(tests)
    colours = [to_hex(bars(axes)[0].get_facecolor()) for axes in panels(figure)]
    assert colours == [c.lower() for c in (QUIET, WARNING, ALARM, QUIET, QUIET)]
    words = texts(figure)
    assert "p = 0.2\nbias 0.10, spread 1.25" in words
    assert "p –\n" in words
    assert "2 of 5 statistics rejected" in words
    assert "rejected, p ≤ 0.01" in words


def test_bars_too_tall_are_cut_and_say_how_tall_they_are():
    figure = plot_rank_histograms([rank_test(counts=(80, *[0] * 7)), rank_test("hole_mean")])
    axes = panels(figure)[0]
    assert bars(axes)[0].get_height() == 5.0
    assert "×8" in texts(figure)
    assert axes.get_ylim() == panels(figure)[1].get_ylim()


def test_statistics_have_readable_names_and_shapes_may_be_missing():
    tests = [rank_test(name, bias=None, spread=None) for name in ("hole_mean", "tarp_y_pixels")]
    words = texts(plot_rank_histograms(tests, title="Ranks of “ipa”"))
    assert "Mean of the hole" in words
    assert "Distance to reference of\ny, pixels" in words
    assert "Ranks of “ipa”" in words
    assert "bias 0" not in words


@pytest.mark.parametrize("count", [1, 8, 26])
def test_no_text_leaves_the_figures_of_ranks(count):
    tests = [rank_test(f"feature_projection_{i}", p=0.001) for i in range(count)]
    check_texts_lie_inside(plot_rank_histograms(tests))
    check_texts_lie_inside(plot_rank_ecdf(tests))


def test_curves_are_distribution_functions_less_the_uniform_one_with_their_band():
    figure = plot_rank_ecdf([rank_test(ecdf=(0.35, 0.5, 0.7))])
    (axes,) = panels(figure)
    curve = data(axes.lines)[-1]
    assert curve == pytest.approx(
        np.array([[0, 0], [0.25, 0.1], [0.5, 0.0], [0.75, -0.05], [1, 0]])
    )
    ((path,),) = [collection.get_paths() for collection in axes.collections]
    corners = {tuple(np.round(point, 6)) for point in path.vertices}
    assert {(0.25, -0.15), (0.5, -0.2), (0.25, 0.15), (0.75, 0.15)} <= corners


def test_rejected_statistics_are_named_and_the_others_counted():
    tests = [
        rank_test("tarp_y_pixels", p=0.001, ecdf=(0.0, 0.1, 0.2)),
        rank_test("tarp_other_pixels", p=0.4),
        rank_test("tarp_other_features", p=0.06, ecdf=(0.25, 0.75, 0.8)),
        rank_test("class_probability"),
    ]
    figure = plot_rank_ecdf(tests)
    words = texts(figure)
    assert [axes.get_title(loc="left") for axes in panels(figure)] == [
        "Distances to reference images",
        "Class",
    ]
    assert "Distance to reference of y, pixels" in words
    assert "1 outside the band, not rejected" in words
    assert words.count("1 inside the band") == 2
    assert "1 of 4 statistics rejected" in words
    rejected = [line for line in figure.axes[0].lines if line.get_color() == ALARM]
    assert data(rejected)[0][1] == pytest.approx([0.25, -0.25])


def test_many_rejected_curves_share_a_line_of_the_legend():
    tests = [rank_test(f"projection_{i}", p=0.001 * (i + 1)) for i in range(7)]
    words = texts(plot_rank_ecdf(tests))
    assert "3 more rejected" in words
    assert "Random projection 3" in words
    assert "Random projection 4" not in words


def test_tests_that_cannot_be_drawn_are_refused():
    for plot in (plot_rank_histograms, plot_rank_ecdf):
        with pytest.raises(ConfigurationError, match="at least one statistic"):
            plot([])
        with pytest.raises(ConfigurationError, match="'pixel_1': n = 0"):
            plot([rank_test(n=0)])


def error_bars(axes):
    """Per container: values and ends of the bars."""
    found = []
    for container in axes.containers:
        if not hasattr(container, "lines"):  # a bar chart
            continue
        line, _, (segments,) = container.lines
        ends = np.array([segment[:, 1] for segment in segments.get_segments()])
        found.append((data([line])[0], ends))
    return found


def test_coverage_stands_against_its_level_with_bars_that_stay_below_one():
    left, right = plot_interval_coverage({"ipa": coverage_rows(0.02)}).axes
    ((points, ends),) = error_bars(left)
    assert points == pytest.approx(
        np.array([[level, level + 0.02] for level in (0.5, 0.8, 0.9, 0.95)])
    )
    assert ends[0] == pytest.approx([0.52 - 0.0392, 0.52 + 0.0392])
    assert ends[3] == pytest.approx([0.97 - 0.0392, 1.0])
    assert any(np.allclose(line[:, 0], line[:, 1]) for line in data(left.lines))
    ((by_share, _),) = error_bars(right)
    assert by_share == pytest.approx(np.array([[i, 0.92] for i in range(5)]))
    assert any(np.allclose(line[:, 1], 0.9) for line in data(right.lines))


def test_every_sampler_has_its_colour_and_its_pooled_value_at_the_line():
    samplers = {
        "lama": coverage_rows(-0.3),
        "ipa": coverage_rows(),
        "untrained": coverage_rows(-0.1),
    }
    figure = plot_interval_coverage(samplers)
    styles = style_samplers(list(samplers))
    colours = [container.lines[0].get_color() for container in figure.axes[0].containers]
    assert colours == [styles[name].colour for name in samplers]
    words = texts(figure)
    assert "all: 0.600 ± 0.020" in words
    assert "n = 8 per bin" in words
    assert set(samplers) <= set(words.split("\n"))


def test_missing_coverage_leaves_gaps():
    rows = coverage_rows()
    for row in rows:
        if row["group"] == "20_40" or row["level"] == 0.5:
            row["value"] = None
        row["standard_error"] = math.nan
    figure = plot_interval_coverage({"ipa": rows, "nothing": coverage_rows(value=math.nan)})
    ((points, ends),) = error_bars(figure.axes[0])
    assert points[:, 0] == pytest.approx([0.8, 0.9, 0.95])
    assert ends[:, 0] == pytest.approx(ends[:, 1])
    ((by_share, _),) = error_bars(figure.axes[1])
    assert by_share[:, 0] == pytest.approx([0, 2, 3, 4])
    assert "nothing" not in texts(figure)


def test_coverage_of_all_cases_alone_can_be_drawn():
    rows = [row for row in coverage_rows() if row["group"] == "pooled"]
    figure = plot_interval_coverage({"ipa": rows})
    assert len(error_bars(figure.axes[0])) == 1
    assert error_bars(figure.axes[1]) == []


@pytest.mark.parametrize("coverage", [{}, {"ipa": []}, {"ipa": coverage_rows(value=None)}])
def test_no_coverage_is_refused(coverage):
    with pytest.raises(ConfigurationError, match="no pooled value"):
        plot_interval_coverage(coverage)


def test_reliability_of_probabilities_does_not_speak_of_completions():
    figure = plot_reliability({"slant": class_calibration()}, of="probabilities")
    figure.canvas.draw()
    words = " ".join(text.get_text() for text in figure.findobj(Text))
    assert "completion" not in words
    assert "sampler" not in words
    assert "Confidence: its probability" in words
    sampled = " ".join(
        t.get_text() for t in plot_reliability({"a": class_calibration()}).findobj(Text)
    )
    assert "Confidence: share of the completions" in sampled
    with pytest.raises(ConfigurationError, match=r"of = 'odds': expected one of completions"):
        plot_reliability({"slant": class_calibration()}, of="odds")


def test_reliability_shows_wilson_intervals_consistency_bars_and_counts():
    figure = plot_reliability({"ipa": class_calibration()})
    curve, counts = panels(figure)
    ((points, ends),) = error_bars(curve)
    assert points == pytest.approx(np.array([[0.8, 0.75]]))
    assert ends == pytest.approx(np.array([[0.5, 0.9]]))
    (bar,) = bars(curve)
    assert (bar.get_y(), bar.get_y() + bar.get_height()) == pytest.approx((0.6, 0.95))
    assert bar.get_x() + bar.get_width() / 2 == pytest.approx(0.8)
    assert [bar.get_height() for bar in bars(counts)] == [0, 12]
    words = texts(figure)
    assert "error 0.05, exact sampler 0.04, p = 0.30" in words
    assert {"0", "12"} <= set(words.split("\n"))


def test_samplers_without_classes_are_left_out_and_empty_curves_still_drawn():
    empty = class_calibration(
        reliability=[reliability_bin(0.0), reliability_bin(0.5)], p_value=None, ece=math.nan
    )
    figure = plot_reliability({"ipa": empty, "lama": None, "prior": class_calibration()})
    words = texts(figure)
    assert "lama" not in words
    assert "error –, exact sampler 0.04, p = –" in words
    assert len(error_bars(panels(figure)[0])) == 0
    assert len(panels(figure)) == 4
    check_texts_lie_inside(figure)


@pytest.mark.parametrize("classes", [{}, {"ipa": None}])
def test_no_classes_at_all_are_refused(classes):
    with pytest.raises(ConfigurationError, match="nothing to draw"):
        plot_reliability(classes)
