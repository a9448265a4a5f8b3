from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from condvae.calibration import assess_classes
from condvae.ground.configuration import ConfigurationError

DRAWS, CLASSES = 9, 4


def draw_labels(seed, n, sharpness=1.0, image_size=1):
    """Labels of completions (S,N) and truths (N); completions follow p**sharpness, truths p."""
    rng = np.random.default_rng(seed)
    p = np.repeat(rng.dirichlet(np.full(CLASSES, 0.7), size=n // image_size), image_size, axis=0)
    q = p**sharpness / (p**sharpness).sum(axis=1, keepdims=True)
    given = np.stack([draw(rng.random(n), q) for _ in range(DRAWS)])
    # Truths of the cases of one image are the same image: one random number for all.
    return given, draw(np.repeat(rng.random(n // image_size), image_size), p)


def draw(uniforms, p):
    return np.minimum((p.cumsum(axis=1) <= uniforms[:, None]).sum(axis=1), CLASSES - 1)


def test_scores_by_hand():
    # Case 0: counts 3, 1, 0, truth 0. Case 1: counts 0, 0, 4, truth 1.
    given = np.array([[0, 2], [0, 2], [1, 2], [0, 2]])
    found = assess_classes(given, np.array([0, 1]), 3, seed=0, simulations=9)
    nll = -np.log([(3 + 0.5) / (4 + 1.5), 0.5 / 5.5])
    assert found.nll.value == pytest.approx(nll.mean())
    # sum (p - t)² less sum p (1 - p) / 3.
    first = 0.25**2 + 0.25**2 - (0.75 * 0.25 + 0.25 * 0.75) / 3
    assert found.brier.value == pytest.approx((first + 2.0) / 2)
    # The likeliest classes have shares 3/4 and 1; the first is right, the second wrong.
    assert found.ece == pytest.approx((0.25 + 1.0) / 2)
    assert (found.draws, found.classes, found.n) == (4, 3, 2)
    full = [b for b in found.reliability if b.n]
    assert [(b.low, b.high, b.confidence, b.accuracy) for b in full] == [
        (0.7, 0.8, 0.75, 1.0),
        (0.9, 1.0, 1.0, 0.0),
    ]
    assert all(math.isnan(b.accuracy) for b in found.reliability if not b.n)


def test_excess_is_against_every_label_that_could_have_been_the_true_one():
    given, true = np.array([[0], [0], [2]]), np.array([2])
    found = assess_classes(given, true, 3, seed=0, simulations=9)
    pool, scores = [0, 0, 2, 2], []
    for index in range(4):
        rest = pool[:index] + pool[index + 1 :]
        p = np.bincount(rest, minlength=3) / 3
        target = np.eye(3)[pool[index]]
        brier = ((p - target) ** 2).sum() - (p * (1 - p)).sum() / 2
        scores.append((-np.log((3 * p[pool[index]] + 0.5) / 4.5), brier))
    nll, brier = np.mean(scores, axis=0)
    assert found.nll_excess.value == pytest.approx(found.nll.value - nll)
    assert found.brier_excess.value == pytest.approx(found.brier.value - brier)


def test_brier_score_does_not_depend_on_the_number_of_completions():
    rng = np.random.default_rng(0)
    p = np.array([0.6, 0.3, 0.1])
    true = rng.choice(3, size=6000, p=p)
    for draws in (2, 5, 40):
        given = rng.choice(3, size=(draws, 6000), p=p)
        found = assess_classes(given, true, 3, seed=0, simulations=1)
        assert found.brier.value == pytest.approx(1 - (p**2).sum(), abs=0.03)


def test_an_exact_sampler_is_not_blamed_for_having_few_completions():
    found = assess_classes(*draw_labels(1, 2000), CLASSES, seed=0)
    # With 9 completions the curve is far from the diagonal even then, as is the exact sampler's.
    assert found.ece > 0.05
    assert found.ece == pytest.approx(found.exact_ece, abs=0.03)
    assert found.p_value > 0.01
    for excess in (found.nll_excess, found.brier_excess):
        assert abs(excess.value) < 3.5 * excess.standard_error
    inside = [b.exact_low <= b.accuracy <= b.exact_high for b in found.reliability if b.n > 20]
    assert np.mean(inside) > 0.7


@pytest.mark.parametrize(("sharpness", "sign"), [(3.0, 1), (0.3, -1)])
def test_too_sure_and_not_sure_enough(sharpness, sign):
    found = assess_classes(*draw_labels(2, 2000, sharpness), CLASSES, seed=0)
    assert found.p_value == 0.002
    assert np.sign(found.ece - found.exact_ece) == sign
    assert sign * found.nll_excess.value > 5 * found.nll_excess.standard_error
    assert sign * found.brier_excess.value > 5 * found.brier_excess.standard_error


def test_p_values_hold_also_when_cases_share_an_image():
    images = np.repeat(np.arange(100), 3)
    clustered = []
    for seed in range(150):
        given, true = draw_labels(seed, 300, image_size=3)
        found = assess_classes(given, true, CLASSES, images, seed=seed, simulations=99)
        assert found.n == 100
        clustered.append(found)
    p_values = [found.p_value for found in clustered]
    assert stats.kstest(p_values, "uniform").pvalue > 0.001
    z = [f.nll_excess.value / f.nll_excess.standard_error for f in clustered]
    assert np.std(z) == pytest.approx(1, abs=0.2)


def test_accuracy_interval_is_wilsons():
    given = np.zeros((DRAWS, 20), int)
    true = np.repeat([0, 1], [15, 5])
    last = assess_classes(given, true, 2, seed=0, simulations=9).reliability[-1]
    z = stats.norm.ppf(0.975)
    centre = (15 + z**2 / 2) / (20 + z**2)
    half = z / (20 + z**2) * math.sqrt(15 * 5 / 20 + z**2 / 4)
    assert (last.n, last.confidence, last.accuracy) == (20, 1.0, 0.75)
    assert last.accuracy_low == pytest.approx(centre - half)
    assert last.accuracy_high == pytest.approx(centre + half)


def test_the_seed_fixes_everything():
    labels = draw_labels(3, 60)
    one, two = (assess_classes(*labels, CLASSES, seed=4, simulations=99) for _ in range(2))
    assert (one.p_value, one.exact_ece) == (two.p_value, two.exact_ece)


@pytest.mark.parametrize(
    ("given", "true", "classes", "message"),
    [
        ([[0]], [0], 2, r"predictions of shape \(1, 1\)"),
        ([[0], [1]], [0, 1], 2, r"labels of shape \(2,\)"),
        ([[0.0], [1.0]], [0], 2, "type float64"),
        ([[0], [2]], [0], 2, "predictions from 0 to 2: expected classes 0 to 1"),
        ([[0], [1]], [-1], 2, "labels from -1 to -1"),
        ([[0], [0]], [0], 1, "classes = 1"),
    ],
)
def test_bad_values_are_refused(given, true, classes, message):
    with pytest.raises(ConfigurationError, match=message):
        assess_classes(given, true, classes, seed=0)
