from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import pytest

from condvae.ground.configuration import ConfigurationError
from condvae.scores.estimates import ScoreValue, mean_score, ratio_of_sums
from condvae.scores.proper import (
    crps_sums,
    energy_score,
    peak_signal_to_noise_ratio,
    posterior_mean_errors,
    root_mean_square_error,
    sliced_energy_score,
)

sliced = functools.partial(sliced_energy_score, projections=40, seed=0)


def crps(samples, truths, unobserved=None):
    return crps_sums(samples, truths, unobserved)[0]


ALL = pytest.mark.parametrize(
    "score", [energy_score, sliced, crps], ids=["energy", "sliced", "crps"]
)


def draw(s, n, d, seed=0):
    """Independent standard normals: samples (S,N,D) and truths (N,D)."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(s, n, d)), rng.normal(size=(n, d))


def mean_norm(d):
    """E |Z| of a standard normal Z in d dimensions."""
    return math.sqrt(2) * math.exp(math.lgamma((d + 1) / 2) - math.lgamma(d / 2))


def within(score, expected, errors=4):
    return abs(score.value - expected) < errors * score.standard_error


def test_energy_score_pair_by_pair():
    samples, truths = draw(5, 3, 4)
    samples = 1000 + samples  # the pair term must survive a common offset
    for case, value in enumerate(energy_score(samples, truths)):
        to_truth = np.mean([np.linalg.norm(x - truths[case]) for x in samples[:, case]])
        pairs = [np.linalg.norm(a - b) for a, b in itertools.combinations(samples[:, case], 2)]
        assert value == pytest.approx(to_truth - np.mean(pairs) / 2, rel=1e-12)


def test_crps_pair_by_pair():
    samples, truths = draw(6, 2, 3)
    sums, counts = crps_sums(samples, truths)
    assert counts.tolist() == [3, 3]
    for case in range(2):
        expected = 0.0
        for d in range(3):
            x = samples[:, case, d]
            pairs = [abs(a - b) for a, b in itertools.combinations(x, 2)]
            expected += np.abs(x - truths[case, d]).mean() - np.mean(pairs) / 2
        assert sums[case] == pytest.approx(expected, rel=1e-12)


@ALL
@pytest.mark.parametrize("size", [2, 3, 5])
def test_no_bias_from_few_samples(score, size):
    # The mean over all subsets of one size is the score of the whole: what defines a U-statistic.
    samples, truths = draw(6, 2, 3)
    subsets = [score(samples[list(s)], truths) for s in itertools.combinations(range(6), size)]
    np.testing.assert_allclose(np.mean(subsets, axis=0), score(samples, truths), rtol=1e-12)


@pytest.mark.parametrize(("bias", "scale"), [(0.0, 1.0), (0.7, 0.5), (-1.5, 2.0)])
def test_crps_of_a_normal_forecast(bias, scale):
    samples, _ = draw(3, 1, 40_000)
    truth = 0.4
    sums, counts = crps_sums(bias + scale * samples, np.full((1, 40_000), truth))
    z = (truth - bias) / scale
    density = math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    # Gneiting and Raftery 2007, equation 21.
    expected = scale * (z * math.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi))
    assert sums[0] / counts[0] == pytest.approx(expected, abs=0.015 * scale)


@pytest.mark.parametrize("d", [1, 2, 10])
@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_energy_score_of_normal_samples(d, scale):
    samples, truths = draw(4, 4000, d)
    expected = (math.hypot(1, scale) - scale / math.sqrt(2)) * mean_norm(d)
    assert within(mean_score(energy_score(scale * samples, truths)), expected)


@ALL
@pytest.mark.parametrize(
    ("bias", "scale"), [(0.0, 0.7), (0.0, 1.4), (0.3, 1.0)], ids=["narrow", "wide", "biased"]
)
def test_least_at_the_true_law(score, bias, scale):
    # The true law given y is normal about y; all samplers share their noise.
    samples, truths = draw(10, 1500, 10)
    y = np.random.default_rng(1).normal(size=(1500, 10))
    gap = score(y + bias + scale * samples, y + truths) - score(y + samples, y + truths)
    difference = mean_score(gap)
    assert difference.value > 5 * difference.standard_error


@ALL
def test_a_sampler_that_ignores_the_observation_loses(score):
    samples, truths = draw(10, 1500, 10)
    y = np.random.default_rng(1).normal(size=(1500, 10))
    other = np.random.default_rng(2).permutation(1500)
    difference = mean_score(score(y[other] + samples, y + truths) - score(y + samples, y + truths))
    assert difference.value > 5 * difference.standard_error


def test_energy_scores_see_dependence_and_crps_does_not():
    rng = np.random.default_rng(3)
    common, own = rng.normal(size=(12, 3000, 1)), rng.normal(size=(12, 3000, 8))
    joint = 0.9 * common + math.sqrt(1 - 0.81) * own
    samples, truths, independent = joint[:-1], joint[-1], own[:-1]
    for score in (energy_score, sliced):
        gap = mean_score(score(independent, truths) - score(samples, truths))
        assert gap.value > 5 * gap.standard_error
    gap = mean_score(crps(independent, truths) - crps(samples, truths))
    assert within(gap, 0)


def test_energy_score_ignores_place_and_direction_and_scales():
    samples, truths = draw(7, 5, 6)
    scores = energy_score(samples, truths)
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))
    for a, b in ((samples @ rotation, truths @ rotation), (samples + 9, truths + 9)):
        np.testing.assert_allclose(energy_score(a, b), scores, rtol=1e-11)
    np.testing.assert_allclose(energy_score(-3 * samples, -3 * truths), 3 * scores, rtol=1e-11)


def test_one_dimension_makes_all_three_the_same():
    samples, truths = draw(9, 4, 1)
    scores = crps(samples, truths)
    np.testing.assert_allclose(energy_score(samples, truths), scores, rtol=1e-12)
    np.testing.assert_allclose(sliced(samples, truths), scores, rtol=1e-12)


@pytest.mark.parametrize("d", [2, 7, 64])
def test_sliced_score_is_the_energy_score_up_to_a_constant(d):
    samples, truths = draw(20, 3, d)
    constant = math.gamma(d / 2) / (math.sqrt(math.pi) * math.gamma((d + 1) / 2))
    many = sliced_energy_score(samples, truths, projections=20_000, seed=1)
    np.testing.assert_allclose(many, constant * energy_score(samples, truths), rtol=0.03)
    assert not np.allclose(many, energy_score(samples, truths), rtol=0.2)


def test_seed_decides_the_directions():
    samples, truths = draw(5, 3, 4)
    one, same, other = (
        sliced_energy_score(samples, truths, projections=5, seed=s) for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).all()


def mean_errors(samples, truths, unobserved=None):
    errors = posterior_mean_errors(samples, truths, unobserved)
    return errors.of_mean + 100 * errors.of_samples


EVERY = pytest.mark.parametrize(
    "score", [energy_score, sliced, crps, mean_errors], ids=["energy", "sliced", "crps", "errors"]
)


@EVERY
def test_only_unobserved_values_count(score):
    samples, truths = draw(6, 4, 5)
    unobserved = np.random.default_rng(1).random((4, 5)) < 0.6
    unobserved[0], unobserved[3] = True, False
    scores = score(samples, truths, unobserved)
    hidden, known = np.where(unobserved, samples, np.nan), np.where(unobserved, truths, np.nan)
    np.testing.assert_array_equal(score(hidden, known, unobserved), scores)
    assert scores[0] == pytest.approx(score(samples, truths)[0])
    assert scores[3] == 0
    for case in (1, 2):
        assert 0 < unobserved[case].sum() < 5
        assert scores[case] != pytest.approx(score(samples, truths)[case], rel=0.01)
        if score is not sliced:  # whose directions depend on D
            columns = np.flatnonzero(unobserved[case])
            alone = score(samples[:, [case]][:, :, columns], truths[[case]][:, columns])
            assert scores[case] == pytest.approx(alone[0])


@EVERY
def test_neither_chunks_nor_order_nor_type_matter(score):
    rng = np.random.default_rng(0)
    samples = rng.integers(256, size=(8, 5, 12), dtype=np.uint8)
    truths = rng.integers(256, size=(5, 12), dtype=np.uint8)
    unobserved = rng.random((5, 12)) < 0.7
    scores = score(samples, truths, unobserved)
    assert scores.shape == (5,)
    assert scores.dtype == np.float64
    chunks = [score(samples[:, s], truths[s], unobserved[s]) for s in (slice(0, 2), slice(2, 5))]
    np.testing.assert_array_equal(np.concatenate(chunks), scores)
    np.testing.assert_allclose(score(samples[::-1], truths, unobserved), scores, rtol=1e-12)
    as_floats = score(samples.astype(np.float32), truths.astype(np.float64), unobserved)
    np.testing.assert_allclose(as_floats, scores, rtol=1e-12)


@ALL
def test_equal_samples_leave_the_distance(score):
    truths = np.array([[3.0, 0.0]])
    samples = np.tile([[0.0, 4.0]], (4, 1, 1))
    expected = {energy_score: 5.0, crps: 7.0}.get(score)
    if expected is None:
        directions = np.random.default_rng(0).standard_normal((40, 2))
        expected = np.abs(directions @ [3, -4] / np.linalg.norm(directions, axis=1)).mean()
    assert score(samples, truths)[0] == pytest.approx(expected)


def test_crps_of_a_certain_truth_is_pooled_by_values():
    # Two cases with 1 and 3 values: absolute errors 8 and 1, 1, 1.
    samples = np.tile(np.array([[8.0, 0, 0], [1, 1, 1]]), (3, 1, 1))
    unobserved = np.array([[True, False, False], [True, True, True]])
    score = ratio_of_sums(*crps_sums(samples, np.zeros((2, 3)), unobserved))
    assert score.value == pytest.approx(11 / 4)


def test_squared_errors_by_hand():
    samples = np.array([[[0, 9]], [[4, 9]]], dtype=np.uint8)
    errors = posterior_mean_errors(samples, np.array([[5, 9]], dtype=np.uint8))
    assert errors.of_mean.tolist() == [9.0]  # the mean is 2
    assert errors.of_samples.tolist() == [13.0]  # (25 + 1) / 2
    assert errors.counts.tolist() == [2.0]


@pytest.mark.parametrize("s", [2, 10])
def test_squared_errors_of_the_true_posterior(s):
    samples, truths = draw(s, 4000, 5)
    errors = posterior_mean_errors(samples, truths)
    assert within(ratio_of_sums(errors.of_samples, errors.counts), 2)
    assert within(ratio_of_sums(errors.of_mean, errors.counts), 1 + 1 / s)
    corrected = errors.of_mean - (errors.of_samples - errors.of_mean) / (s - 1)
    assert within(ratio_of_sums(corrected, errors.counts), 1)


def test_roots_and_decibels_by_hand():
    mean_square = ScoreValue(25.0, 0.5, 7)
    root, ratio = root_mean_square_error(mean_square), peak_signal_to_noise_ratio(mean_square)
    assert (root.value, root.n, ratio.n) == (5.0, 7, 7)
    assert ratio.value == pytest.approx(20 * math.log10(51))
    # Standard errors against a small step of the mean square.
    step = ScoreValue(25.0 + 1e-6, 0.5, 7)
    slope = (root_mean_square_error(step).value - root.value) / 1e-6
    assert root.standard_error == pytest.approx(0.5 * slope, rel=1e-4)
    slope = (peak_signal_to_noise_ratio(step).value - ratio.value) / 1e-6
    assert ratio.standard_error == pytest.approx(-0.5 * slope, rel=1e-4)
    assert peak_signal_to_noise_ratio(ScoreValue(0.01, 0.0, 1), peak=1.0).value == 20


def test_no_error_at_all():
    exact = ScoreValue(0.0, 0.0, 3)
    assert root_mean_square_error(exact).value == 0
    assert peak_signal_to_noise_ratio(exact).value == math.inf


def test_pooled_decibels_are_not_the_mean_of_decibels():
    samples, truths = np.array([[[1.0], [10.0]]]), np.zeros((2, 1))
    errors = posterior_mean_errors(samples, truths)
    pooled = peak_signal_to_noise_ratio(ratio_of_sums(errors.of_mean, errors.counts))
    each = [peak_signal_to_noise_ratio(ScoreValue(value, 0.0, 1)).value for value in errors.of_mean]
    assert pooled.value == pytest.approx(10 * math.log10(255**2 / 50.5))
    assert np.mean(each) == pytest.approx(10 * math.log10(255**2 / 10))


ONE, TWO, TRUTH = np.zeros((1, 3, 4)), np.zeros((2, 3, 4)), np.zeros((3, 4))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: energy_score(ONE, TRUTH), r"\(1, 3, 4\), truths of .* with S >= 2"),
        (lambda: sliced(ONE, TRUTH), "with S >= 2"),
        (lambda: crps_sums(ONE, TRUTH), "with S >= 2"),
        (lambda: posterior_mean_errors(ONE[:0], TRUTH), "with S >= 1"),
        (lambda: energy_score(TWO, TRUTH.T), r"truths of shape \(4, 3\)"),
        (lambda: crps_sums(TWO[0], TRUTH), r"samples of shape \(3, 4\)"),
        (lambda: energy_score(TWO, TRUTH, TRUTH), "unobserved of type float64"),
        (lambda: crps_sums(TWO, TRUTH, TRUTH[:1] == 0), r"shape \(1, 4\): expected bool \(3, 4\)"),
        (lambda: sliced_energy_score(TWO, TRUTH, projections=0, seed=0), "projections = 0"),
        (lambda: root_mean_square_error(ScoreValue(-1.0, 0.0, 1)), "mean square -1.0"),
        (lambda: peak_signal_to_noise_ratio(ScoreValue(math.nan, 0.0, 1)), "mean square nan"),
        (lambda: peak_signal_to_noise_ratio(ScoreValue(1.0, 0.0, 1), 0.0), "peak = 0.0"),
    ],
)
def test_bad_values_are_refused(call, message):
    with pytest.raises(ConfigurationError, match=message):
        call()
