"""The figure of paired differences."""

from __future__ import annotations

import pytest

from condvae.ground.configuration import ConfigurationError
from condvae.plots import plot_differences


def make_rows(metrics=("crps_per_unobserved_dim", "class_agreement"), reference="a"):
    return [
        {"metric": metric, "bin": name, "sampler_a": sampler, "sampler_b": reference}
        | {"difference": 0.1 * place, "low": 0.1 * place - 0.05, "high": 0.3, "level": 0.9}
        for metric in metrics
        for sampler in ("b", "c")
        for place, name in enumerate(("0_20", "40_60", "pooled"))
    ]


def test_every_difference_is_a_point_with_its_interval():
    figure = plot_differences(make_rows())
    drawn = [axes for axes in figure.axes if axes.containers]
    assert len(drawn) == 2
    points = [bar.lines[0].get_ydata()[0] for bar in drawn[0].containers]
    assert points == pytest.approx([0.0, 0.1, 0.2] * 2)
    low, high = drawn[0].containers[1].lines[2][0].get_segments()[0][:, 1]
    assert (low, high) == pytest.approx((0.05, 0.3))
    assert [tick.get_text() for tick in drawn[0].get_xticklabels()][-1] == "all"
    # One is better when lower, the other when higher.
    assert "below 0: better" in drawn[0].get_title(loc="left")
    assert "above 0: better" in drawn[1].get_title(loc="left")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["b", "c"]


def test_interval_that_leaves_out_its_estimate_is_drawn():
    rows = [{**row, "low": 0.5, "high": 0.6} for row in make_rows()]
    assert plot_differences(rows).axes


def test_other_references_and_nothing_are_refused():
    with pytest.raises(ConfigurationError, match="from a, z"):
        plot_differences(make_rows() + make_rows(reference="z"))
    rows = [{**row, "difference": float("nan")} for row in make_rows()]
    with pytest.raises(ConfigurationError, match="from nothing"):
        plot_differences(rows)
