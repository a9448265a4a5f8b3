"""Metrics of all cases together: collections of completions against collections of truths."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from condvae.calibration import one_case_per_image
from condvae.evaluation.case_scores import CaseScores
from condvae.scores.discrimination import held_out_discrimination, in_sample_discrimination
from condvae.scores.feature_scores import FeatureScore
from condvae.scores.fidelity import density_coverage, kernel_distance, precision_recall
from condvae.scores.frechet import frechet_distance, frechet_infinity

__all__ = ["explain_missing", "score_sets"]

log = logging.getLogger(__name__)

# Above so many images the bias of a Fréchet distance is small, and extrapolating it only adds noise.
EXTRAPOLATED_BELOW = 10_000
# Halves of them must hold more than balls of five neighbours.
FEWEST_IMAGES = 16
# Images needed per feature, by what needs them.
IMAGES_PER_FEATURE = {
    "frechet_distance": 2,
    "frechet_distance_infinity": 4,
    "p_ids": 2,
    "u_ids": 2,
}
# Resampling of one metric takes about so long on one core, unless the least number takes longer.
RESAMPLING_SECONDS = 30


def score_sets(
    score: CaseScores,
    group: NDArray[np.intp],
    images: NDArray[np.int64],
    extractor: str,
    seed: int,
) -> dict[str, FeatureScore]:
    """Score the first completions of a group of cases against the same cases' truths.

    One case of each image is scored, chosen at random: several would show its truth several times,
    and be each other's nearest neighbours. With large features there are fewer resamples, so that
    the standard errors of one metric take about half a minute on one core.

    Args:
        score: Of N cases.
        group: Which of them.
        images: (N,) image of each case.
        extractor: What produced the features.
        seed: Of the choice of cases, resampling, subsets, halves and folds.

    Returns:
        Metric -> value, n is the number of images. Metrics that need more images are missing
        (`explain_missing`), and above 10,000 images the extrapolated Fréchet distance.
    """
    rows = group[one_case_per_image(images[group], seed)]
    completions, truths = score.features[rows], score.truth_features[rows]
    n, dimensions = completions.shape
    if n < FEWEST_IMAGES:
        return {}
    if dimensions > 256:
        log.info("scoring %d images with %d features as sets", n, dimensions)
    seconds = 4 * (dimensions / 2048) ** 3  # of one Fréchet distance on one core
    halves = _affordable(6 * n**2 * dimensions / 3e10 / 2, 4, 20)
    found: dict[str, FeatureScore] = {
        "kernel_distance": kernel_distance(
            completions, truths, extractor=extractor, keep_pairs=False
        )
    }
    if _allowed("frechet_distance", n, dimensions):
        found["frechet_distance"] = frechet_distance(
            completions,
            truths,
            extractor=extractor,
            resamples=_affordable(seconds, 5, 200),
            seed=seed,
        )
    if _allowed("frechet_distance_infinity", n, dimensions) and n < EXTRAPOLATED_BELOW:
        parts = min(n // (2 * dimensions), 5)
        found["frechet_distance_infinity"] = frechet_infinity(
            completions,
            truths,
            extractor=extractor,
            repeats=_affordable(1.5 * parts * (parts + 1) * seconds, 2, 10),
            seed=seed,
        )
    found["precision"], found["recall"] = precision_recall(
        completions, truths, extractor=extractor, splits=halves, seed=seed
    )
    found["density"], found["manifold_coverage"] = density_coverage(
        completions, truths, extractor=extractor, splits=halves, seed=seed
    )
    if _allowed("p_ids", n, dimensions):
        found["p_ids"], found["u_ids"] = in_sample_discrimination(
            completions, truths, extractor=extractor
        )
    found["p_ids_held_out"], found["u_ids_held_out"] = held_out_discrimination(
        completions, truths, extractor=extractor, seed=seed
    )
    return found


def explain_missing(n: int, dimensions: int) -> str:
    """Say which metrics of sets `score_sets` leaves out at n images with so many features, and why.

    Empty when there are images enough for all.
    """
    if n < FEWEST_IMAGES:
        return f"all, which need {FEWEST_IMAGES} images and have {n}"
    reasons = [
        f"{metric} needs {times * dimensions}"
        for metric, times in IMAGES_PER_FEATURE.items()
        if not _allowed(metric, n, dimensions)
    ]
    return f"of {n} images with {dimensions} features {', '.join(reasons)}" if reasons else ""


def _allowed(metric: str, n: int, dimensions: int) -> bool:
    return n >= IMAGES_PER_FEATURE[metric] * dimensions


def _affordable(seconds: float, least: int, most: int) -> int:
    """How many resamples of so many seconds each there is time for."""
    return int(np.clip(RESAMPLING_SECONDS / seconds, least, most))
