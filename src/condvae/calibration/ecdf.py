"""Empirical distribution function of ranks with a simultaneous band.

References:
    T. Säilynoja, P.-C. Bürkner, A. Vehtari. Graphical test for discrete uniformity and its
    applications in goodness-of-fit evaluation and multiple sample comparison. 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from condvae.calibration.ranks import check_ranks
from condvae.ground.configuration import ConfigurationError

__all__ = ["EcdfBand", "ecdf_band"]

MOST_POINTS = 100
SIMULATIONS = 4000


@dataclass(frozen=True, eq=False)
class EcdfBand:
    """What a plot of the distribution function of ranks needs.

    Attributes:
        points: (P,) share of the ranks counted, ascending, below 1; uniform ranks follow it.
        ecdf: (P,) share of the cases with such ranks.
        low: (P,) lower edge of the band.
        high: (P,) upper edge.
        level: Probability that a uniform sampler's whole curve lies within the band.
        p_value: Share of simulated uniform curves that leave a pointwise band sooner than this one;
            at least 1 / 4001.
        n: Number of cases.
    """

    points: NDArray[np.float64]
    ecdf: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    level: float
    p_value: float
    n: int


def ecdf_band(ranks: ArrayLike, draws: int, *, level: float = 0.95) -> EcdfBand:
    """Compare the distribution function of independent ranks with the uniform one.

    Pointwise binomial intervals are widened together until 4,000 simulated uniform samples stay
    within all of them as often as `level` says.

    Args:
        ranks: (N,) integers 0 .. S, one case per image.
        draws: S.
        level: Between 0 and 1.

    Raises:
        ConfigurationError: Ranks or level out of range.
    """
    values = check_ranks(ranks, draws)
    if not 0 < level < 1:
        raise ConfigurationError(f"level = {level!r}: expected between 0 and 1")
    n = len(values)
    points = np.arange(1, draws + 1) / (draws + 1)
    if draws > MOST_POINTS:
        points = points[np.unique(np.linspace(0, draws - 1, MOST_POINTS).round().astype(int))]
    places = np.round(points * (draws + 1)).astype(int)
    counts = np.bincount(values, minlength=draws + 1).cumsum()[places - 1]
    simulated = _simulated_extremeness(n, tuple(points.tolist()))
    observed = float(_extremeness(counts, n, points))
    # The largest pointwise level that at most a share 1 - level of the simulations fall below.
    gamma = float(simulated[int((1 - level) * len(simulated))])
    low = stats.binom.ppf(gamma / 2, n, points)
    high = stats.binom.isf(gamma / 2, n, points)
    p_value = (1 + np.searchsorted(simulated, observed, side="right")) / (1 + len(simulated))
    return EcdfBand(points, counts / n, low / n, high / n, level, float(p_value), n)


def _extremeness(
    counts: NDArray[np.int64], n: int, points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Least two-sided binomial tail probability along curves (..., P)."""
    below = stats.binom.cdf(counts, n, points)
    above = stats.binom.sf(counts - 1, n, points)
    return np.asarray(2 * np.minimum(below, above).min(axis=-1))


@lru_cache(maxsize=32)
def _simulated_extremeness(n: int, points: tuple[float, ...]) -> NDArray[np.float64]:
    """Sorted extremeness of uniform samples of n ranks; its seed is fixed, as a table's would be."""
    steps = np.diff([0.0, *points, 1.0])
    counts = np.random.default_rng(0).multinomial(n, steps, size=SIMULATIONS).cumsum(axis=1)
    return np.sort(_extremeness(counts[:, :-1], n, np.asarray(points)))
