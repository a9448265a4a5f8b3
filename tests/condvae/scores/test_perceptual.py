from __future__ import annotations

import math

import numpy as np
import pytest

from condvae.ground.configuration import ConfigurationError
from condvae.scores.extraction import extract_features
from condvae.scores.perceptual import (
    best_of_k,
    embedding_distances,
    faithfulness_weighted_variance,
    mean_pairwise_distance,
    perceptual_embedding,
)

LAYERS = ("block1", "block2", "block3")


def slow_distance(first, second, weights=None):
    """Equation 1 of Zhang et al. 2018, position by position, for two images' layer maps (C,H,W)."""
    total = 0.0
    for name in first:
        a, b = first[name].astype(np.float64), second[name].astype(np.float64)
        _, height, width = a.shape
        layer = 0.0
        for row in range(height):
            for column in range(width):
                u, v = a[:, row, column], b[:, row, column]
                u = u / np.linalg.norm(u) if u.any() else u
                v = v / np.linalg.norm(v) if v.any() else v
                layer += ((1 if weights is None else weights[name]) * (u - v) ** 2).sum()
        total += layer / (height * width)
    return total


def random_maps(count, seed=0):
    generator = np.random.default_rng(seed)
    shapes = {"one": (5, 4, 6), "two": (3, 2, 3)}
    maps = {
        name: np.maximum(generator.normal(size=(count, *shape)), 0).astype(np.float32)
        for name, shape in shapes.items()
    }
    maps["one"][0, :, 1, 1] = 0  # a position without any feature
    return maps


def test_squared_distance_of_embeddings_is_equation_one():
    maps = random_maps(6)
    embedded = perceptual_embedding(maps)
    assert embedded.dtype == np.float32
    assert embedded.shape == (6, 5 * 24 + 3 * 6)
    for i in range(6):
        for j in range(6):
            first, second = ({k: v[n] for k, v in maps.items()} for n in (i, j))
            measured = ((embedded[i] - embedded[j]) ** 2).sum()
            assert measured == pytest.approx(slow_distance(first, second), abs=1e-5)


def test_channel_weights_weight_squared_differences():
    maps = random_maps(4)
    weights = {"two": np.array([0.0, 3.0, 1.0]), "one": np.array([1.0, 0.5, 0.0, 2.0, 7.0])}
    embedded = perceptual_embedding(maps, weights)
    for i in range(4):
        first, second = ({k: v[n] for k, v in maps.items()} for n in (i, 0))
        expected = slow_distance(first, second, weights)
        assert ((embedded[i] - embedded[0]) ** 2).sum() == pytest.approx(expected, abs=1e-5)
    ones = {name: np.ones(values.shape[1]) for name, values in maps.items()}
    np.testing.assert_array_equal(perceptual_embedding(maps, ones), perceptual_embedding(maps))


def test_distances_known_by_hand():
    first = np.zeros((1, 2, 3, 3), dtype=np.float32)
    second = first.copy()
    first[:, 0], second[:, 1] = 4.0, 0.1  # right angles everywhere, lengths do not matter
    a, b = perceptual_embedding({"x": first}), perceptual_embedding({"x": second})
    assert ((a - b) ** 2).sum() == pytest.approx(2.0, rel=1e-6)
    half = first.copy()
    half[:, :, 0], half[:, :, 1:] = second[:, :, 0], first[:, :, 1:]  # one row of three differs
    c = perceptual_embedding({"x": half})
    assert ((a - c) ** 2).sum() == pytest.approx(2 / 3, rel=1e-6)


def test_best_of_k_is_the_least_distance():
    generator = np.random.default_rng(1)
    samples, truths = generator.normal(size=(7, 5, 11)), generator.normal(size=(5, 11))
    expected = [min(((samples[s, n] - truths[n]) ** 2).sum() for s in range(7)) for n in range(5)]
    np.testing.assert_allclose(best_of_k(samples, truths), expected, rtol=1e-12)
    samples[4, 2] = truths[2]
    assert best_of_k(samples, truths)[2] == 0


def test_embedding_distances_are_those_of_each_sample():
    generator = np.random.default_rng(4)
    samples, references = generator.normal(size=(3, 5, 7)), generator.normal(size=(5, 7))
    expected = ((samples - references) ** 2).sum(2)
    np.testing.assert_allclose(embedding_distances(samples, references), expected, rtol=1e-12)


def test_best_of_more_is_never_worse():
    samples, truths = np.random.default_rng(5).normal(size=(100, 20, 3)), np.zeros((20, 3))
    values = [best_of_k(samples[:k], truths).mean() for k in (1, 10, 100)]
    assert values[0] > values[1] > values[2]  # so K is part of the number


def test_faithfulness_weighted_variance_by_hand():
    to_truth = np.array([[0.0, 0.2], [0.08, 0.5]])
    to_mean = np.array([[0.3, 0.1], [0.4, 0.2]])
    expected = [
        0.3 + math.exp(-0.08 / 0.08) * 0.4,
        math.exp(-0.2 / 0.08) * 0.1 + math.exp(-0.5 / 0.08) * 0.2,
    ]
    np.testing.assert_allclose(
        faithfulness_weighted_variance(to_truth, to_mean, sigma=0.2), expected, rtol=1e-12
    )
    wide = faithfulness_weighted_variance(to_truth, to_mean, sigma=1e6)
    np.testing.assert_allclose(wide, to_mean.sum(0), rtol=1e-6)  # every sample counts
    collapsed = faithfulness_weighted_variance(to_truth, np.zeros((2, 2)), sigma=0.2)
    np.testing.assert_array_equal(collapsed, 0)
    far = faithfulness_weighted_variance(to_truth + 10, to_mean, sigma=0.01)
    np.testing.assert_array_equal(far, 0)  # and does not overflow


def test_mean_pairwise_distance_is_the_mean_over_pairs():
    generator = np.random.default_rng(2)
    samples = (100 + generator.normal(size=(6, 4, 9))).astype(np.float32)  # far from the origin
    expected = np.mean(
        [
            ((samples[i] - samples[j]).astype(np.float64) ** 2).sum(1)
            for i in range(6)
            for j in range(6)
            if i != j
        ],
        axis=0,
    )
    np.testing.assert_allclose(mean_pairwise_distance(samples), expected, rtol=1e-5)
    np.testing.assert_array_equal(mean_pairwise_distance(np.ones((3, 2, 4))), [0, 0])


def test_noise_moves_images_away(trained, digits):
    network, _ = trained
    images = digits[1][0][:100].numpy().astype(int)
    noise = np.random.default_rng(3).normal(size=images.shape)
    truth = perceptual_embedding(extract_features(network, images.astype(np.uint8), layers=LAYERS))
    distances = []
    for level in (5, 20, 60):
        noisy = np.clip(images + level * noise, 0, 255).astype(np.uint8)
        embedded = perceptual_embedding(extract_features(network, noisy, layers=LAYERS))
        distances.append(best_of_k(embedded[None], truth).mean())
    assert 0 < distances[0] < distances[1] < distances[2]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: perceptual_embedding({}), "expected at least one"),
        (lambda: perceptual_embedding({"a": np.zeros((2, 3))}), r"\(N, C, H, W\)"),
        (
            lambda: perceptual_embedding({"a": np.ones((2, 1, 1, 1)), "b": np.ones((3, 1, 1, 1))}),
            "same number of images",
        ),
        (lambda: best_of_k(np.ones((2, 3, 4)), np.ones((2, 4))), r"references of shape \(2, 4\)"),
        (lambda: best_of_k(np.ones((3, 4)), np.ones((3, 4))), r"expected \(S, N, E\)"),
        (lambda: mean_pairwise_distance(np.ones((1, 3, 4))), "S >= 2"),
        (
            lambda: perceptual_embedding({"a": np.ones((2, 3, 1, 1))}, {"b": np.ones(3)}),
            "weights of b: expected those of a",
        ),
        (
            lambda: perceptual_embedding({"a": np.ones((2, 3, 1, 1))}, {"a": np.ones(2)}),
            r"layer a of shape \(2,\)",
        ),
        (
            lambda: perceptual_embedding({"a": np.ones((2, 3, 1, 1))}, {"a": np.array([1, -1, 1])}),
            "all >= 0",
        ),
        (
            lambda: faithfulness_weighted_variance(np.ones((2, 3)), np.ones((3, 2)), 1.0),
            r"\(2, 3\) and \(3, 2\)",
        ),
        (
            lambda: faithfulness_weighted_variance(np.ones((2, 3)), np.ones((2, 3)), 0.0),
            "sigma = 0.0",
        ),
    ],
)
def test_bad_shapes_are_refused(call, message):
    with pytest.raises(ConfigurationError, match=message):
        call()
