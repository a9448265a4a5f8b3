from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from condvae.calibration.shape import rank_probabilities, rank_shape


def simulate(shift, ratio, n, draws=99, seed=0):
    rng = np.random.default_rng(seed)
    truths = shift + ratio * rng.normal(size=n)
    return (rng.normal(size=(draws, n)) < truths).sum(axis=0)


@pytest.mark.parametrize("draws", [9, 99])
def test_probabilities_of_an_exact_sampler_are_equal(draws):
    np.testing.assert_allclose(rank_probabilities(draws, 0, 1), 1 / (draws + 1), rtol=1e-4)


@pytest.mark.parametrize(("shift", "ratio"), [(0.5, 1.0), (0.0, 1.6), (-1.0, 0.6)])
def test_probabilities_are_those_of_simulated_ranks(shift, ratio):
    counts = np.bincount(simulate(shift, ratio, 40000, draws=9), minlength=10)
    expected = 40000 * rank_probabilities(9, shift, ratio)
    assert stats.chisquare(counts, expected).pvalue > 0.001


def test_bias_is_in_deviations_of_the_draws():
    shape = rank_shape(simulate(0.4, 1.0, 20000), 99)
    assert shape.bias == pytest.approx(0.4, abs=0.03)
    assert shape.bias_p_value < 1e-100
    assert shape.spread == pytest.approx(1, abs=0.02)
    assert shape.spread_p_value > 0.001


@pytest.mark.parametrize(("ratio", "tolerance"), [(1.15, 0.03), (1 / 1.4, 0.03), (1 / 0.7, 0.12)])
def test_spread_is_that_of_the_truth_relative_to_the_draws(ratio, tolerance):
    shape = rank_shape(simulate(0.0, ratio, 20000), 99)
    assert shape.spread == pytest.approx(ratio, abs=tolerance)
    assert shape.spread_p_value < 1e-50
    assert shape.bias_p_value > 0.001


@pytest.mark.parametrize("shift", [1.5, -3.0, 30.0])
def test_a_large_bias_is_not_taken_for_a_wrong_width(shift):
    # Scores pile up at the largest one: their variance shrinks without the draws being too wide.
    shape = rank_shape(simulate(shift, 1.0, 2000), 99)
    assert np.sign(shape.bias) == np.sign(shift)
    assert shape.bias_p_value < 1e-100
    assert shape.spread_p_value > 0.001


def test_p_values_are_uniform_for_an_exact_sampler():
    rng = np.random.default_rng(1)
    shapes = [rank_shape(rng.integers(0, 100, size=200), 99) for _ in range(1000)]
    for name in ("bias_p_value", "spread_p_value"):
        values = [getattr(shape, name) for shape in shapes]
        assert np.mean(np.array(values) < 0.05) == pytest.approx(0.05, abs=0.025)
        assert stats.kstest(values, "uniform").pvalue > 0.001


def test_one_rank_says_nothing_about_spread():
    assert rank_shape(np.array([3]), 99).spread_p_value == 1.0
