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
from condvae.calibration.ranks import case_uniforms
from condvae.calibration.tarp import squared_distances
from condvae.ground.configuration import ConfigurationError

NO_TIES = np.zeros(600)


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
    found = nearest_references(images, unobserved, bank, uniforms=NO_TIES[:20])
    squares = np.square(bank.astype(float))
    assert np.array_equal(
        found, nearest_references(images, unobserved, bank, squares, uniforms=NO_TIES[:20])
    )
    for image, hidden, row in zip(images.astype(float), unobserved, found, strict=True):
        gaps = [((image - b)[~hidden] ** 2).sum() for b in bank.astype(float)]
        assert row == np.argmin(gaps)


def test_references_are_functions_of_the_observed_values():
    rng = np.random.default_rng(1)
    images, bank = smooth_images(rng, 20), smooth_images(rng, 50)
    unobserved = rng.random(images.shape) < 0.5
    changed = np.where(unobserved, rng.integers(0, 256, size=images.shape), images)

    found = nearest_references(images, unobserved, bank, uniforms=NO_TIES[:20])
    assert np.array_equal(
        found, nearest_references(changed, unobserved, bank, uniforms=NO_TIES[:20])
    )


def test_a_sampler_that_ignores_the_image_is_found_by_its_own_references_only():
    rng = np.random.default_rng(2)
    n, draws = 600, 19
    truths, bank = smooth_images(rng, n), smooth_images(rng, 400)
    samples = smooth_images(rng, n * draws).reshape(draws, n, -1)
    unobserved = np.tile(np.repeat([False, True], 18), (n, 1))
    references = bank[nearest_references(truths, unobserved, bank, uniforms=NO_TIES)]
    others = other_references(references, np.arange(n), 0)
    ranks = rank_pixels(View(samples, truths, unobserved, references, others), seed=0)
    own = assess_ranks("own", ranks["tarp_y_pixels"], draws)
    assert own.p_value < 1e-10
    # Truths are nearer to what y predicts than draws that do not know y.
    assert own.shape.bias < -0.2
    assert assess_ranks("other", ranks["tarp_other_pixels"], draws).p_value > 0.001


def classes_of(rng, n, spread):
    """Labels (n,), 0 to 2, their one-hot vectors, and (n,16) images around a level of the class."""
    labels = rng.integers(3, size=n)
    images = (
        60.0 + 30 * labels[:, None] + spread * rng.normal(size=(n, 1)) + rng.normal(size=(n, 16))
    )
    return labels, np.eye(3)[labels], images


def test_equally_near_images_are_all_taken_equally_often():
    rng = np.random.default_rng(3)
    bank_labels, bank, _ = classes_of(rng, 12, 0.0)
    labels, signatures, _ = classes_of(rng, 6000, 0.0)
    everything = np.zeros(signatures.shape, bool)
    uniforms = case_uniforms("ties", 0, 0, len(labels))
    found = nearest_references(signatures, everything, bank, uniforms=uniforms)
    assert np.array_equal(bank_labels[found], labels)
    for label in range(3):
        counts = np.bincount(found[labels == label], minlength=12)[bank_labels == label]
        expected = counts.sum() / len(counts)
        # Five standard deviations of a binomial count.
        assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)
    # The same numbers, the same images; other numbers, others.
    again = nearest_references(signatures[50:], everything[50:], bank, uniforms=uniforms[50:])
    assert np.array_equal(again, found[50:])
    others = case_uniforms("ties", 1, 0, len(labels))
    assert (nearest_references(signatures, everything, bank, uniforms=others) != found).mean() > 0.5


@pytest.mark.parametrize("knows", [True, False])
def test_among_labels_a_sampler_is_found_where_it_ignores_them_and_only_there(knows):
    rng = np.random.default_rng(4)
    n, draws = 600, 19
    _, bank_signatures, bank = classes_of(rng, 300, 8.0)
    labels, signatures, truths = classes_of(rng, n, 8.0)
    repeated = np.tile(labels if knows else rng.permutation(labels), (draws, 1))
    levels = 60.0 + 30 * repeated[..., None] + 8.0 * rng.normal(size=(draws, n, 1))
    samples = levels + rng.normal(size=(draws, n, 16))
    everything = np.zeros(signatures.shape, bool)
    uniforms = case_uniforms("ties", 0, 0, n)
    found = nearest_references(signatures, everything, bank_signatures, uniforms=uniforms)
    view = View(samples, truths, None, bank[found], other_references(bank[found], np.arange(n), 0))
    test = assess_ranks("own", rank_pixels(view, seed=0)["tarp_y_pixels"], draws)
    assert (test.p_value > 0.001) == knows


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
            lambda: nearest_references(
                np.zeros((2, 4)), np.zeros((2, 4)), np.zeros((5, 4)), uniforms=[0, 0]
            ),
            "type float64",
        ),
        (
            lambda: nearest_references(
                np.zeros((2, 4)), np.zeros((2, 4), bool), np.zeros((5, 3)), uniforms=[0, 0]
            ),
            r"bank of shape \(5, 3\)",
        ),
        (
            lambda: nearest_references(
                np.zeros((2, 4)), np.zeros((2, 4), bool), np.zeros((5, 4)), uniforms=[0]
            ),
            r"uniforms of shape \(1,\): expected \(2,\)",
        ),
    ],
)
def test_bad_values_are_refused(call, message):
    with pytest.raises(ConfigurationError, match=message):
        call()
