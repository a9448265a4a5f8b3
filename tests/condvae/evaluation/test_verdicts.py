"""Verdicts on samplers whose faults are known: every picture has one level, seen in its first rows."""

import json
import math

import numpy as np
import pytest
import torch

from condvae.evaluation import (
    CaseScores,
    ChunkFolder,
    assess_calibration,
    score_cases,
    usable_draws,
)
from condvae.evaluation.bins import POOLED

SIZE, N, DRAWS, CLASSES = 8, 240, 19, 3
NOISE = 16.0


def to_pixels(values):
    return torch.from_numpy(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def draw_pictures(rng, levels, spread=1.0, shift=0.0):
    """uint8 (..., 1, SIZE, SIZE) about levels (...)."""
    noise = rng.normal(size=(*levels.shape, 1, SIZE, SIZE))
    return to_pixels(levels[..., None, None, None] + NOISE * (shift + spread * noise))


@pytest.fixture
def rng():
    return np.random.default_rng(11)


@pytest.fixture
def levels(rng):
    return rng.uniform(80, 175, N)


@pytest.fixture
def cases(make_case):
    # Two bins; every tenth image is in both.
    return [make_case(i, i % (N - N // 10), (2, 5)[i % 2], size=SIZE) for i in range(N)]


@pytest.fixture
def assess(cases, levels, rng, extractors, array_source, make_calibrator):
    """A function that judges completions (S,N,1,H,W)."""
    truths = draw_pictures(rng, levels)
    for n, case in enumerate(cases):
        # What is observed gives the level away.
        truths[n][:, torch.tensor(case.mask)] = round(float(levels[n]))
    bank = draw_pictures(rng, rng.uniform(80, 175, 300))
    calibrator = make_calibrator(cases, truths, bank=bank)

    def call(completions, *, labels=None, draws=DRAWS):
        scores = score_cases(
            array_source(completions),
            *(cases, truths, labels, extractors),
            calibrator=calibrator,
            folder=ChunkFolder(None),
        )
        return scores, assess_calibration(
            scores, cases, labels, completions=draws, classes=CLASSES, seed=0
        )

    return call


def every_draw(levels):
    return np.broadcast_to(levels, (DRAWS, N))


def words(found, group=POOLED):
    return found["verdicts"][group]["words"]


def test_an_exact_source_is_found_calibrated(assess, levels, rng, cases):
    labels = np.arange(N) % CLASSES
    scores, found = assess(draw_pictures(rng, every_draw(levels)), labels=labels)
    assert words(found) == ["calibrated at this n"]
    assert found["verdicts"][POOLED]["rejected"] == []
    assert found["verdicts"][POOLED]["rejected_features"] == []
    use = found["verdicts"][POOLED]["use_of_y"]
    assert use["low"] < 1 < use["high"]
    assert use["high"] - use["low"] < 0.3
    assert set(found["verdicts"]) == {"20_40", "60_80", POOLED}
    images = {case.image_id for case in cases}
    assert found["verdicts"][POOLED]["n"] == len(images)
    assert 0 < found["verdicts"][POOLED]["visible_bias"] < 1
    assert found["verdicts"][POOLED]["visible_spread"] > 1
    for row in found["coverage"]:
        assert abs(row["value"] - row["level"]) < 4 * row["standard_error"]
    assert {t["name"] for t in found["tests"]} == set(scores.ranks)
    for test in found["tests"]:
        assert (test["n"], test["draws"], sum(test["counts"])) == (len(images), 19, len(images))
        assert test["p_value"] <= test["adjusted_p_value"] <= 1
        # One case of each image; which one is the seed's choice.
        curve = test["ecdf"]
        steps = np.array(curve["ecdf"]) * len(images)
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-9)
        assert (np.diff(steps) >= 0).all()
        np.testing.assert_allclose(curve["points"], np.arange(1, 20) / 20)
        assert (np.array(curve["low"]) <= np.array(curve["high"])).all()
    classes = found["classes"]
    assert classes["nll"]["value"] == pytest.approx(scores.values["class_nll"].mean())
    assert classes["brier"]["value"] == pytest.approx(scores.values["class_brier"].mean())
    assert sum(b["n"] for b in classes["reliability"]) == classes["n"] == len(images)


@pytest.mark.parametrize(
    ("faults", "word"),
    [
        ({"spread": 0.6}, "too narrow"),
        ({"spread": 1.6}, "too wide"),
        ({"shift": 0.5}, "biased"),
    ],
)
def test_faults_are_named(assess, levels, rng, faults, word):
    _, found = assess(draw_pictures(rng, every_draw(levels), **faults))
    assert word in words(found)
    assert "calibrated at this n" not in words(found)
    rejected = found["verdicts"][POOLED]["rejected"]
    adjusted = {test["name"]: test["adjusted_p_value"] for test in found["tests"]}
    rejected_features = found["verdicts"][POOLED]["rejected_features"]
    assert rejected + rejected_features == [name for name, p in adjusted.items() if p <= 0.05]
    assert "hole_mean" in rejected
    by_level = {r["level"]: r["value"] for r in found["coverage"] if r["group"] == POOLED}
    for level, value in by_level.items():
        if word == "too narrow":
            assert value < level - 0.02
        if word == "too wide":
            assert value > level + 0.02
    hole = next(test for test in found["tests"] if test["name"] == "hole_mean")
    if word == "biased":  # truths are darker
        assert hole["bias"] < -0.5
    else:
        assert (hole["spread"] > 1) == (word == "too narrow")


def test_a_source_that_does_not_look_is_found_out(assess, levels, rng):
    elsewhere = rng.uniform(80, 175, (DRAWS, N))
    _, found = assess(draw_pictures(rng, elsewhere))
    assert words(found) == ["ignores y"]
    # The seam between levels shows in features of the whole picture, which are not blind to y.
    verdict = found["verdicts"][POOLED]
    assert verdict["rejected"] == ["tarp_y_pixels"]
    assert len(verdict["rejected_features"]) > 1
    assert verdict["summary"].startswith("Hidden pixels: ignores y: ")
    assert "tests reject" in verdict["summary"].split("Completions differ")[1]
    assert abs(verdict["use_of_y"]["value"]) < 0.2


def test_a_source_that_follows_half_of_what_it_sees_does_not_ignore_it(assess, levels, rng):
    # Wide enough to hide from every test that is blind to y, and yet not exact.
    towards = 127.5 + 0.75 * (levels - 127.5) + rng.uniform(-12, 12, (DRAWS, N))
    _, found = assess(draw_pictures(rng, towards))
    verdict = found["verdicts"][POOLED]
    assert verdict["use_of_y"]["low"] > 0.6
    assert verdict["use_of_y"]["high"] < 0.9
    assert "tarp_y_pixels" in verdict["rejected"]
    assert "ignores y" not in verdict["words"]
    assert "calibrated at this n" not in verdict["words"]


def test_coverage_pools_counts_over_each_group(assess, levels, rng, cases):
    scores, found = assess(draw_pictures(rng, every_draw(levels)))
    metrics = {
        0.5: "coverage_50",
        0.8: "coverage_80",
        0.9: "posterior_coverage",
        0.95: "coverage_95",
    }
    for name, chosen in (("20_40", cases[0].bin), ("60_80", cases[1].bin), (POOLED, None)):
        here = np.array([chosen is None or case.bin == chosen for case in cases])
        for level, metric in metrics.items():
            row = [r for r in found["coverage"] if (r["group"], r["level"]) == (name, level)]
            ratio = scores.values[metric][here].sum() / scores.weights[metric][here].sum()
            assert [r["value"] for r in row] == pytest.approx([ratio])
            assert row[0]["n"] == here.sum()


def test_the_result_is_strict_json(assess, levels, rng):
    labels = np.arange(N) % CLASSES
    _, found = assess(draw_pictures(rng, every_draw(levels)), labels=labels)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    # Confidences of one third and more: the lowest bin is empty.
    assert found["classes"]["reliability"][0]["accuracy"] is None


def few_scores(n):
    rng = np.random.default_rng(0)
    counts, weights = np.full(n, 20.0), np.full(n, 50.0)
    names = ("coverage_50", "coverage_80", "posterior_coverage", "coverage_95")
    return CaseScores(
        dict.fromkeys(names, counts),
        dict.fromkeys(names, weights),
        *(np.zeros((n, 2), np.float32), np.zeros((n, 2), np.float32)),
        np.empty((n, 0), np.int64),
        {
            name: rng.integers(0, 5, n)
            for name in ("pixel_1", "tarp_y_pixels", "feature_projection_1")
        },
        rng.normal(size=(n, 2)),
    )


@pytest.mark.parametrize("n", [1, 3])
def test_few_cases_give_none_where_nothing_is_defined(make_case, n):
    cases = [make_case(i, i, 3) for i in range(n)]
    found = assess_calibration(few_scores(n), cases, None, completions=4, classes=3, seed=0)
    json.dumps(found, allow_nan=False)
    assert found["classes"] is None
    verdict = found["verdicts"][POOLED]
    assert verdict["visible_spread"] is None
    assert "nan" not in verdict["summary"]
    errors = {row["standard_error"] for row in found["coverage"]}
    assert errors == {None if n == 1 else 0.0}
    assert usable_draws(4) == found["tests"][0]["draws"]
    assert all(math.isfinite(test["spread"]) for test in found["tests"])
