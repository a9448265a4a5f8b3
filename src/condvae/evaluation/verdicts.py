"""Calibration of one source in words and numbers: verdicts, rank tests, coverage, classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from condvae.calibration import (
    LEVELS,
    ObservationUse,
    RankTest,
    Verdict,
    assess_all_ranks,
    assess_classes,
    assess_use,
    ecdf_band,
    judge,
    one_case_per_image,
    tabulate_coverage,
)
from condvae.calibration.verdict import IGNORES_Y, MISCALIBRATED
from condvae.evaluation.bins import POOLED, group_cases
from condvae.evaluation.calibrator import usable_draws
from condvae.evaluation.case_scores import CaseScores
from condvae.evaluation.cases import EvaluationCase
from condvae.scores.definitions import coverage_metric

__all__ = ["assess_calibration"]

# Only a sampler that surely uses less than this share of what y says is said to ignore it.
MOST_USED = 0.5


def assess_calibration(
    score: CaseScores,
    cases: Sequence[EvaluationCase],
    labels: NDArray[np.int64] | None,
    *,
    completions: int,
    classes: int,
    seed: int,
) -> dict[str, Any]:
    """Judge the calibration of one source, over all cases and in every bin.

    Rank tests take one case of each image, so that their p-values hold; coverage and class scores
    take all cases, clustered by image. The classes judge sampler and classifier together, and do not
    enter the verdicts.

    Args:
        score: Of N cases.
        cases: N cases.
        labels: (N,) true classes, None where they are not known.
        completions: S.
        classes: Number of classes.
        seed: Chooses the case of each image.

    Returns:
        Strict JSON, None for what is not defined. ``verdicts``: group -> ``words, summary, n,
        rejected, rejected_features, visible_bias, visible_spread, use_of_y`` (groups are bins of
        observed share and ``pooled``), words from tests of hidden pixels, Holm's correction over
        these and over those of features apart;
        ``tests``: of all cases, one entry per statistic with ``name, n, draws, counts, p_value,
        adjusted_p_value, bias, spread`` and ``ecdf`` (``points, ecdf, low, high, level``);
        ``coverage``: ``group, level, value, standard_error, n``; ``classes``: None or the class
        calibration with its ``reliability`` curve.
    """
    images = np.array([case.image_id for case in cases])
    draws = usable_draws(completions)
    groups = group_cases(cases)
    verdicts = {
        name: _judge(
            {statistic: ranks[group] for statistic, ranks in score.ranks.items()},
            score.gaps[group],
            draws,
            images[group],
            seed,
        )
        for name, group in groups.items()
    }
    chosen = one_case_per_image(images, seed)
    pooled = verdicts[POOLED]
    tests = [(test, v.adjusted[test.name]) for v in pooled[:2] for test in v.tests]
    found = {
        "verdicts": {name: _describe_verdicts(*found) for name, found in verdicts.items()},
        "tests": [
            _describe_test(test, adjusted, score.ranks[test.name][chosen])
            for test, adjusted in tests
        ],
        "coverage": [
            row for name, group in groups.items() for row in _coverage(score, name, group, images)
        ],
        "classes": None
        if labels is None
        else asdict(assess_classes(score.predictions.T, labels, classes, images, seed=seed)),
    }
    strict: dict[str, Any] = _strict(found)
    return strict


def _judge(
    ranks: Mapping[str, NDArray[np.int64]],
    gaps: NDArray[np.float64],
    draws: int,
    images: NDArray[np.int64],
    seed: int,
) -> tuple[Verdict, Verdict, ObservationUse]:
    """Verdicts on hidden pixels and on features, and how much of y is used.

    Features and classes are those of whole images: a seam between a completion and what is pasted
    into it shows in them, and so does everything in which a model's images differ from real ones.
    What that says about width or bias is not clear, so the words are left to the pixels.
    """
    tests = assess_all_ranks(ranks, draws, images, seed=seed)
    of_features = [t for t in tests if t.name.startswith("class") or "feature" in t.name]
    pixels = judge([t for t in tests if t not in of_features])
    use = assess_use(gaps, images, seed=seed)
    if IGNORES_Y in pixels.words and not use.high < MOST_USED:
        # Something is wrong that depends on y, but y is followed.
        pixels = replace(pixels, words=(MISCALIBRATED,), shown_by={})
    return pixels, judge(of_features), use


def _describe_verdicts(pixels: Verdict, features: Verdict, use: ObservationUse) -> dict[str, Any]:
    summary = pixels.summary
    if features.rejected:
        # The words stand for the pixels alone.
        summary = f"Hidden pixels: {summary}"
        summary += (
            f" Completions differ from truths in features: {len(features.rejected)} of "
            f"{len(features.tests)} tests reject."
        )
    return {
        "words": pixels.words,
        "summary": summary,
        "n": pixels.n,
        "rejected": pixels.rejected,
        "rejected_features": features.rejected,
        "visible_bias": pixels.visible_bias,
        "visible_spread": pixels.visible_spread,
        "use_of_y": asdict(use),
    }


def _describe_test(
    test: RankTest, adjusted_p_value: float, ranks: NDArray[np.int64]
) -> dict[str, Any]:
    band = ecdf_band(ranks, test.draws)
    return {
        "name": test.name,
        "n": test.n,
        "draws": test.draws,
        "counts": test.counts,
        "p_value": test.p_value,
        "adjusted_p_value": adjusted_p_value,
        "bias": test.shape.bias,
        "spread": test.shape.spread,
        "ecdf": {
            "points": band.points.tolist(),
            "ecdf": band.ecdf.tolist(),
            "low": band.low.tolist(),
            "high": band.high.tolist(),
            "level": band.level,
        },
    }


def _coverage(
    score: CaseScores, name: str, group: NDArray[np.intp], images: NDArray[np.int64]
) -> list[dict[str, Any]]:
    metrics = [coverage_metric(level) for level in LEVELS]
    covered = np.stack([score.values[metric][group] for metric in metrics], axis=1)
    table = tabulate_coverage(covered, score.weights[metrics[0]][group], images[group])
    return [{"group": name, **asdict(row)} for row in table]


def _strict(value: Any) -> Any:
    """JSON knows neither nan, nor infinity, nor tuples."""
    if isinstance(value, dict):
        return {key: _strict(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
