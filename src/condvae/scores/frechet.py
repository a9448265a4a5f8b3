"""Frechet distance between two sets of feature vectors, through torch-fidelity."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from condvae.ground.configuration import ConfigurationError, check_positive
from condvae.scores.feature_scores import (
    Features,
    FeatureScore,
    RowUnits,
    check_features,
    check_row_count,
    half_sampling_error,
)

__all__ = ["frechet_distance", "frechet_infinity"]

Statistics = dict[str, NDArray[np.float64]]

_MOST_PARTS = 5


def frechet_distance(
    features_a: Features,
    features_b: Features,
    *,
    extractor: str = "not stated",
    paired: bool = True,
    clusters: ArrayLike | None = None,
    resamples: int = 200,
    seed: int = 0,
    force: bool = False,
) -> FeatureScore:
    """Compute the Frechet distance of two Gaussians fitted to features (Heusel et al. 2017).

    ``|mean_a - mean_b|^2 + tr(cov_a + cov_b - 2 (cov_a cov_b)^(1/2))``, in float64. It is biased
    upwards by about a constant over N, so numbers compare only at the same N and extractor.

    Args:
        features_a: (N,D).
        features_b: (M,D).
        extractor: What produced the features.
        paired: Whether row i of both belongs to the same case. Such rows are resampled together.
        clusters: (N,) labels of the independent units (images) of paired rows, which are then
            resampled instead of the rows; `None` for independent rows.
        resamples: Bootstrap resamples of the rows for the standard error; 0 for none. One takes
            about as long as the distance itself: with 2,048 features 4 s on one core.
        seed: Seed of the bootstrap.
        force: Whether to compute it from fewer than 2 * D rows.

    Returns:
        Distance, bootstrap standard error (nan without resamples), least number of rows, resamples.

    Raises:
        ConfigurationError: Other shapes, values that are not finite, fewer than 2 * D rows, or
            paired features with different numbers of rows.
    """
    a, b = check_features(features_a, features_b)
    n = min(len(a), len(b))
    check_row_count("a Frechet distance", n, a.shape[1], force=force)
    units = RowUnits.of(len(a), len(b), paired, clusters)
    check_positive("resamples", resamples, zero=True)
    value = _distance(_statistics(a), _statistics(b))
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(resamples):
        weights_a = _resample(rng, int(units.a.max()) + 1)[units.a]
        weights_b = weights_a if paired else _resample(rng, len(b))
        draws.append(
            _distance(_weighted_statistics(a, weights_a), _weighted_statistics(b, weights_b))
        )
    error = float(np.std(draws, ddof=1)) if resamples > 1 else math.nan
    return FeatureScore(value, error, n, extractor, resamples=tuple(draws))


def frechet_infinity(
    features_a: Features,
    features_b: Features,
    *,
    extractor: str,
    paired: bool = True,
    clusters: ArrayLike | None = None,
    repeats: int = 10,
    seed: int = 0,
    force: bool = False,
) -> FeatureScore:
    """Extrapolate the Frechet distance to infinitely many images (Chong and Forsyth 2020).

    The rows are divided at random into 1, 2, ... equal parts, as many as keep 2 * D rows in each,
    at most 5; the distances of the parts, averaged, are fitted by a line in 1/N, whose intercept is
    the value. (Chong and Forsyth draw subsets. Parts that make up the whole have, to first order,
    the whole's error, so that little noise is left in the line.)

    Args:
        features_a: (N,D).
        features_b: (M,D).
        extractor: What produced the features.
        paired: Whether row i of both belongs to the same case. Such rows stay together.
        clusters: (N,) labels of the independent units (images) of paired rows, which are never
            divided; `None` for independent rows.
        repeats: Random divisions to average over. With P parts each takes 3 P (P + 1) / 2 distances
            when P is the largest number of parts.
        seed: Seed of the divisions.
        force: Whether to compute it from fewer than 4 * D rows.

    Returns:
        Intercept, which may be negative; half-sampling standard error over the repeats; least
        number of rows; settings ``parts`` and ``repeats``.

    Raises:
        ConfigurationError: As `frechet_distance`, fewer than 4 * D rows or than 8 units, or no
            repeats.
    """
    a, b = check_features(features_a, features_b)
    n, dimensions = min(len(a), len(b)), a.shape[1]
    check_row_count("a Frechet distance of halves and more", n, dimensions, 4, force=force)
    units = RowUnits.of(len(a), len(b), paired, clusters)
    if units.count() < 8:
        raise ConfigurationError(
            f"{units.count()} independent images: extrapolating a Frechet distance needs at least 8"
        )
    check_positive("repeats", repeats)
    parts = int(np.clip(min(n // (2 * dimensions), units.count() // 4), 2, _MOST_PARTS))
    rng = np.random.default_rng(seed)

    def intercept(rows_a: NDArray[np.intp], rows_b: NDArray[np.intp]) -> float:
        part_a, part_b, own = a[rows_a], b[rows_b], units.take(rows_a, rows_b)
        means = [
            np.mean(
                [
                    _distance(_statistics(part_a[i]), _statistics(part_b[j]))
                    for i, j in own.split(count, rng)
                ]
            )
            for count in range(1, parts + 1)
        ]
        # In units of 1/N the abscissa is the number of parts.
        return float(np.polyfit(np.arange(1, parts + 1), means, 1)[1])

    every = np.arange(len(a)), np.arange(len(b))
    value = float(np.mean([intercept(*every) for _ in range(repeats)]))
    error = half_sampling_error(intercept, units, splits=repeats, rng=rng, least_rows=2 * parts)
    return FeatureScore(value, float(error[0]), n, extractor, {"parts": parts, "repeats": repeats})


def _resample(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Draw how often each of n rows is in a resample of n rows."""
    return rng.multinomial(n, np.full(n, 1 / n)).astype(np.float64)


def _statistics(features: NDArray[np.float64]) -> Statistics:
    """Return torch-fidelity's mean and covariance."""
    # Here and not above: torch-fidelity takes seconds to import, and every command imports this.
    from torch_fidelity.metric_fid import fid_features_to_statistics

    statistics: Statistics = fid_features_to_statistics(torch.from_numpy(features))
    return statistics


def _weighted_statistics(features: NDArray[np.float64], weights: NDArray[np.float64]) -> Statistics:
    """Return mean and covariance of the resample in which row i occurs ``weights[i]`` times."""
    n = weights.sum()
    mean = weights @ features / n
    centred = features - mean
    return {"mu": mean, "sigma": (centred * weights[:, None]).T @ centred / (n - 1)}


def _distance(a: Statistics, b: Statistics) -> float:
    """Return torch-fidelity's distance between two sets of statistics."""
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

    # With one feature the covariance is a number, the formula wants a matrix.
    a, b = ({**s, "sigma": np.atleast_2d(s["sigma"])} for s in (a, b))
    return float(fid_statistics_to_metric(a, b, verbose=False)[KEY_METRIC_FID])
