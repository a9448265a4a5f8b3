from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import special

from condvae.evaluation.monitoring import judge_flags, shift_of_features
from condvae.ground.configuration import ConfigurationError


def test_one_bin_follows_the_chance_of_ranks():
    # k of m further values are outside n reference values with the ways to interleave them.
    n, m, outside = 99, 5, 2

    def chance(k):
        # k values before the smallest or after the largest: k + 1 ways to share them between the ends.
        inside = special.comb(n - 1 + m - k - 1, m - k) if m > k else 1
        return (k + 1) * inside / special.comb(n + m, m)

    assert sum(chance(k) for k in range(m + 1)) == pytest.approx(1)
    found = judge_flags({"0_20": (outside, m, n)})
    assert found.p_value == pytest.approx(sum(chance(k) for k in range(outside, m + 1)))
    assert found.expected == pytest.approx(2 / (n + 1))
    assert (found.flagged, found.n, found.share) == (2, 5, 0.4)


def test_bins_are_added_up():
    one = {k: judge_flags({"a": (k, 3, 120)}).p_value for k in range(4)}
    two = {k: judge_flags({"b": (k, 2, 150)}).p_value for k in range(3)}
    mass = [
        (one[i] - one.get(i + 1, 0)) * (two[j] - two.get(j + 1, 0))
        for i, j in itertools.product(range(4), range(3))
        if i + j >= 2
    ]
    found = judge_flags({"a": (2, 3, 120), "b": (0, 2, 150)})
    assert found.p_value == pytest.approx(sum(mass))


def test_alarms_of_the_input_check_keep_their_level():
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(400):
        reference, new = rng.normal(size=99), rng.normal(size=200)
        outside = int(((new < reference.min()) | (new > reference.max())).sum())
        alarms += judge_flags({"a": (outside, 200, 99)}).p_value <= 0.05
    # 20 are expected at most; 40 would be more than four standard deviations away.
    assert alarms < 40


@pytest.mark.parametrize("counts", [{}, {"a": (3, 2, 99)}, {"a": (0, 0, 99)}, {"a": (0, 1, 1)}])
def test_impossible_counts_are_refused(counts):
    with pytest.raises(ConfigurationError, match="counts"):
        judge_flags(counts)


def test_distance_is_the_unbiased_mmd_written_out():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(5, 3)), rng.normal(1.0, 1.0, size=(7, 3))
    rows = np.concatenate([a, b])
    a, b = ((x - rows.mean(0)) / rows.std(0) for x in (a, b))

    def k(x, y):
        return (x @ y / 3 + 1) ** 3

    def mean(xs, ys, *, same):
        return np.mean(
            [k(x, y) for i, x in enumerate(xs) for j, y in enumerate(ys) if not (same and i == j)]
        )

    expected = mean(a, a, same=True) + mean(b, b, same=True) - 2 * mean(a, b, same=False)
    found = shift_of_features(rows[:5], rows[5:], permutations=3)
    assert found.distance == pytest.approx(expected)
    assert (found.n_new, found.n_reference, found.permutations) == (5, 7, 3)


def test_equal_laws_are_called_different_no_more_often_than_said():
    rng = np.random.default_rng(2)
    p_values = np.array(
        [
            shift_of_features(
                rng.exponential(size=(20, 4)),
                rng.exponential(size=(30, 4)),
                permutations=99,
                seed=i,
            ).p_value
            for i in range(200)
        ]
    )
    assert (p_values <= 0.05).sum() <= 22  # 10 expected; four standard deviations
    assert 0.4 < p_values.mean() < 0.6


def test_another_mean_and_another_spread_are_both_found():
    rng = np.random.default_rng(3)
    reference = rng.normal(size=(100, 4))
    for other in (rng.normal(0.7, 1, (60, 4)), rng.normal(0, 2.5, (60, 4))):
        assert shift_of_features(other, reference, permutations=199).p_value == 1 / 200


def test_features_that_never_change_say_nothing():
    found = shift_of_features(np.ones((4, 2)), np.ones((6, 2)), permutations=9)
    assert (found.distance, found.p_value) == (pytest.approx(0), 1.0)


def test_features_must_fit_together():
    with pytest.raises(ConfigurationError, match="shapes"):
        shift_of_features(np.zeros((3, 2)), np.zeros((3, 3)))
    with pytest.raises(ConfigurationError, match="finite"):
        shift_of_features(np.full((3, 2), np.nan), np.zeros((3, 2)))
