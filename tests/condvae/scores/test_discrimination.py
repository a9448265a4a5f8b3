from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.svm import LinearSVC

from condvae.ground.configuration import ConfigurationError
from condvae.scores.discrimination import held_out_discrimination, in_sample_discrimination


def test_in_sample_is_the_published_recipe():
    generator = np.random.default_rng(0)
    truths = generator.normal(2, 1, size=(150, 6))
    drawn = truths + 0.8 * generator.normal(size=(150, 6)) + 0.3
    inputs, classes = np.concatenate([truths, drawn]), np.array([1] * 150 + [0] * 150)
    svm = LinearSVC(dual=False)
    svm.fit(inputs, classes)
    paired, unpaired = in_sample_discrimination(drawn, truths, extractor="x")
    assert unpaired.value == pytest.approx(1 - svm.score(inputs, classes), abs=1e-12)
    better = svm.decision_function(drawn) > svm.decision_function(truths)
    assert paired.value == pytest.approx(better.mean())
    assert 0 < paired.value < unpaired.value < 0.5
    assert paired.standard_error == pytest.approx(better.std(ddof=1) / math.sqrt(150))


def test_equal_laws_need_many_images_in_sample_but_not_held_out():
    generator = np.random.default_rng(1)
    dimensions, inside, outside = 40, {}, {}
    for n in (80, 400, 2000):
        scores = []
        for _ in range(max(4, 2400 // n)):
            a, b = generator.normal(size=(2, n, dimensions))
            scores.append(
                [
                    score.value
                    for call in (in_sample_discrimination, held_out_discrimination)
                    for score in call(a, b, extractor="x")
                ]
            )
        means, spread = np.mean(scores, axis=0), np.std(scores, axis=0) / math.sqrt(len(scores))
        inside[n], outside[n] = means[:2], means[2:]
        np.testing.assert_allclose(means[2:], 0.5, atol=4 * max(spread[2:]))
    assert (inside[80] < 0.3).all()
    assert (inside[80] < inside[400]).all()
    assert (inside[400] < inside[2000]).all()
    assert (inside[2000] < 0.5).all()


def test_in_sample_is_zero_when_features_outnumber_images():
    a, b = np.random.default_rng(2).normal(size=(2, 20, 60))
    with pytest.raises(ConfigurationError, match="20 rows of features with 60 dimensions"):
        in_sample_discrimination(a, b, extractor="x")
    for score in in_sample_discrimination(a, b, extractor="x", force=True):
        assert score.value == 0


def test_pairs_of_one_image_are_never_on_both_sides():
    # Every image has one feature of its own: whoever has seen it recognises its other rows.
    generator = np.random.default_rng(3)
    images = np.repeat(np.arange(30), 6)
    together, apart = [], []
    for seed in range(10):
        a, b = generator.normal(size=(2, 30, 40))[:, images]
        together.append(
            held_out_discrimination(a, b, extractor="x", clusters=images, seed=seed)[1].value
        )
        apart.append(held_out_discrimination(a, b, extractor="x", seed=seed)[1].value)
    assert np.mean(together) == pytest.approx(0.5, abs=0.08)
    assert np.mean(apart) < 0.1


def test_completions_equal_to_their_images():
    truths = np.random.default_rng(4).normal(size=(50, 3))
    for call in (in_sample_discrimination, held_out_discrimination):
        paired, unpaired = call(truths.copy(), truths, extractor="x")
        assert paired.value == 0  # published: strictly more real
        assert unpaired.value == 0.5


def test_plain_fakes_are_told():
    truths = np.random.default_rng(5).normal(size=(60, 3))
    for call in (in_sample_discrimination, held_out_discrimination):
        for score in call(truths + 100, truths, extractor="x"):
            assert (score.value, score.n) == (0, 60)


def test_held_out_scores_are_fixed_by_the_seed_and_not_by_global_randomness():
    a, b = np.random.default_rng(6).normal(size=(2, 60, 4))
    first = held_out_discrimination(a, b, extractor="x", seed=1)
    np.random.seed(99)  # noqa: NPY002
    assert first == held_out_discrimination(a, b, extractor="x", seed=1)
    assert first[0].settings == {"folds": 5}
    seeds = {held_out_discrimination(a, b, extractor="x", seed=s)[1].value for s in range(6)}
    assert len(seeds) > 1


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((9, 2), (8, 2)), {}, "9 completions and 8 true images"),
        (((9, 2), (9, 2)), {"folds": 1}, "folds = 1: expected 2 to 9"),
        (((9, 2), (9, 2)), {"clusters": np.repeat([0, 1, 2], 3)}, "folds = 5: expected 2 to 3"),
        (((9,), (9, 2)), {}, r"features of shape \(9,\)"),
    ],
)
def test_bad_features_are_refused(shapes, options, message):
    with pytest.raises(ConfigurationError, match=message):
        held_out_discrimination(*(np.ones(shape) for shape in shapes), extractor="x", **options)
