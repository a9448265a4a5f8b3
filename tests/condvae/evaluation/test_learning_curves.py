from __future__ import annotations

import math

import numpy as np
import pytest

from condvae.evaluation.learning_curves import (
    LearningCurve,
    keep_result,
    mean_curve,
    mean_of_runs,
    reach_of_runs,
    spaced_steps,
)
from condvae.ground.configuration import ConfigurationError

# A score that is 5 - log2(steps): every answer is known.
LINE = LearningCurve((1, 4, 16), (5.0, 3.0, 1.0))


@pytest.mark.parametrize("step", [1, 2, 3, 4, 7.5, 16])
def test_values_and_steps_lie_on_a_line_in_the_logarithm(step):
    value = 5 - math.log2(step)
    assert LINE.value_at(step) == pytest.approx(value)
    assert LINE.steps_to(value) == pytest.approx(step)


def test_ends_of_a_curve():
    assert LINE.value_at(0.5) == 5.0
    assert LINE.value_at(100) == LINE.final == 1.0
    assert LINE.steps_to(9.0) == 1.0
    assert LINE.steps_to(0.99) is None


def test_a_curve_that_rises_again_has_reached_its_lowest_value():
    curve = LearningCurve((1, 2, 4, 8), (3.0, 1.0, 2.0, 0.5))
    assert curve.steps_to(1.0) == pytest.approx(2.0)
    assert curve.steps_to(2.0) == pytest.approx(math.sqrt(2))
    assert curve.steps_to(0.5) == pytest.approx(8.0)


@pytest.mark.parametrize(
    ("steps", "values"),
    [((), ()), ((2, 2), (1.0, 1.0)), ((0, 1), (1.0, 1.0)), ((1, 2), (1.0,)), ((1,), (math.nan,))],
)
def test_curves_that_are_none_are_refused(steps, values):
    with pytest.raises(ConfigurationError, match="expected"):
        LearningCurve(steps, values)


@pytest.mark.parametrize(("last", "levelled"), [(0.996, True), (0.994, False), (1.2, True)])
def test_levelled_means_little_gain_over_the_last_fifth(last, levelled):
    assert LearningCurve((100, 800, 1000), (9.0, 1.0, last)).has_levelled(0.005) is levelled


def test_steps_are_spaced_by_half_octaves_up_to_the_last():
    assert spaced_steps(32, 200) == (32, 48, 64, 96, 128, 192, 200)
    assert spaced_steps(32, 128) == (32, 48, 64, 96, 128)
    assert spaced_steps(32, 40) == (32, 40)
    assert spaced_steps(32, 5) == (5,)
    with pytest.raises(ConfigurationError, match="first = 3"):
        spaced_steps(3, 10)


def test_runs_are_averaged():
    assert mean_of_runs([1.0, 2.0, 6.0]) == (3.0, pytest.approx(math.sqrt(7 / 3)))
    assert math.isnan(mean_of_runs([1.0])[1])
    # The second run needs four times the steps of the first for every value.
    late = LearningCurve(tuple(4 * step for step in LINE.steps), LINE.values)
    steps, error = reach_of_runs([LINE, late], 3.0)
    assert steps == pytest.approx(8.0)
    assert error == pytest.approx(np.std(np.log([4, 16]), ddof=1) / math.sqrt(2))
    worse = LearningCurve((1, 4), (5.0, 3.5))
    assert reach_of_runs([LINE, worse], 3.0) is None


def test_a_mean_curve_begins_where_all_have_and_ends_with_the_longest():
    short = LearningCurve((2, 4), (8.0, 4.0))
    mean = mean_curve([LINE, short])
    assert mean.steps == (2, 4, 16)
    assert mean.values == (pytest.approx((4 + 8) / 2), 3.5, (1 + 4) / 2)


def test_a_result_is_made_once_for_each_identity(tmp_path):
    path, calls = tmp_path / "run" / "result.json", []

    def work():
        calls.append(len(calls))
        return {"curve": [[32, 1.5]], "call": len(calls)}

    first = keep_result(path, {"steps": 32, "rate": 0.1}, work)
    assert keep_result(path, {"rate": 0.1, "steps": 32}, work) == first
    assert len(calls) == 1
    assert keep_result(path, {"steps": 64, "rate": 0.1}, work)["call"] == 2
    path.write_text(path.read_text()[:40])
    assert keep_result(path, {"steps": 64, "rate": 0.1}, work)["call"] == 3


def test_a_failure_keeps_nothing(tmp_path):
    path = tmp_path / "result.json"
    with pytest.raises(ZeroDivisionError):
        keep_result(path, {}, lambda: 1 / 0)
    assert not path.exists()
    assert keep_result(path, {}, lambda: 1) == 1
