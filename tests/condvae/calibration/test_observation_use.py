import numpy as np
import pytest

from condvae.calibration import View, assess_use, reference_gaps
from condvae.ground.configuration import ConfigurationError

N, D, S = 400, 6, 30


@pytest.fixture
def case(rng):
    """Truths around a level that y gives away, its own references and those of others."""
    levels = rng.normal(size=(N, 1))
    truths = levels + 0.5 * rng.normal(size=(N, D))
    own = levels + 0.2 * rng.normal(size=(N, D))
    return levels, truths, own, np.roll(own, 1, axis=0)


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def use_of(samples, case, **settings):
    _, truths, own, other = case
    gaps = reference_gaps(View(samples, truths, None, own, other))
    return assess_use(gaps, np.arange(N), seed=0, **settings)


def test_gaps_are_mean_differences_of_squared_distances(case, rng):
    _, truths, own, other = case
    samples = rng.normal(size=(S, N, D))
    hidden = rng.random((N, D)) < 0.5
    hidden[:, 0] = True
    gaps = reference_gaps(View(samples, truths, hidden, own, other))

    def gap(values):
        far, near = (values - other) ** 2, (values - own) ** 2
        return ((far - near) * hidden).sum(axis=1)

    np.testing.assert_allclose(gaps[:, 0], np.mean([gap(s) for s in samples], axis=0))
    np.testing.assert_allclose(gaps[:, 1], gap(truths))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_use_is_the_share_of_the_level_that_draws_follow(case, rng, share):
    levels = case[0]
    samples = share * levels + np.sqrt(1.25 - share**2) * rng.normal(size=(S, N, D))
    found = use_of(samples, case)
    assert found.value == pytest.approx(share, abs=0.1)
    assert found.low <= found.value <= found.high
    assert found.high - found.low < 0.3
    assert found.n == N


def test_intervals_cover_the_truth_as_often_as_they_say(case, rng):
    levels, _, own, other = case
    covered = 0
    for number in range(60):
        truths = levels + 0.5 * rng.normal(size=(N, D))
        samples = levels + 0.5 * rng.normal(size=(S, N, D))
        gaps = reference_gaps(View(samples, truths, None, own, other))
        found = assess_use(gaps, np.arange(N), level=0.9, seed=number)
        covered += found.low <= 1 <= found.high
    assert covered >= 46  # of 54 expected; fewer has probability 0.1 %


def test_cases_of_one_image_are_resampled_together(case, rng):
    _, truths, own, other = case
    samples = truths + rng.normal(size=(S, N, D))
    gaps = reference_gaps(View(samples, truths, None, own, other))
    once = assess_use(gaps, np.arange(N), seed=0)
    twice = assess_use(np.tile(gaps, (2, 1)), np.tile(np.arange(N), 2), seed=0)
    assert (twice.value, twice.low, twice.high) == pytest.approx((once.value, once.low, once.high))


def test_where_y_says_nothing_no_share_is_given():
    gaps = np.array([[1.0, -1.0], [0.5, 0.0]])
    found = assess_use(gaps, np.arange(2), seed=0)
    assert np.isnan([found.value, found.low, found.high]).all()


def test_both_references_are_needed(case):
    _, truths, own, _ = case
    with pytest.raises(ConfigurationError, match="expected own and other references"):
        reference_gaps(View(truths[None], truths, None, own, None))
