from __future__ import annotations

import math

import numpy as np
import pytest

from condvae.ground.configuration import ConfigurationError
from condvae.scores.estimates import (
    bootstrap_interval,
    mean_score,
    paired_difference,
    ratio_of_sums,
)


def test_mean_by_hand():
    score = mean_score([1.0, 2.0, 6.0])
    assert score.value == 3.0
    # Sample variance 7, divided by 3.
    assert score.standard_error == pytest.approx(math.sqrt(7 / 3))
    assert score.n == 3
    assert math.isnan(mean_score([2.0]).standard_error)


def test_repeating_a_case_adds_no_information_within_clusters():
    values = np.random.default_rng(0).normal(size=50)
    once, thrice = mean_score(values), mean_score(np.repeat(values, 3), np.repeat(range(50), 3))
    assert thrice.value == pytest.approx(once.value)
    assert thrice.standard_error == pytest.approx(once.standard_error)
    assert thrice.n == 150
    assert mean_score(np.repeat(values, 3)).standard_error < 0.6 * once.standard_error


def test_cluster_labels_may_be_names_in_any_order():
    values, names = np.array([1.0, 4.0, 2.0, 9.0]), np.array(["b", "a", "b", "c"])
    order = [2, 3, 0, 1]
    first, second = mean_score(values, names), mean_score(values[order], names[order])
    assert first.standard_error == pytest.approx(second.standard_error)


def test_ratio_by_hand():
    score = ratio_of_sums([2.0, 4.0], [1.0, 3.0])
    assert score.value == 1.5  # not the mean of ratios, 5/3
    # Residuals 2 - 1.5 = 0.5 and 4 - 4.5 = -0.5; sqrt(2/1 * 0.5) / 4.
    assert score.standard_error == pytest.approx(0.25)


def test_ratio_standard_error_is_the_spread_over_repetitions():
    generator = np.random.default_rng(1)
    ratios, errors = [], []
    for _ in range(1500):
        image = generator.gamma(3, size=40)  # shared by five cases of an image
        below = generator.integers(10, 200, size=200).astype(float)
        above = below * (np.repeat(image, 5) + generator.normal(size=200))
        score = ratio_of_sums(above, below, np.repeat(range(40), 5))
        ratios.append(score.value)
        errors.append(score.standard_error)
    assert np.mean(ratios) == pytest.approx(3, abs=0.03)
    assert np.mean(errors) == pytest.approx(np.std(ratios), rel=0.08)


def test_constant_difference_has_no_width():
    b = np.array([1.0, 5.0, 2.0])
    result = paired_difference(b - 0.5, b, seed=0, resamples=50)
    assert result.difference == pytest.approx(-0.5)
    assert (result.low, result.high) == (pytest.approx(-0.5), pytest.approx(-0.5))
    assert result.relative == pytest.approx(-0.5 / b.mean())
    assert result.n == 3
    assert result.level == 0.95


def test_relative_difference_keeps_the_sign_and_survives_zero():
    assert paired_difference([-1.0, -3.0], [-4.0, -4.0], seed=0).relative == pytest.approx(0.5)
    assert math.isnan(paired_difference([1.0], [0.0], seed=0).relative)


def test_interval_of_independent_cases_is_the_normal_one():
    generator = np.random.default_rng(2)
    b = generator.normal(10, 5, size=400)
    a = b + generator.normal(0.3, 1, size=400)
    result = paired_difference(a, b, seed=3, level=0.9)
    gap = a - b
    error = gap.std(ddof=1) / 20
    assert result.low == pytest.approx(gap.mean() - 1.645 * error, abs=0.15 * error)
    assert result.high == pytest.approx(gap.mean() + 1.645 * error, abs=0.15 * error)


def test_interval_covers_as_often_as_it_says_only_with_clusters():
    generator = np.random.default_rng(4)
    covered, covered_without = 0, 0
    clusters = np.repeat(range(60), 5)
    for repetition in range(250):
        gap = np.repeat(generator.normal(size=60), 5) + 0.3 * generator.normal(size=300)
        result = paired_difference(gap, np.zeros(300), clusters, seed=repetition, resamples=300)
        covered += result.low <= 0 <= result.high
        result = paired_difference(gap, np.zeros(300), seed=repetition, resamples=300)
        covered_without += result.low <= 0 <= result.high
    assert covered / 250 == pytest.approx(0.94, abs=0.04)
    assert covered_without / 250 < 0.75


def test_cases_of_an_image_move_together():
    # Every image's cases add up to 2 over 2 values, whichever images are drawn.
    values, images = np.tile([5.0, -3.0], 30), np.repeat(range(30), 2)
    together = bootstrap_interval(values, clusters=images, seed=0)
    assert (together.low, together.high) == (pytest.approx(1), pytest.approx(1))
    apart = bootstrap_interval(values, seed=0)
    assert apart.low < 0.5 < 1.5 < apart.high


def test_interval_of_a_ratio_covers_as_often_as_it_says_only_with_images():
    generator = np.random.default_rng(6)
    covered, covered_without = 0, 0
    for repetition in range(250):
        # Images with 1 to 9 cases of different sizes, errors shared within an image; ratio 3.
        images = np.repeat(range(60), generator.integers(1, 10, size=60))
        below = generator.integers(10, 200, size=len(images)).astype(float)
        above = below * (generator.gamma(3, size=60)[images] + generator.normal(size=len(images)))
        result = bootstrap_interval(above, below, images, 0.9, seed=repetition, resamples=300)
        covered += result.low <= 3 <= result.high
        result = bootstrap_interval(above, below, level=0.9, seed=repetition, resamples=300)
        covered_without += result.low <= 3 <= result.high
    assert covered / 250 == pytest.approx(0.88, abs=0.05)
    assert covered_without / 250 < 0.7


def test_interval_agrees_with_the_standard_error():
    generator = np.random.default_rng(7)
    images = np.repeat(range(200), 3)
    below = generator.integers(1, 9, size=600)
    above = below + generator.normal(size=200)[images]
    interval = bootstrap_interval(above, below, images, 0.6827, seed=0, resamples=5000)
    score = ratio_of_sums(above, below, images)
    assert (interval.high - interval.low) / 2 == pytest.approx(score.standard_error, rel=0.05)
    assert interval.level == 0.6827


def test_paired_difference_has_the_interval_of_its_differences():
    a, b, weights = np.random.default_rng(8).gamma(2, size=(3, 40))
    images = np.repeat(range(10), 4)
    paired = paired_difference(a, b, images, 0.8, seed=3, weights=weights, resamples=100)
    interval = bootstrap_interval(a - b, weights, images, 0.8, seed=3, resamples=100)
    assert (paired.low, paired.high) == (interval.low, interval.high)
    assert paired.difference == pytest.approx((a - b).sum() / weights.sum())


def test_images_in_which_nothing_counts_do_not_break_the_interval():
    interval = bootstrap_interval([6.0, 0.0, 0.0], [2.0, 0.0, 0.0], seed=0)
    assert (interval.low, interval.high) == (3, 3)


def test_the_seed_fixes_the_interval():
    a, b = np.random.default_rng(5).normal(size=(2, 30))
    assert paired_difference(a, b, seed=1) == paired_difference(a, b, seed=1)
    assert paired_difference(a, b, seed=1).low != paired_difference(a, b, seed=2).low


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_score([]), r"values of shape \(0,\)"),
        (lambda: mean_score([[1.0]]), r"values of shape \(1, 1\)"),
        (lambda: mean_score([1.0, math.nan]), r"values\[1\] = nan"),
        (lambda: mean_score([1.0, 2.0], [1]), r"clusters of shape \(1,\): expected \(2,\)"),
        (lambda: ratio_of_sums([1.0, 1.0], [0.0, 0.0]), "denominators from 0.0 to 0.0"),
        (lambda: ratio_of_sums([1.0, 1.0], [-1.0, 3.0]), "denominators from -1.0 to 3.0"),
        (lambda: ratio_of_sums([1.0], [1.0, 3.0]), "1 numerators and 2 denominators"),
        (lambda: paired_difference([1.0], [1.0, 2.0], seed=0), "1 a and 2 b"),
        (lambda: paired_difference([1.0], [1.0], level=95, seed=0), "level = 95"),
        (lambda: paired_difference([1.0], [1.0], seed=0, resamples=0), "resamples = 0"),
        (
            lambda: paired_difference([1.0], [1.0], seed=0, weights=[1.0, 2.0]),
            "1 a and 2 weights",
        ),
        (lambda: bootstrap_interval([1.0], [0.0], seed=0), "denominators from 0.0 to 0.0"),
        (lambda: bootstrap_interval([1.0], [1.0, 2.0], seed=0), "1 numerators and 2 denominators"),
        (lambda: bootstrap_interval([math.inf], seed=0), r"numerators\[0\] = inf"),
        (lambda: bootstrap_interval([1.0, 2.0], clusters=[1], seed=0), r"clusters of shape \(1,\)"),
        (lambda: bootstrap_interval([1.0], seed=0, level=0.0), "level = 0.0"),
    ],
)
def test_bad_values_are_refused(call, message):
    with pytest.raises(ConfigurationError, match=message):
        call()
