from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from condvae.calibration import View, posterior_coverage, share_covered, tabulate_coverage
from condvae.ground.configuration import ConfigurationError


def test_central_ranks_are_covered():
    # 99 draws 1 .. 99: a truth of r + 1/2 has rank r; the central 90 of 100 places are 5 .. 94.
    samples = np.arange(1.0, 100.0)[:, None, None]
    truths = np.arange(100)[:, None] + 0.5
    view = View(np.tile(samples, (1, 100, 1)), truths)
    covered = share_covered(view, (0.9, 0.5))
    assert np.flatnonzero(covered[:, 0] > 1e-9).tolist() == list(range(5, 95))
    np.testing.assert_allclose(covered[5:95, 0], 1.0)
    assert covered[:, 1].sum() == pytest.approx(50)


def test_ties_count_by_their_share():
    samples = np.array([0, 0, 0, 9], np.uint8)[:, None, None]
    # The truth 0 is at one of the places 0 .. 3 of 5, which fill [0, 0.8]; the middle half of
    # [0, 1] is [0.25, 0.75].
    view = View(samples, np.array([[0]], np.uint8))
    assert share_covered(view, (0.5,))[0, 0] == pytest.approx(0.5 / 0.8)


@pytest.mark.parametrize("draws", [7, 10, 100])
def test_an_exact_sampler_covers_what_it_promises_for_any_number_of_draws(draws):
    rng = np.random.default_rng(0)
    images = np.minimum(rng.poisson(2.0, size=(draws + 1, 500, 40)), 255).astype(np.uint8)
    unobserved = rng.random((500, 40)) < 0.5
    unobserved[:, 0] = True
    view = View(images[:-1], images[-1], unobserved)
    table = tabulate_coverage(share_covered(view), unobserved.sum(axis=1))
    assert [row.level for row in table] == [0.5, 0.8, 0.9, 0.95]
    for row in table:
        assert abs(row.value - row.level) < 4 * row.standard_error
        assert row.standard_error < 0.01
        assert row.n == 500


@pytest.mark.parametrize("width", [0.7, 1.0, 1.4])
def test_headline_against_the_closed_form(width):
    rng = np.random.default_rng(1)
    samples = (width * rng.normal(size=(399, 200, 50))).astype(np.float32)
    truths = rng.normal(size=(200, 50)).astype(np.float32)
    covered = share_covered(View(samples, truths))
    headline = posterior_coverage(tabulate_coverage(covered, np.full(200, 50)))
    expected = 2 * stats.norm.cdf(width * stats.norm.ppf(0.95)) - 1
    assert headline.level == 0.9
    assert headline.value == pytest.approx(expected, abs=0.01)


def test_observed_values_do_not_count():
    view = View(np.zeros((39, 1, 2)), np.array([[0.0, 5.0]]), np.array([[False, True]]))
    assert share_covered(view, (0.9,)).tolist() == [[0.0]]


def test_repeating_a_case_of_an_image_adds_no_information():
    rng = np.random.default_rng(2)
    view = View(rng.normal(size=(19, 60, 5)), rng.normal(size=(60, 5)))
    covered, sizes = share_covered(view), np.full(60, 5)
    once = tabulate_coverage(covered, sizes)
    images = np.repeat(np.arange(60), 3)
    thrice = tabulate_coverage(np.repeat(covered, 3, axis=0), np.repeat(sizes, 3), images)
    for a, b in zip(once, thrice, strict=True):
        assert b.value == pytest.approx(a.value)
        assert b.standard_error == pytest.approx(a.standard_error)


def test_chunks_do_not_matter():
    rng = np.random.default_rng(3)
    samples, truths = rng.integers(0, 4, size=(9, 30, 6)), rng.integers(0, 4, size=(30, 6))
    whole = share_covered(View(samples, truths))
    parts = [share_covered(View(samples[:, r], truths[r])) for r in (slice(0, 4), slice(4, 30))]
    assert np.array_equal(whole, np.concatenate(parts))


def test_bad_values_are_refused():
    view = View(np.zeros((2, 1, 1)), np.zeros((1, 1)))
    with pytest.raises(ConfigurationError, match="level = 90"):
        share_covered(view, (90,))
    with pytest.raises(ConfigurationError, match=r"covered of shape \(1, 1\): expected \(N, 4\)"):
        tabulate_coverage(np.zeros((1, 1)), [1])
    table = tabulate_coverage(share_covered(view, (0.5,)), [1], levels=(0.5,))
    assert math.isnan(table[0].standard_error)
    with pytest.raises(ConfigurationError, match=r"levels \[0.5\]: expected 0.9"):
        posterior_coverage(table)
