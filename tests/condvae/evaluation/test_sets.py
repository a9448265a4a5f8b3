from __future__ import annotations

import math

import numpy as np
import pytest

from condvae.evaluation import CaseScores
from condvae.evaluation.sets import _affordable, explain_missing, score_sets
from condvae.scores.definitions import METRICS


def make_score(completions, truths):
    n = len(truths)
    return CaseScores(
        *({}, {}, completions.astype(np.float32), truths.astype(np.float32)),
        *(np.empty((n, 0), np.int64), {}, np.empty((n, 2))),
    )


def test_several_cases_of_an_image_do_not_crowd_its_truth():
    # Equal laws: E density = 1, E coverage = 1 - prod (n - i) / (2 n - i), whatever the law.
    generator = np.random.default_rng(0)
    images = np.repeat(np.arange(60), 3)
    values = []
    for seed in range(60):
        truths = generator.normal(size=(60, 40))[images]
        completions = generator.normal(size=(180, 40))
        found = score_sets(make_score(completions, truths), np.arange(180), images, "x", seed)
        values.append((found["density"].value, found["manifold_coverage"].value))
        assert {score.n for score in found.values()} == {60}
    expected = [1, 1 - np.prod([(60 - i) / (120 - i) for i in range(1, 6)])]
    errors = np.std(values, axis=0) / math.sqrt(60)
    assert (np.abs(np.mean(values, axis=0) - expected) < 3 * errors).all()
    assert errors[0] < 0.05


def test_a_group_is_scored_by_its_own_cases():
    generator = np.random.default_rng(1)
    truths = generator.normal(size=(60, 2))
    completions = truths + np.where(np.arange(60) < 30, 0.0, 5.0)[:, None]
    score = make_score(completions, truths)
    images = np.arange(60) + 100
    for group, expected in ((np.arange(30), 0.0), (np.arange(30, 60), 50.0)):
        found = score_sets(score, group, images, "x", 0)
        assert found["frechet_distance"].value == pytest.approx(expected, abs=1e-4)
        assert set(found) <= set(METRICS)


def test_what_is_missing_is_explained():
    generator = np.random.default_rng(2)
    for n, dimensions in ((15, 2), (16, 2), (16, 6), (24, 12), (24, 13)):
        score = make_score(*generator.normal(size=(2, n, dimensions)))
        found = score_sets(score, np.arange(n), np.arange(n), "x", 0)
        text = explain_missing(n, dimensions)
        assert (text == "") == (len(found) == 11)
        for metric in ("frechet_distance", "frechet_distance_infinity", "p_ids", "u_ids"):
            assert (metric in found) != (f"{metric} needs" in text or not found)


def test_large_features_have_fewer_resamples():
    assert [_affordable(seconds, 5, 200) for seconds in (1e-6, 1.0, 100.0)] == [200, 30, 5]
