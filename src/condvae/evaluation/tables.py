"""From scores per case to tidy rows: per bin of observed share and pooled."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from condvae.evaluation.bins import group_cases
from condvae.evaluation.case_scores import CaseScores
from condvae.evaluation.cases import EvaluationCase
from condvae.evaluation.sets import explain_missing, score_sets
from condvae.ground.configuration import check_choice
from condvae.masks.kinds import bin_name
from condvae.scores.definitions import METRICS
from condvae.scores.estimates import (
    Interval,
    ScoreValue,
    bootstrap_interval,
    mean_score,
    paired_difference,
    ratio_of_sums,
)
from condvae.scores.feature_scores import FeatureScore
from condvae.scores.proper import peak_signal_to_noise_ratio, root_mean_square_error

__all__ = ["COMPARISON_COLUMNS", "compare", "list_case_scores", "tabulate"]

log = logging.getLogger(__name__)

NO_EXTRACTOR = "pixels"
FEWEST_RESAMPLES = 100  # for percentiles
COMPARISON_COLUMNS = (
    *("metric", "bin", "sampler_a", "sampler_b", "standard_error"),
    *("difference", "low", "high", "level", "n", "relative_difference"),
)


def tabulate(
    scores: Mapping[str, CaseScores],
    cases: Sequence[EvaluationCase],
    facts: Mapping[str, Any],
    *,
    level: float,
) -> list[dict[str, Any]]:
    """Make the tidy metrics table.

    Args:
        scores: By sampler.
        cases: The cases, in the order of the scores.
        facts: ``k, temperature, seed, manifest`` for the columns of these names, the same for all of
            these samplers; and ``extractors``, name by `MetricDefinition.source`.
        level: Of the intervals.

    Returns:
        Rows with ``metric, bin, sampler, value, standard_error, low, high, level, n, k, temperature,
        extractor, settings, seed, manifest``. Cases that share an image are one cluster in every
        standard error and interval. Metrics of sets take one case of each image, n is the number of
        images, and are left out, which is logged, where a bin has too few for them. ``settings`` is
        JSON text, empty where a metric has none. An interval is nan where the standard error of a
        metric of sets is zero or not known.
    """
    images = np.array([case.image_id for case in cases])
    rows = []
    for sampler, score in scores.items():
        missing = []
        for name, group in group_cases(cases).items():
            found = _values(score, group, images[group], facts["seed"], level)
            found |= {
                metric: (value, _set_interval(metric, value, level))
                for metric, value in score_sets(
                    score, group, images, facts["extractors"]["features"], facts["seed"]
                ).items()
            }
            count = len(np.unique(images[group]))
            reasons = explain_missing(count, score.features.shape[1])
            missing += [f"{name}: {reasons}"] if reasons else []
            for metric in METRICS:
                if metric in found:
                    value, interval = found[metric]
                    rows.append(
                        {
                            "metric": metric,
                            "bin": name,
                            "sampler": sampler,
                            "value": value.value,
                            "standard_error": value.standard_error,
                            "low": interval.low,
                            "high": interval.high,
                            "level": level,
                            "n": value.n,
                            "k": METRICS[metric].draws or facts["k"],
                            "temperature": facts["temperature"],
                            "extractor": facts["extractors"].get(
                                METRICS[metric].source, NO_EXTRACTOR
                            ),
                            "settings": _settings(value),
                            "seed": facts["seed"],
                            "manifest": facts["manifest"],
                        }
                    )
        if missing:
            log.info("%s: metrics of sets left out in %s", sampler, "; ".join(missing))
    return rows


def _values(
    score: CaseScores,
    group: NDArray[np.intp],
    images: NDArray[np.int64],
    seed: int,
    level: float,
) -> dict[str, tuple[ScoreValue, Interval]]:
    """Values and bootstrap intervals of all metrics that are made up case by case."""
    values = {}
    for metric, numbers in score.values.items():
        definition = METRICS[metric]
        above = numbers[group]
        if definition.kind == "mean":
            value, below = mean_score(above, images), None
        else:
            below = score.weights[metric][group]
            if not below.any():  # nothing observed in the whole bin, say
                continue
            value = ratio_of_sums(above, below, images)
        interval = bootstrap_interval(above, below, images, level, seed=seed)
        if metric == "posterior_mean_rmse":
            values["posterior_mean_psnr"] = (
                peak_signal_to_noise_ratio(value),
                Interval(_decibels(interval.high), _decibels(interval.low), level),
            )
        if definition.kind == "root":
            value = root_mean_square_error(value)
            interval = Interval(math.sqrt(interval.low), math.sqrt(interval.high), level)
        values[metric] = (value, interval)
    return values


def _decibels(mean_square: float) -> float:
    return peak_signal_to_noise_ratio(ScoreValue(mean_square, math.nan, 1)).value


def _settings(value: ScoreValue) -> str:
    settings = value.settings if isinstance(value, FeatureScore) else {}
    return json.dumps(dict(settings), sort_keys=True) if settings else ""


def _set_interval(metric: str, value: FeatureScore, level: float) -> Interval:
    """Percentiles of the resamples where there are enough, else value +- z * standard error."""
    if not value.standard_error > 0:
        return Interval(math.nan, math.nan, level)
    if len(value.resamples) >= FEWEST_RESAMPLES:
        # Resampling adds the bias once more, so that all resamples may lie above the value.
        moved = np.array(value.resamples) - np.median(value.resamples) + value.value
        low, high = np.quantile(moved, [(1 - level) / 2, (1 + level) / 2])
    else:
        reach = NormalDist().inv_cdf((1 + level) / 2) * value.standard_error
        low, high = value.value - reach, value.value + reach
    low, high = np.clip([low, high], *METRICS[metric].bounds)
    return Interval(float(low), float(high), level)


def compare(
    scores: Mapping[str, CaseScores],
    cases: Sequence[EvaluationCase],
    *,
    level: float,
    seed: int,
    reference: str = "ipa",
) -> list[dict[str, Any]]:
    """Paired differences between one sampler and every other on the same cases.

    Args:
        scores: By sampler.
        cases: The cases, in the order of the scores.
        level: Of the bootstrap intervals over images.
        seed: Of the bootstrap.
        reference: Sampler a; b are the others.

    Returns:
        Rows with ``metric, bin, sampler_a, sampler_b, difference, low, high, level,
        relative_difference, standard_error, n``; difference is a minus b.

    Raises:
        ConfigurationError: No scores of the reference.
    """
    check_choice("reference", reference, scores)
    images = np.array([case.image_id for case in cases])
    rows = []
    for other in scores:
        if other == reference:
            continue
        for metric, definition in METRICS.items():
            if not definition.compared:
                continue
            if any(metric not in scores[s].values for s in (reference, other)):
                continue
            for name, group in group_cases(cases).items():
                a, weights = _numerators(scores[reference], metric, group)
                b, _ = _numerators(scores[other], metric, group)
                found = paired_difference(a, b, images[group], level, seed=seed, weights=weights)
                numbers = asdict(found)
                numbers["relative_difference"] = numbers.pop("relative")
                error = ratio_of_sums(a - b, weights, images[group]).standard_error
                rows.append(
                    {
                        "metric": metric,
                        "bin": name,
                        "sampler_a": reference,
                        "sampler_b": other,
                        "standard_error": error,
                        **numbers,
                    }
                )
    return rows


def _numerators(
    score: CaseScores, metric: str, group: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values and weights of the cases; the metric is the ratio of their sums."""
    values = score.values[metric]
    return values[group], score.weights.get(metric, np.ones(len(values)))[group]


def list_case_scores(
    scores: Mapping[str, CaseScores], cases: Sequence[EvaluationCase]
) -> dict[str, list[Any]]:
    """Columns of a table with one row per case, sampler and metric: what paired comparisons need.

    Returns:
        ``case_id, image_id, image_sha256, bin, observed_share, sampler, metric, value, weight``; a
        pooled value is the sum of values over the sum of weights, and for RMSE the root of that.
    """
    columns: dict[str, list[Any]] = {
        name: []
        for name in (
            *("case_id", "image_id", "image_sha256", "bin", "observed_share"),
            *("sampler", "metric", "value", "weight"),
        )
    }
    for sampler, score in scores.items():
        for metric, values in score.values.items():
            weights = score.weights.get(metric, np.ones(len(cases)))
            columns["case_id"] += [case.case_id for case in cases]
            columns["image_id"] += [case.image_id for case in cases]
            columns["image_sha256"] += [case.image_sha256 for case in cases]
            columns["bin"] += [bin_name(case.bin) for case in cases]
            columns["observed_share"] += [case.observed_share for case in cases]
            columns["sampler"] += [sampler] * len(cases)
            columns["metric"] += [metric] * len(cases)
            columns["value"] += values.tolist()
            columns["weight"] += weights.tolist()
    return columns
