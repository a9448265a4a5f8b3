from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from condvae.calibration import assess_all_ranks, assess_ranks, one_case_per_image
from condvae.calibration.ranks import case_uniforms, choose_bins, rank_truths
from condvae.ground.configuration import ConfigurationError


def test_rank_by_hand():
    draws = np.array([[1.0, 5.0, 2.0], [3.0, 5.0, 2.0], [4.0, 7.0, 2.0]])
    truths = np.array([3.5, 5.0, 2.0])
    # Below: 2, 0, 0; equal: 0, 2, 3. The uniform number picks among equal places.
    assert rank_truths(truths, draws, [0.9, 0.0, 0.74]).tolist() == [2, 0, 2]
    assert rank_truths(truths, draws, [0.0, 0.99, 0.99]).tolist() == [2, 2, 3]


def test_ties_leave_ranks_uniform():
    rng = np.random.default_rng(0)
    # Grey levels 0 to 2 only: nearly everything ties.
    values = rng.integers(0, 3, size=(10, 20000)).astype(np.uint8)
    ranks = rank_truths(values[-1], values[:-1], rng.random(20000))
    counts = np.bincount(ranks, minlength=10)
    assert stats.chisquare(counts).pvalue > 0.001
    # Without the random place ranks would pile up at few values.
    below = (values[:-1] < values[-1]).sum(axis=0)
    assert stats.chisquare(np.bincount(below, minlength=10)).pvalue < 1e-100


def test_resolution_makes_rounding_errors_ties():
    draws = np.full((99, 2000), 7.0)
    truths = draws[0] * (1 + 1e-6)
    uniforms = np.random.default_rng(1).random(2000)
    assert set(rank_truths(truths, draws, uniforms)) == {99}
    merged = rank_truths(truths, draws, uniforms, resolution=1e-4)
    assert stats.chisquare(np.bincount(merged, minlength=100)).pvalue > 0.001
    # A difference that is not rounding stays one.
    assert set(rank_truths(draws[0] * 1.01, draws, uniforms, resolution=1e-4)) == {99}


def test_random_numbers_belong_to_cases():
    whole = case_uniforms("hole_mean", 3, 0, 10)
    parts = [case_uniforms("hole_mean", 3, 0, 4), case_uniforms("hole_mean", 3, 4, 6)]
    assert np.array_equal(whole, np.concatenate(parts))
    assert not np.isclose(whole, case_uniforms("pixel_1", 3, 0, 10)).any()
    assert not np.isclose(whole, case_uniforms("hole_mean", 4, 0, 10)).any()


@pytest.mark.parametrize(
    ("draws", "n", "bins"),
    [(99, 1000, 20), (99, 200, 10), (99, 30, 2), (9, 1000, 10), (10, 1000, 11)],
)
def test_bins_divide_the_ranks_and_are_well_filled(draws, n, bins):
    assert choose_bins(draws, n) == bins


def test_number_of_draws_that_cannot_be_binned_is_refused_with_a_better_one():
    with pytest.raises(ConfigurationError, match=r"100 draws: 101 ranks .* use 99 draws"):
        choose_bins(100, 1000)


def test_chi_square_is_scipys():
    ranks = np.random.default_rng(2).integers(0, 90, size=500)
    test = assess_ranks("hole_mean", ranks, 99, bins=10)
    counts = [int(((ranks >= low) & (ranks < low + 10)).sum()) for low in range(0, 100, 10)]
    expected = stats.chisquare(counts)
    assert test.counts == tuple(counts)
    assert test.chi_square == pytest.approx(expected.statistic)
    assert test.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    assert (test.n, test.draws, test.name) == (500, 99, "hole_mean")


def test_one_case_of_every_image():
    images = np.array([5, 3, 5, 5, 9, 3])
    chosen = one_case_per_image(images, 0)
    assert sorted(images[chosen]) == [3, 5, 9]
    assert np.array_equal(chosen, np.sort(chosen))
    picks = [one_case_per_image(images, seed) for seed in range(300)]
    share = np.bincount(np.concatenate(picks), minlength=6) / 300
    np.testing.assert_allclose(share, [1 / 3, 1 / 2, 1 / 3, 1 / 3, 1, 1 / 2], atol=0.1)


def test_p_values_hold_when_cases_share_an_image():
    rng = np.random.default_rng(3)
    images = np.repeat(np.arange(200), 3)
    naive, clustered = 0, 0
    for repetition in range(400):
        # Ranks are uniform; those of one image are strongly dependent.
        score = 0.9 * np.repeat(rng.normal(size=200), 3) + np.sqrt(0.19) * rng.normal(size=600)
        ranks = {"hole_mean": np.floor(stats.norm.cdf(score) * 100).astype(int)}
        naive += assess_all_ranks(ranks, 99, seed=repetition)[0].p_value < 0.05
        clustered += assess_all_ranks(ranks, 99, images, seed=repetition)[0].p_value < 0.05
    assert naive / 400 > 0.1
    # 0.05 with a standard deviation of 0.011.
    assert clustered / 400 < 0.085


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rank_truths([1.0], [[1.0, 2.0]], [0.5]), r"draws of shape \(1, 2\)"),
        (lambda: rank_truths([1.0], [[1.0]], [0.5, 0.5]), r"uniforms of shape \(2,\)"),
        (lambda: rank_truths([np.nan], [[1.0]], [0.5]), "not finite"),
        (lambda: assess_ranks("a", [], 99), r"ranks of shape \(0,\)"),
        (lambda: assess_ranks("a", [0.5], 99), "type float64"),
        (lambda: assess_ranks("a", [100], 99), "ranks from 100 to 100: expected 0 to 99"),
        (lambda: assess_ranks("a", [1], 99, bins=7), "bins = 7: expected a divisor of 100"),
        (lambda: assess_all_ranks({}, 99, seed=0), "no ranks"),
        (lambda: assess_all_ranks({"a": [1, 2]}, 9, [1], seed=0), r"images of shape \(1,\)"),
        (lambda: assess_all_ranks({"a": [1], "b": [1, 2]}, 9, seed=0), "ranks of b"),
    ],
)
def test_bad_values_are_refused(call, message):
    with pytest.raises(ConfigurationError, match=message):
        call()


def test_the_room_needs_no_torch():
    code = "import condvae.calibration, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
