"""Frechet distance between two sets of feature vectors, through torch-fidelity."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from condvae.configuration import ConfigurationError, check_positive
from condvae.metrics.scores import ScoreValue, cluster_groups

__all__ = ["frechet_distance"]

Features = NDArray[np.floating]
Statistics = dict[str, NDArray[np.float64]]


def frechet_distance(
    features_a: Features,
    features_b: Features,
    *,
    paired: bool = True,
    clusters: ArrayLike | None = None,
    resamples: int = 200,
    seed: int = 0,
) -> ScoreValue:
    """Compute the Frechet distance of two Gaussians fitted to features (Heusel et al. 2017).

    ``|mean_a - mean_b|^2 + tr(cov_a + cov_b - 2 (cov_a cov_b)^(1/2))``, in float64. It is biased
    upwards by about a constant over N, so numbers compare only at the same N and extractor.

    Args:
        features_a: (N,D).
        features_b: (M,D).
        paired: Whether row i of both belongs to the same case. Such rows are resampled together.
        clusters: (N,) labels of the independent units (images) of paired rows, which are then
            resampled instead of the rows; `None` for independent rows.
        resamples: Bootstrap resamples of the rows for the standard error (one takes about as long
            as the distance itself); 0 for none.
        seed: Seed of the bootstrap.

    Returns:
        Distance, bootstrap standard error (nan without resamples), least number of rows.

    Raises:
        ConfigurationError: Other shapes, values that are not finite, fewer than 2 * D rows, or
            paired features with different numbers of rows.
    """
    a, b = _checked("features_a", features_a), _checked("features_b", features_b)
    if a.shape[1] != b.shape[1]:
        raise ConfigurationError(
            f"features of {a.shape[1]} and {b.shape[1]} dimensions: expected the same"
        )
    n, dimensions = min(len(a), len(b)), a.shape[1]
    if n < 2 * dimensions:
        raise ConfigurationError(
            f"{n} rows of features with {dimensions} dimensions: a Frechet distance needs at least "
            f"{2 * dimensions}; take more cases or an extractor with fewer features"
        )
    if paired and len(a) != len(b):
        raise ConfigurationError(
            f"{len(a)} and {len(b)} rows of features: paired features need the same number"
        )
    if clusters is not None and not paired:
        raise ConfigurationError("clusters of unpaired features: expected None")
    groups, count = cluster_groups(len(a), clusters)
    check_positive("resamples", resamples, zero=True)
    # Here and not above: torch-fidelity takes seconds to import, and every command imports this.
    from torch_fidelity.metric_fid import fid_features_to_statistics

    value = _distance(
        fid_features_to_statistics(torch.from_numpy(a)),
        fid_features_to_statistics(torch.from_numpy(b)),
    )
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(resamples):
        weights_a = _resample(rng, count)[groups]
        weights_b = weights_a if paired else _resample(rng, len(b))
        draws.append(
            _distance(_weighted_statistics(a, weights_a), _weighted_statistics(b, weights_b))
        )
    error = float(np.std(draws, ddof=1)) if resamples > 1 else math.nan
    return ScoreValue(value, error, n)


def _checked(name: str, features: Features) -> NDArray[np.float64]:
    """Return finite float64 (N,D)."""
    array = np.ascontiguousarray(features, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] == 0:
        raise ConfigurationError(f"{name} of shape {array.shape}: expected (N, D) with D >= 1")
    if not np.isfinite(array).all():
        raise ConfigurationError(f"{name}: contains values that are not finite")
    return array


def _resample(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Draw how often each of n rows is in a resample of n rows."""
    return rng.multinomial(n, np.full(n, 1 / n)).astype(np.float64)


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
