from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy import stats

from condvae.calibration import (
    View,
    assess_all_ranks,
    assess_ranks,
    correct_holm,
    judge,
    other_references,
    rank_pixels,
)
from condvae.calibration.verdict import smallest_visible
from condvae.ground.configuration import ConfigurationError

CASES, DRAWS, SEEN = 1000, 99, 10


@pytest.fixture(scope="module")
def gaussian():
    """20 dimensions, 10 of them observed, and everything needed to draw from any posterior."""
    rng = np.random.default_rng(12)
    loadings = rng.normal(size=(20, 5))
    covariance = loadings @ loadings.T + 1.5 * np.eye(20)
    scale = np.sqrt(np.diag(covariance))
    covariance /= scale[:, None] * scale
    return covariance, rng.normal(size=(SEEN, 20 - SEEN))


def condition(covariance, seen):
    """Gain and Cholesky factor of x[10:] given x[:seen]."""
    gain = covariance[SEEN:, :seen] @ np.linalg.inv(covariance[:seen, :seen])
    return gain, np.linalg.cholesky(covariance[SEEN:, SEEN:] - gain @ covariance[:seen, SEEN:])


def judge_samplers(gaussian, seed, names):
    covariance, to_reference = gaussian
    rng = np.random.default_rng(seed)
    gain, factor = condition(covariance, SEEN)
    little_gain, little_factor = condition(covariance, 2)
    prior = np.linalg.cholesky(covariance[SEEN:, SEEN:])
    y = rng.normal(size=(CASES, SEEN)) @ np.linalg.cholesky(covariance[:SEEN, :SEEN]).T
    mean = y @ gain.T
    truths = mean + rng.normal(size=mean.shape) @ factor.T
    noise = rng.normal(size=(DRAWS, *mean.shape))
    samplers = {
        "exact": lambda: mean + noise @ factor.T,
        "0.7x": lambda: mean + 0.7 * (noise @ factor.T),
        "1.4x": lambda: mean + 1.4 * (noise @ factor.T),
        "biased": lambda: mean + noise @ factor.T + 0.3,
        "prior": lambda: noise @ prior.T,
        "little": lambda: y[:, :2] @ little_gain.T + noise @ little_factor.T,
    }
    references = y @ to_reference
    others = other_references(references, np.arange(CASES), seed)
    verdicts = {}
    for name in names:
        view = View(samplers[name](), truths, None, references, others)
        ranks = rank_pixels(view, seed=seed, pixels=3, projections=5)
        verdicts[name] = judge(assess_all_ranks(ranks, DRAWS, seed=seed))
    return verdicts


@pytest.mark.slow
def test_every_sampler_gets_the_right_verdict(gaussian):
    names = ("exact", "0.7x", "1.4x", "biased", "prior")
    words = {name: Counter() for name in names}
    for seed in range(100):
        for name, verdict in judge_samplers(gaussian, seed, names).items():
            words[name][verdict.words] += 1
    assert words["exact"]["calibrated at this n",] >= 90
    assert words["0.7x"]["too narrow",] >= 95
    assert words["1.4x"]["too wide",] >= 95
    assert words["biased"]["biased",] >= 95
    assert words["prior"]["ignores y",] >= 95


def test_a_sampler_that_uses_a_part_of_y_ignores_y(gaussian):
    verdict = judge_samplers(gaussian, 0, ("little",))["little"]
    assert verdict.words == ("ignores y",)
    assert verdict.shown_by == {"ignores y": ("tarp_y_pixels",)}


def fake_test(name, shift=0.0, ratio=1.0, n=2000, seed=0):
    """Ranks of truths N(shift, ratio²) among draws N(0, 1)."""
    rng = np.random.default_rng([seed, *map(ord, name)])
    truths = shift + ratio * rng.normal(size=n)
    ranks = (rng.normal(size=(DRAWS, n)) < truths).sum(axis=0)
    return assess_ranks(name, ranks, DRAWS)


def test_several_faults_hold_together():
    verdict = judge([fake_test("hole_mean", 0.6, 1.5), fake_test("pixel_1")])
    assert verdict.words == ("too narrow", "biased")
    assert verdict.shown_by == {"too narrow": ("hole_mean",), "biased": ("hole_mean",)}
    assert verdict.rejected == ("hole_mean",)
    assert verdict.summary == (
        "too narrow, biased: 1 of 2 tests on 2000 images reject at 5% (Holm): hole_mean."
    )


def test_different_faults_of_different_statistics_are_named_with_them():
    tests = [fake_test("projection_1", 0, 1.5), fake_test("projection_2", 0, 0.6)]
    assert judge(tests).summary.startswith(
        "too narrow in projection_1; too wide in projection_2: 2 of 2 tests"
    )


def test_distances_earn_no_word_and_blind_ones_rule_out_ignoring_y():
    tests = [fake_test("pixel_1"), fake_test("tarp_y_pixels", 0.8)]
    assert judge(tests).words == ("ignores y",)
    tests.append(fake_test("tarp_other_pixels", 0.8))
    verdict = judge(tests)
    assert verdict.words == ("miscalibrated",)
    assert verdict.rejected == ("tarp_y_pixels", "tarp_other_pixels")
    narrow = judge([*tests, fake_test("pixel_2", 0, 1.5)])
    assert narrow.words == ("too narrow",)


def test_other_tests_count():
    tests = [fake_test("pixel_1")]
    assert judge(tests, other_p_values={"class_error": 0.5}).calibrated
    verdict = judge(tests, other_p_values={"class_error": 0.001})
    assert verdict.words == ("miscalibrated",)
    assert verdict.adjusted["class_error"] == pytest.approx(0.002)


def test_holm_by_hand():
    adjusted = correct_holm({"a": 0.03, "b": 0.01, "c": 0.02, "d": 0.9})
    # Sorted: .01 * 4, .02 * 3, .03 * 2 (not below the one before), .9 * 1.
    assert adjusted == pytest.approx({"a": 0.06, "b": 0.04, "c": 0.06, "d": 0.9})
    assert list(adjusted) == ["a", "b", "c", "d"]
    assert correct_holm({"a": 0.7, "b": 0.8}) == {"a": 1.0, "b": 1.0}


def test_holm_errs_as_seldom_as_promised():
    rng = np.random.default_rng(0)
    wrong = [min(correct_holm(dict(enumerate(p))).values()) <= 0.05 for p in rng.random((2000, 12))]
    assert np.mean(wrong) == pytest.approx(0.05, abs=0.015)


def test_what_is_called_visible_is_seen_in_four_of_five_evaluations():
    bias, spread = smallest_visible(500, DRAWS, 20, 0.01)
    rng = np.random.default_rng(1)
    for shift, ratio in ((bias, 1.0), (0.0, spread)):
        seen = []
        for _ in range(300):
            below = stats.norm.cdf(shift + ratio * rng.normal(size=500))
            ranks = rng.binomial(DRAWS, below)
            seen.append(assess_ranks("pixel_1", ranks, DRAWS, bins=20).p_value <= 0.01)
        assert np.mean(seen) == pytest.approx(0.8, abs=0.08)


def test_summary_of_a_calibrated_sampler_says_what_would_have_been_seen():
    verdict = judge([fake_test("pixel_1"), fake_test("hole_mean")])
    assert verdict.calibrated
    assert verdict.summary.startswith("calibrated at this n: none of 2 tests on 2000 images")
    assert f"a bias of {verdict.visible_bias:.2g} posterior" in verdict.summary
    assert 0.05 < verdict.visible_bias < 0.2
    assert 1.03 < verdict.visible_spread < 1.2
    few = judge([assess_ranks("pixel_1", [3, 70, 20], DRAWS)])
    assert few.summary.endswith("So few images would hardly show any fault.")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: judge([]), r"tests \[\]"),
        (lambda: judge([fake_test("a"), fake_test("a")]), "different names"),
        (lambda: judge([fake_test("a")], other_p_values={"a": 0.1}), "different names"),
        (lambda: judge([fake_test("a")], alpha=5), "alpha = 5"),
        (lambda: judge([fake_test("a")], alpha=0.01, word_alpha=0.02), "word_alpha = 0.02"),
        (lambda: correct_holm({"a": 1.2}), "p-value of a = 1.2"),
    ],
)
def test_bad_values_are_refused(call, message):
    with pytest.raises(ConfigurationError, match=message):
        call()
