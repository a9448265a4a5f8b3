"""How much of what y says about the hidden values a sampler uses.

A reference made from a case's y lies nearer to the truth than one made from another image's y. For an
exact sampler it lies, on average, exactly as much nearer to the draws; for one that ignores y, not at
all. The ratio says which share of it the sampler follows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from condvae.calibration.statistics import View
from condvae.ground.configuration import ConfigurationError
from condvae.scores.estimates import cluster_groups

__all__ = ["ObservationUse", "assess_use", "reference_gaps"]

RESAMPLES = 2000


@dataclass(frozen=True)
class ObservationUse:
    """Share of what y says that the draws follow.

    Attributes:
        value: 1 for an exact sampler, 0 for one that ignores y; nan where y says nothing.
        low: Lower end of the interval, resampling images.
        high: Upper end.
        level: Of the interval.
        n: Number of cases.
    """

    value: float
    low: float
    high: float
    level: float
    n: int


def reference_gaps(view: View) -> NDArray[np.float64]:
    """How much nearer draws and truths are to their own reference than to another's.

    Args:
        view: Of n cases, with both kinds of references.

    Returns:
        (n,2): squared distance to the other reference less that to the own one, over unobserved
        values; mean over draws, and of the truth.

    Raises:
        ConfigurationError: References are missing.
    """
    if view.references is None or view.other_references is None:
        raise ConfigurationError("references = None: expected own and other references")
    own = np.asarray(view.references, np.float64)
    other = np.asarray(view.other_references, np.float64)
    counted = np.ones(own.shape, bool) if view.unobserved is None else view.unobserved
    # |o - v|² - |r - v|² is linear in v, so the mean draw gives the mean over draws.
    values = np.stack([view.samples.mean(axis=0, dtype=np.float64), np.asarray(view.truths)])
    gaps = np.where(counted, (other - own) * (other + own - 2 * values), 0.0)
    return np.asarray(gaps.sum(axis=2).T)


def assess_use(
    gaps: ArrayLike, images: ArrayLike, *, level: float = 0.95, seed: int
) -> ObservationUse:
    """Divide the draws' gaps by the truths', with a percentile bootstrap over images.

    Args:
        gaps: (N,2) from `reference_gaps`.
        images: (N,) image of each case.
        level: Of the interval.
        seed: Of the bootstrap.
    """
    values = np.asarray(gaps, np.float64)
    groups, count = cluster_groups(len(values), images)
    sums = np.stack([np.bincount(groups, weights=column, minlength=count) for column in values.T])
    times = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    drawn, true = times @ sums[0], times @ sums[1]
    total = values.sum(axis=0)
    if total[1] <= 0:
        return ObservationUse(np.nan, np.nan, np.nan, level, len(values))
    ratios = np.sort(np.divide(drawn, true, out=np.full(RESAMPLES, np.inf), where=true > 0))
    low, high = ratios[[int((1 - level) / 2 * RESAMPLES), int((1 + level) / 2 * RESAMPLES) - 1]]
    return ObservationUse(float(total[0] / total[1]), float(low), float(high), level, len(values))
