"""Scores with their uncertainty: means, ratios of sums, paired differences.

Standard errors and intervals treat *clusters* as the independent unit. Several cases of one image
form a cluster; so clusters are usually the image ids. Without clusters every value is its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from condvae.ground.configuration import ConfigurationError, check_positive

__all__ = [
    "Interval",
    "PairedDifference",
    "ScoreValue",
    "bootstrap_interval",
    "cluster_groups",
    "mean_score",
    "paired_difference",
    "ratio_of_sums",
]

_WEIGHTS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class ScoreValue:
    """A score.

    Attributes:
        value: The score.
        standard_error: Its standard error in the same unit; nan when there is one cluster only.
        n: Number of cases it is computed from.
    """

    value: float
    standard_error: float
    n: int


@dataclass(frozen=True)
class Interval:
    """An interval for a score.

    An increasing function of the score has the interval between the function's values at both ends.

    Attributes:
        low: Lower end.
        high: Upper end.
        level: Its coverage.
    """

    low: float
    high: float
    level: float


@dataclass(frozen=True)
class PairedDifference:
    """Mean of a minus mean of b over the same cases.

    Attributes:
        difference: The difference.
        low: Lower end of its interval.
        high: Upper end.
        relative: Difference divided by the absolute mean of b; nan when that is zero.
        level: Coverage of the interval.
        n: Number of cases.
    """

    difference: float
    low: float
    high: float
    relative: float
    level: float
    n: int


def mean_score(values: ArrayLike, clusters: ArrayLike | None = None) -> ScoreValue:
    """Average a score over cases.

    Args:
        values: (N,).
        clusters: (N,) labels of the independent units, `None` when all values are independent.

    Returns:
        Mean, standard error, N.

    Raises:
        ConfigurationError: No values, a value that is not finite, or shapes that differ.
    """
    array = _checked("values", values)
    return ratio_of_sums(array, np.ones_like(array), clusters)


def ratio_of_sums(
    numerators: ArrayLike, denominators: ArrayLike, clusters: ArrayLike | None = None
) -> ScoreValue:
    """Divide the sum of numerators by the sum of denominators.

    The standard error is the first-order (delta-method) one: the spread over clusters of the
    residuals ``numerator - ratio * denominator``, divided by the sum of denominators.

    Args:
        numerators: (N,), error summed over the unobserved dimensions, say.
        denominators: (N,), number of these dimensions; >= 0 and not all zero.
        clusters: (N,) labels of the independent units, `None` when all cases are independent.

    Returns:
        Ratio, standard error, N.

    Raises:
        ConfigurationError: No values, a value that is not finite, shapes that differ, or
            denominators that are negative or all zero.
    """
    above = _checked("numerators", numerators)
    below = _checked("denominators", denominators)
    groups, count = cluster_groups(len(above), clusters)
    _check_same_length("numerators", above, "denominators", below)
    _check_denominators(below)
    total = float(below.sum())
    ratio = float(above.sum()) / total
    residuals = np.bincount(groups, weights=above - ratio * below, minlength=count)
    error = math.nan
    if count > 1:
        error = math.sqrt(count / (count - 1) * float(residuals @ residuals)) / total
    return ScoreValue(ratio, error, len(above))


def bootstrap_interval(
    numerators: ArrayLike,
    denominators: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    level: float = 0.95,
    *,
    seed: int,
    resamples: int = 2000,
) -> Interval:
    """Percentile bootstrap interval of a mean or a ratio of sums; whole clusters are resampled.

    All cases of an image come and go together. Resamples in which nothing counts (denominators all
    zero) are left out. Below about 20 clusters the interval is too narrow, by the factor
    sqrt((n - 1) / n) and by the normal distribution's tails standing in for Student's.

    Args:
        numerators: (N,) scores, or for two samplers the differences of their scores.
        denominators: (N,), >= 0 and not all zero; `None` for the mean over cases.
        clusters: (N,) labels of the independent units (images), `None` for independent cases.
        level: Coverage of the interval, between 0 and 1.
        seed: Seed of the resampling.
        resamples: Number of resamples.

    Raises:
        ConfigurationError: As `ratio_of_sums`, or `level` or `resamples` out of range.
    """
    above = _checked("numerators", numerators)
    below = np.ones_like(above) if denominators is None else _checked("denominators", denominators)
    _check_same_length("numerators", above, "denominators", below)
    _check_denominators(below)
    if not 0 < level < 1:
        raise ConfigurationError(f"level = {level!r}: expected between 0 and 1")
    check_positive("resamples", resamples)
    groups, count = cluster_groups(len(above), clusters)
    sums = np.bincount(groups, weights=above, minlength=count)
    sizes = np.bincount(groups, weights=below, minlength=count)
    rng = np.random.default_rng(seed)
    shares = np.full(count, 1 / count)
    draws = []
    chunk = max(_WEIGHTS_AT_ONCE // count, 1)
    for start in range(0, resamples, chunk):
        times = rng.multinomial(count, shares, size=min(chunk, resamples - start))
        totals = times @ sizes
        draws.append((times @ sums)[totals > 0] / totals[totals > 0])
    low, high = np.quantile(np.concatenate(draws), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level)


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    clusters: ArrayLike | None = None,
    level: float = 0.95,
    *,
    seed: int,
    weights: ArrayLike | None = None,
    resamples: int = 2000,
) -> PairedDifference:
    """Compare two samplers on the same cases, with the interval of `bootstrap_interval`.

    With `weights` the scores compared are ratios, sum of scores over sum of weights.

    Args:
        a: (N,) scores of the first sampler.
        b: (N,) scores of the second one, same cases in the same order.
        clusters: (N,) labels of the independent units (images), `None` for independent cases.
        level: Coverage of the interval, between 0 and 1.
        seed: Seed of the resampling.
        weights: (N,) denominators of ratios of sums, resampled with the scores; `None` for means.
        resamples: Number of resamples.

    Returns:
        Score of a minus score of b, its interval, and the difference relative to the score of b.

    Raises:
        ConfigurationError: No values, a value that is not finite, shapes that differ, weights that
            are negative or all zero, or `level` or `resamples` out of range.
    """
    first, second = _checked("a", a), _checked("b", b)
    _check_same_length("a", first, "b", second)
    below = np.ones_like(first) if weights is None else _checked("weights", weights)
    _check_same_length("a", first, "weights", below)
    interval = bootstrap_interval(
        first - second, below, clusters, level, seed=seed, resamples=resamples
    )
    total = float(below.sum())
    difference, scale = float((first - second).sum()) / total, abs(float(second.sum())) / total
    relative = difference / scale if scale > 0 else math.nan
    return PairedDifference(difference, interval.low, interval.high, relative, level, len(first))


def cluster_groups(n: int, clusters: ArrayLike | None) -> tuple[NDArray[np.intp], int]:
    """Return the cluster index of each case and the number of clusters.

    Args:
        n: N, number of cases.
        clusters: (N,) labels, `None` when every case is its own cluster.

    Raises:
        ConfigurationError: Labels of another shape.
    """
    if clusters is None:
        return np.arange(n), n
    labels = np.asarray(clusters)
    if labels.shape != (n,):
        raise ConfigurationError(f"clusters of shape {labels.shape}: expected ({n},)")
    names, groups = np.unique(labels, return_inverse=True)
    return groups, len(names)


def _checked(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """Return a non-empty, finite float64 (N,)."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ConfigurationError(f"{name} of shape {array.shape}: expected (N,) with N >= 1")
    if not np.isfinite(array).all():
        bad = int(np.flatnonzero(~np.isfinite(array))[0])
        raise ConfigurationError(f"{name}[{bad}] = {array[bad]}: expected finite numbers")
    return array


def _check_same_length(
    name: str, values: NDArray[np.float64], other_name: str, other: NDArray[np.float64]
) -> None:
    """Raise `ConfigurationError` unless both arrays have the same length."""
    if len(values) != len(other):
        raise ConfigurationError(
            f"{len(values)} {name} and {len(other)} {other_name}: expected the same number"
        )


def _check_denominators(values: NDArray[np.float64]) -> None:
    """Raise `ConfigurationError` unless all are >= 0 and one is not zero."""
    if values.min() < 0 or values.sum() == 0:
        raise ConfigurationError(
            f"denominators from {values.min()} to {values.max()}: expected >= 0 and a sum > 0"
        )
