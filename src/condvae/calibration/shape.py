"""Which way ranks deviate from uniform: shifted (bias) or spread out (too narrow, too wide).

Ranks are turned into normal scores. If draws come from N(m, s²) and the truth from
N(m + b s, (k s)²), scores of many draws have mean b and standard deviation k: a bias in units of the
sampler's deviation, and the truth's spread relative to the sampler's. A slope of the rank histogram
is a bias, a U shape a ratio above 1, a hill one below 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

__all__ = ["RankShape", "rank_probabilities", "rank_shape"]

_GRID = np.linspace(-8.0, 8.0, 401)
_SHIFTS = np.linspace(-6.0, 6.0, 121)


@dataclass(frozen=True)
class RankShape:
    """Shape of a rank histogram, p-values uncorrected.

    Attributes:
        bias: Mean normal score: truth minus draws, in standard deviations of the draws.
        bias_p_value: Two-sided, against 0.
        spread: Spread of the truth relative to that of the draws; above 1 the draws are too narrow.
        spread_p_value: Two-sided, against 1.
    """

    bias: float
    bias_p_value: float
    spread: float
    spread_p_value: float


def rank_shape(ranks: NDArray[np.int64], draws: int) -> RankShape:
    """Measure bias and spread of ranks (N,) in 0 .. `draws`.

    A shift pushes scores against the largest possible one and so makes them narrower. The spread is
    therefore compared with the one that truths of the right spread have at this bias.
    """
    scores = _normal_scores(draws)[ranks]
    n, mean = len(scores), float(scores.mean())
    variance = float(scores.var(ddof=1)) if n > 1 else 0.0
    means, variances, fourths = _moments_by_shift(draws)
    uniform_variance = float(np.interp(0.0, means, variances))
    # Never the smaller variance: with few distinct ranks the observed one may vanish.
    bias_z = mean / math.sqrt(max(variance, uniform_variance) / n)
    expected = float(np.interp(mean, means, variances))
    fourth = float(np.interp(mean, means, fourths))
    spread_z = (variance - expected) / math.sqrt(max(fourth - expected**2, 1e-12) / n)
    return RankShape(
        mean,
        float(2 * special.ndtr(-abs(bias_z))),
        math.sqrt(variance / expected),
        float(2 * special.ndtr(-abs(spread_z))) if n > 1 else 1.0,
    )


def rank_probabilities(draws: int, shift: float, ratio: float) -> NDArray[np.float64]:
    """Distribution of ranks (S + 1,) when the truth is N(`shift`, `ratio`²) and draws are N(0, 1)."""
    density = np.exp(-0.5 * ((_GRID - shift) / ratio) ** 2)
    probabilities: NDArray[np.float64] = _rank_given_truth(draws) @ (density / density.sum())
    return probabilities


@lru_cache(maxsize=8)
def _rank_given_truth(draws: int) -> NDArray[np.float64]:
    """P(rank | truth at a grid point): (S + 1, grid)."""
    below = stats.norm.cdf(_GRID)
    return np.asarray(stats.binom.pmf(np.arange(draws + 1)[:, None], draws, below))


@lru_cache(maxsize=8)
def _normal_scores(draws: int) -> NDArray[np.float64]:
    return np.asarray(stats.norm.ppf((np.arange(draws + 1) + 0.5) / (draws + 1)))


@lru_cache(maxsize=8)
def _moments_by_shift(
    draws: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean, variance and fourth central moment of scores for truths N(shift, 1)."""
    scores = _normal_scores(draws)
    probabilities = np.stack([rank_probabilities(draws, s, 1.0) for s in _SHIFTS])
    means = probabilities @ scores
    centred = scores - means[:, None]
    return means, (probabilities * centred**2).sum(axis=1), (probabilities * centred**4).sum(axis=1)
