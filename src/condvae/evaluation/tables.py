"""From scores per case to tidy rows: per bin of observed share and pooled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from condvae.evaluation.scoring import CaseScores
from condvae.metrics.cases import EvaluationCase
from condvae.metrics.frechet import frechet_distance
from condvae.metrics.scores import (
    ScoreValue,
    mean_score,
    paired_difference,
    ratio_of_sums,
)
from condvae.tasks.masks import OBSERVED_BINS, bin_name

__all__ = ["METRIC_DEFINITIONS", "compare", "list_case_scores", "tabulate"]

POOLED = "pooled"
# Scores of likelihood use no feature network.
NO_EXTRACTOR = "pixels"
# The one metric that is a ratio of sums over cases and not a mean.
RATIO = "bound_bits_per_unobserved_dim"

METRIC_DEFINITIONS = {
    "negative_elbo_nats_per_dim": "Bound on -log p(x | y) with the whole image predicted, in nats per "
    "value of the image: KL(q || c) and reconstruction, one draw from q per case.",
    "bound_bits_per_unobserved_dim": "Bound on -log p(unobserved pixels | y) in bits per unobserved "
    "value; sum over cases divided by the sum of unobserved values. One draw from q per case.",
    "frechet_distance": "Fréchet distance between the features of one completion per case and of the "
    "same cases' truths. Biased upwards by a constant over n: compare only at equal n and extractor.",
    "perceptual_best_of_k": "LPIPS formula without learned weights in the three blocks of the named "
    "extractor: least distance of K completions to the truth. It rewards too narrow posteriors; read "
    "it beside the bound.",
    "perceptual_diversity": "The same distance between two completions of one case, mean over all "
    "pairs. Noise maximises it; it is no measure of quality.",
    "class_agreement": "Share of completions that the extractor's classifier gives the true class.",
}
_PER_CASE_MEANS = (
    "negative_elbo_nats_per_dim",
    "perceptual_best_of_k",
    "perceptual_diversity",
    "class_agreement",
)
_COMPARED = (
    "bound_bits_per_unobserved_dim",
    "negative_elbo_nats_per_dim",
    "perceptual_best_of_k",
    "class_agreement",
)
_LIKELIHOOD = ("negative_elbo_nats_per_dim", "bound_bits_per_unobserved_dim")


def _groups(cases: Sequence[EvaluationCase]) -> dict[str, NDArray[np.intp]]:
    """Case numbers by bin name, and all of them as pooled."""
    bins = np.array([case.bin for case in cases])
    groups = {bin_name(i): np.flatnonzero(bins == i) for i in range(len(OBSERVED_BINS))}
    return {n: g for n, g in groups.items() if len(g)} | {POOLED: np.arange(len(cases))}


def tabulate(
    scores: Mapping[str, CaseScores], cases: Sequence[EvaluationCase], facts: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Make the tidy metrics table.

    Args:
        scores: By sampler.
        cases: The cases, in the order of the scores.
        facts: ``k, temperature, extractor, seed, manifest`` for the columns of these names.

    Returns:
        Rows with ``metric, bin, sampler, value, standard_error, n, k, temperature, extractor, seed,
        manifest``. Cases that share an image are one cluster in every standard error. A Fréchet
        distance is left out where a bin has fewer than twice as many cases as features.
    """
    images = np.array([case.image_id for case in cases])
    rows = []
    for sampler, score in scores.items():
        for name, group in _groups(cases).items():
            for metric, value in _values(score, group, images[group], facts["seed"]).items():
                k = 1 if metric in (*_LIKELIHOOD, "frechet_distance") else facts["k"]
                rows.append(
                    {
                        "metric": metric,
                        "bin": name,
                        "sampler": sampler,
                        "value": value.value,
                        "standard_error": value.standard_error,
                        "n": value.n,
                        "k": k,
                        "temperature": facts["temperature"],
                        "extractor": NO_EXTRACTOR if metric in _LIKELIHOOD else facts["extractor"],
                        "seed": facts["seed"],
                        "manifest": facts["manifest"],
                    }
                )
    return rows


def _values(
    score: CaseScores, group: NDArray[np.intp], images: NDArray[np.int64], seed: int
) -> dict[str, ScoreValue]:
    values = {
        metric: mean_score(score.values[metric][group], images)
        for metric in _PER_CASE_MEANS
        if metric in score.values
    }
    values["bound_bits_per_unobserved_dim"] = ratio_of_sums(
        score.values["bound_bits"][group], score.predicted_dimensions[group], images
    )
    if len(group) >= 2 * score.features.shape[1]:
        values["frechet_distance"] = frechet_distance(
            score.features[group], score.truth_features[group], clusters=images, seed=seed
        )
    return values


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
    """
    images = np.array([case.image_id for case in cases])
    rows = []
    for other in scores:
        if other == reference:
            continue
        for metric in _COMPARED:
            for name, group in _groups(cases).items():
                if not all(_has(metric, scores[s]) for s in (reference, other)):
                    continue
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


def _has(metric: str, score: CaseScores) -> bool:
    return metric == RATIO or metric in score.values


def _numerators(
    score: CaseScores, metric: str, group: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values and weights of the cases; the metric is the ratio of their sums."""
    if metric == RATIO:
        return score.values["bound_bits"][group], score.predicted_dimensions[group]
    return score.values[metric][group], np.ones(len(group))


def list_case_scores(
    scores: Mapping[str, CaseScores], cases: Sequence[EvaluationCase]
) -> dict[str, list[Any]]:
    """Columns of a table with one row per case, sampler and metric: what paired comparisons need.

    Returns:
        ``case_id, image_id, bin, observed_share, sampler, metric, value, weight``; a pooled mean is
        the sum of values over the sum of weights.
    """
    columns: dict[str, list[Any]] = {
        name: []
        for name in (
            *("case_id", "image_id", "bin", "observed_share"),
            *("sampler", "metric", "value", "weight"),
        )
    }
    for sampler, score in scores.items():
        for metric, values in score.values.items():
            ratio = metric == "bound_bits"
            weights = score.predicted_dimensions if ratio else np.ones(len(cases))
            name = "bound_bits_per_unobserved_dim" if ratio else metric
            for case, value, weight in zip(cases, values, weights, strict=True):
                row = (case.case_id, case.image_id, bin_name(case.bin), case.observed_share)
                for column, entry in zip(
                    columns, (*row, sampler, name, float(value), float(weight)), strict=True
                ):
                    columns[column].append(entry)
    return columns
