from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from condvae.calibration import View, rank_classes, rank_features, rank_pixels
from condvae.calibration.statistics import class_log_odds
from condvae.ground.configuration import ConfigurationError

DRAWS, CASES, DIMENSIONS = 19, 2000, 12


def exchangeable(seed=0, levels=6):
    """Draws and truths from one law per case, uint8 with many ties, and masks."""
    rng = np.random.default_rng(seed)
    level = rng.integers(0, levels, size=(1, CASES, 1))
    images = (level + rng.integers(0, 3, size=(DRAWS + 1, CASES, DIMENSIONS))).astype(np.uint8)
    unobserved = rng.random((CASES, DIMENSIONS)) < 0.4
    unobserved[:, 3] = True
    images[:] = np.where(unobserved, images, images[0])
    references = rng.integers(0, 9, size=(2, CASES, DIMENSIONS)).astype(np.uint8)
    return View(images[:-1], images[-1], unobserved, *references)


def part_of(view, rows):
    return View(
        view.samples[:, rows],
        view.truths[rows],
        None if view.unobserved is None else view.unobserved[rows],
        view.references[rows],
        view.other_references[rows],
    )


def test_names():
    names = list(rank_pixels(exchangeable(), seed=0, pixels=2, projections=1))
    assert names == [
        *("pixel_1", "pixel_2", "hole_mean", "projection_1"),
        *("tarp_y_pixels", "tarp_other_pixels"),
    ]
    view = exchangeable()
    plain = View(view.samples, view.truths)
    assert list(rank_features(plain, seed=0, projections=1)) == ["feature_projection_1"]


def test_every_statistic_of_an_exact_sampler_has_uniform_ranks():
    view = exchangeable()
    features = View(view.samples, view.truths, None, view.references, view.other_references)
    logits = np.random.default_rng(1).normal(size=(DRAWS + 1, CASES, 4)).round()
    ranks = rank_pixels(view, seed=0) | rank_features(features, seed=0)
    ranks |= rank_classes(logits[:-1], logits[-1], seed=0)
    assert len(ranks) == 4 + 1 + 8 + 2 + 8 + 2 + 1
    for values in ranks.values():
        assert stats.chisquare(np.bincount(values, minlength=DRAWS + 1)).pvalue > 1e-4


def test_identical_images_tie_in_every_statistic():
    view = exchangeable()
    same = np.broadcast_to(view.truths, view.samples.shape)
    ranks = rank_pixels(
        View(same, view.truths, view.unobserved, view.references, view.other_references), seed=0
    )
    features = np.random.default_rng(2).normal(size=(CASES, 30)).astype(np.float32)
    batches = features * (1 + 1e-6 * np.random.default_rng(3).normal(size=(DRAWS, 1, 1)))
    ranks |= rank_features(View(batches, features, None, features + 1, features - 1), seed=0)
    for values in ranks.values():
        assert stats.chisquare(np.bincount(values, minlength=DRAWS + 1)).pvalue > 1e-4


def test_statistics_by_hand():
    rng = np.random.default_rng(4)
    view = exchangeable()
    # Floats do not tie, so ranks are plain counts.
    samples = rng.normal(size=(DRAWS, CASES, DIMENSIONS))
    truths = rng.normal(size=(CASES, DIMENSIONS))
    found = rank_pixels(
        View(samples, truths, view.unobserved, view.references, view.other_references), seed=0
    )
    hidden = view.unobserved

    def rank(statistic):
        return (statistic(samples) < statistic(truths)).sum(axis=0)

    def distance(references):
        return lambda x: np.sqrt((hidden * (x - references.astype(float)) ** 2).sum(axis=-1))

    assert np.array_equal(found["hole_mean"], rank(lambda x: (x * hidden).sum(-1) / hidden.sum(1)))
    assert np.array_equal(found["tarp_y_pixels"], rank(distance(view.references)))
    assert np.array_equal(found["tarp_other_pixels"], rank(distance(view.other_references)))
    # A pixel's rank is that of one of the unobserved values, each about as often as any other.
    everywhere = (samples < truths).sum(axis=0)
    possible = (everywhere == found["pixel_1"][:, None]) & hidden
    assert possible.any(axis=1).all()
    assert not np.array_equal(found["pixel_1"], found["pixel_2"])
    # A projection is the same signed sum for every case: only one choice of signs fits them all.
    few = View(samples[:, :, :3], truths[:, :3])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 3)).reshape(3, -1)
    fits = [
        (
            ((few.samples @ s) < (few.truths @ s)).sum(axis=0)
            == rank_pixels(few, seed=0)["projection_1"]
        )
        for s in signs.T
    ]
    assert sum(fit.all() for fit in fits) == 1


def test_chosen_values_are_spread_over_the_hole():
    view = exchangeable()
    # Only one value differs between truth and draws, by its position.
    samples = np.zeros((1, CASES, DIMENSIONS))
    hits = []
    for position in range(DIMENSIONS):
        truths = np.zeros((CASES, DIMENSIONS))
        truths[:, position] = 1.0
        ranks = rank_pixels(View(samples, truths, view.unobserved), seed=0)["pixel_1"]
        below = View(samples, -truths, view.unobserved)
        hits.append((ranks == 1) & (rank_pixels(below, seed=0)["pixel_1"] == 0))
    chosen = np.array(hits).T
    assert (chosen.sum(axis=1) == 1).all()
    assert not (chosen & ~view.unobserved).any()
    expected = (view.unobserved / view.unobserved.sum(axis=1, keepdims=True)).sum(axis=0)
    np.testing.assert_allclose(chosen.sum(axis=0), expected, atol=5 * np.sqrt(expected.max()))


def test_chunks_do_not_matter():
    view = exchangeable()
    features = View(view.samples, view.truths, None, view.references, view.other_references)
    logits = np.random.default_rng(5).normal(size=(DRAWS + 1, CASES, 3)).round()
    chunks = [slice(0, 7), slice(7, 1500), slice(1500, CASES)]
    for call in (
        lambda rows: rank_pixels(part_of(view, rows), seed=1, first=rows.start),
        lambda rows: rank_features(part_of(features, rows), seed=1, first=rows.start),
        lambda rows: rank_classes(logits[:-1, rows], logits[-1, rows], seed=1, first=rows.start),
    ):
        whole, parts = call(slice(0, CASES)), [call(rows) for rows in chunks]
        for name, values in whole.items():
            assert np.array_equal(values, np.concatenate([part[name] for part in parts]))


def test_log_odds_of_the_likeliest_class_on_average():
    probabilities = np.array([[[0.5, 0.3, 0.2]], [[0.1, 0.6, 0.3]], [[0.2, 0.5, 0.3]]])
    logits = np.log(probabilities) + 4
    draws, truths = class_log_odds(logits[:2], logits[2])
    expected = np.array([0.3, 0.6, 0.5])  # class 1 has mean 0.47
    np.testing.assert_allclose(draws[:, 0], np.log(expected / (1 - expected))[:2])
    np.testing.assert_allclose(truths, np.log(expected / (1 - expected))[2:])


def test_choosing_the_class_by_the_truth_alone_would_be_wrong():
    logits = 2 * np.random.default_rng(6).normal(size=(DRAWS + 1, CASES, 5))
    fair = rank_classes(logits[:-1], logits[-1], seed=0)["class_probability"]
    assert stats.chisquare(np.bincount(fair, minlength=DRAWS + 1)).pvalue > 0.001
    own = logits[-1].argmax(axis=1)
    values = np.take_along_axis(logits, np.tile(own[None, :, None], (DRAWS + 1, 1, 1)), axis=2)
    favoured = (values[:-1, :, 0] < values[-1, :, 0]).sum(axis=0)
    assert stats.chisquare(np.bincount(favoured, minlength=DRAWS + 1)).pvalue < 1e-100


def test_log_odds_do_not_saturate():
    logits = np.array([[[800.0, 0.0]], [[900.0, 0.0]], [[850.0, 0.0]]])
    assert rank_classes(logits[:2], logits[2], seed=0)["class_probability"].tolist() == [1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: View(np.zeros((2, 3)), np.zeros(3)), r"samples of shape \(2, 3\)"),
        (lambda: View(np.zeros((2, 3, 4)), np.zeros((3, 5))), r"truths of shape \(3, 5\)"),
        (
            lambda: View(np.zeros((2, 1, 4)), np.zeros((1, 4)), None, np.zeros(4)),
            r"references of shape \(4,\)",
        ),
        (
            lambda: View(np.zeros((2, 2, 1)), np.zeros((2, 1)), np.array([[True], [False]])),
            "case 1 of the chunk hides nothing",
        ),
        (lambda: rank_features(exchangeable(), seed=0), "expected None"),
        (lambda: rank_classes(np.zeros((2, 3, 4)), np.zeros((3, 5)), seed=0), "logits of shapes"),
        (lambda: rank_classes(np.zeros((2, 3, 1)), np.zeros((3, 1)), seed=0), "two classes"),
    ],
)
def test_bad_values_are_refused(call, message):
    with pytest.raises(ConfigurationError, match=message):
        call()
