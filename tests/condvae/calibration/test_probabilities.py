"""Probabilities that are true, too sure, and not sure enough."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from condvae.calibration.probabilities import assess_probabilities, credible_ranks
from condvae.ground.configuration import ConfigurationError


def cases(n=3000, sharper=1.0, seed=0):
    """Labels drawn of probabilities, which are then raised to a power."""
    rng = np.random.default_rng(seed)
    true = rng.dirichlet([0.7] * 4, size=n)
    labels = (true.cumsum(axis=1)[:, :-1] <= rng.random((n, 1))).sum(axis=1)
    stated = true**sharper
    return stated / stated.sum(axis=1, keepdims=True), labels


def test_ranks_of_true_probabilities_are_uniform():
    rng = np.random.default_rng(1)
    table, labels = cases()
    ranks = credible_ranks(table, labels, rng.random(len(labels)))
    assert stats.kstest(ranks, "uniform").pvalue > 0.01
    sharp, labels = cases(sharper=3.0)
    assert stats.kstest(credible_ranks(sharp, labels, rng.random(3000)), "uniform").pvalue < 1e-6


def test_rank_by_hand():
    table = np.array([[0.2, 0.5, 0.3]] * 3)
    found = credible_ranks(table, np.array([0, 1, 2]), np.array([0.5, 0.5, 0.0]))
    np.testing.assert_allclose(found, [0.8 + 0.1, 0.25, 0.5])


def test_true_probabilities_pass_and_wrong_ones_are_told():
    exact = assess_probabilities(*cases(600), seed=0)
    assert abs(exact["coverage_90"].value - 0.9) < 3 * exact["coverage_90"].standard_error
    assert exact["calibration_p_value"].value > 0.02
    table, labels = cases(600)
    assert exact["accuracy"].value == pytest.approx((table.argmax(axis=1) == labels).mean())
    assert exact["nll_nats"].value == pytest.approx(-np.log(table[range(600), labels]).mean())
    sure = assess_probabilities(*cases(600, sharper=3.0), seed=0)
    assert sure["coverage_90"].value < 0.85
    assert sure["calibration_error"].value > 2 * sure["calibration_error_exact"].value
    assert sure["calibration_p_value"].value < 0.01
    assert sure["nll_nats"].value > exact["nll_nats"].value
    timid = assess_probabilities(*cases(600, sharper=0.3), seed=0)
    assert timid["coverage_90"].value > 0.95


def test_a_certain_mistake_is_finite():
    found = assess_probabilities([[1.0, 0.0], [0.0, 1.0]], [1, 1], seed=0)
    assert 100 < found["nll_nats"].value < np.inf


@pytest.mark.parametrize(
    ("table", "labels", "message"),
    [
        ([[1.0]], [0], r"shape \(1, 1\)"),
        ([[0.5, 0.5]], [2], "labels of type int64: expected integers, 0 to 1"),
        ([[0.5, 0.6]], [0], "sum to 1.1"),
        ([[np.nan, 1.0]], [0], "from nan"),
    ],
)
def test_what_are_no_probabilities_is_refused(table, labels, message):
    with pytest.raises(ConfigurationError, match=message):
        assess_probabilities(table, np.array(labels), seed=0)
