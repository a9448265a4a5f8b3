from __future__ import annotations

import numpy as np
import pytest

from condvae.calibration import (
    View,
    assess_ranks,
    nearest_references,
    other_references,
    rank_pixels,
)
from condvae.calibration.tarp import squared_distances
from condvae.configuration import ConfigurationError


def smooth_images(rng, n, size=6):
    """Grey images of smooth Gaussian fields of random brightness, uint8 (n, size²)."""
    steps = np.abs(np.arange(size)[:, None] - np.arange(size))
    line = np.exp(-steps / 2.0)
    field = np.kron(np.linalg.cholesky(line), np.linalg.cholesky(line))
    values = 128 + 40 * (rng.normal(size=(n, size * size)) @ field.T + rng.normal(size=(n, 1)) / 2)
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def test_distances():
    points = np.array([[0.0, 0.0], [1.0, 2.0]])
    assert squared_distances(points, np.array([[3.0, 4.0], [1.0, 1.0]])).tolist() == [25.0, 1.0]


def test_nearest_by_brute_force():
    rng = np.random.default_rng(0)
    images, bank = smooth_images(rng, 20), smooth_images(rng, 50)
    unobserved = rng.random(images.shape) < 0.5
    found = nearest_references(images, unobserved, bank)
    squares = np.square(bank.astype(float))
    assert np.array_equal(found, nearest_references(images, unobserved, bank, squares))
    for image, hidden, row in zip(images.astype(float), unobserved, found, strict=True):
        gaps = [((image - b)[~hidden] ** 2).sum() for b in bank.astype(float)]
        assert row == np.argmin(gaps)


def test_references_are_functions_of_the_observed_values():
    rng = np.random.default_rng(1)
    images, bank = smooth_images(rng, 20), smooth_images(rng, 50)
    unobserved = rng.random(images.shape) < 0.5
    changed = np.where(unobserved, rng.integers(0, 256, size=images.shape), images)

    found = nearest_references(images, unobserved, bank)
    assert np.array_equal(found, nearest_references(changed, unobserved, bank))


def test_a_sampler_that_ignores_the_image_is_found_by_its_own_references_only():
    rng = np.random.default_rng(2)
    n, draws = 600, 19
    truths, bank = smooth_images(rng, n), smooth_images(rng, 400)
    samples = smooth_images(rng, n * draws).reshape(draws, n, -1)
    unobserved = np.tile(np.repeat([False, True], 18), (n, 1))
    references = bank[nearest_references(truths, unobserved, bank)]
    others = other_references(references, np.arange(n), 0)
    ranks = rank_pixels(View(samples, truths, unobserved, references, others), seed=0)
    own = assess_ranks("own", ranks["tarp_y_pixels"], draws)
    assert own.p_value < 1e-10
    # Truths are nearer to what y predicts than draws that do not know y.
    assert own.shape.bias < -0.2
    assert assess_ranks("other", ranks["tarp_other_pixels"], draws).p_value > 0.001


@pytest.mark.parametrize(
    "images", [np.arange(10), np.repeat(np.arange(4), [3, 3, 1, 1]), np.array([7, 1, 7, 1])]
)
def test_others_are_of_another_image_and_all_are_used(images):
    for seed in range(20):
        found = other_references(np.arange(len(images))[:, None], images, seed)[:, 0]
        assert sorted(found) == list(range(len(images)))
        assert (images[found] != images).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: other_references(np.zeros((3, 1)), [1, 1, 2], 0), "2 of 3 cases share an image"),
        (lambda: other_references(np.zeros((3, 1)), [1, 2], 0), r"images of shape \(2,\)"),
        (
            lambda: nearest_references(np.zeros((2, 4)), np.zeros((2, 4)), np.zeros((5, 4))),
            "type float64",
        ),
        (
            lambda: nearest_references(np.zeros((2, 4)), np.zeros((2, 4), bool), np.zeros((5, 3))),
            r"bank of shape \(5, 3\)",
        ),
    ],
)
def test_bad_values_are_refused(call, message):
    with pytest.raises(ConfigurationError, match=message):
        call()
