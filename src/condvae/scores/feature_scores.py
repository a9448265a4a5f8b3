"""What scores of two sets of features share: their result, checks, and standard errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from condvae.ground.configuration import ConfigurationError, check_positive
from condvae.scores.estimates import ScoreValue, cluster_groups

__all__ = [
    "FeatureScore",
    "Features",
    "RowUnits",
    "check_features",
    "check_row_count",
    "half_sampling_error",
]

Features = NDArray[np.floating]
Rows = NDArray[np.intp]


@dataclass(frozen=True)
class FeatureScore(ScoreValue):
    """A score of features. It depends on n, on the extractor and on its settings.

    Attributes:
        extractor: What produced the features.
        settings: Choices that change the number, name -> value (``{"neighbours": 3}``).
        resamples: The score of each bootstrap resample, where there are any.
    """

    extractor: str
    settings: Mapping[str, int] = field(default_factory=dict)
    resamples: tuple[float, ...] = ()


@dataclass(frozen=True)
class RowUnits:
    """Which rows of two feature arrays are independent and which come and go together.

    Attributes:
        a: (N,) number of the unit of each row of the first array.
        b: (M,) the same of the second array.
        paired: Whether units of both arrays are the same ones.
    """

    a: Rows
    b: Rows
    paired: bool

    @classmethod
    def of(cls, n: int, m: int, paired: bool, clusters: ArrayLike | None) -> RowUnits:
        """Units of N and M rows.

        Args:
            n: N.
            m: M, equal to N when paired.
            paired: Whether row i of both arrays belongs to the same case.
            clusters: (N,) labels of the units of paired rows; `None` when each row is one.

        Raises:
            ConfigurationError: Different numbers of paired rows, or clusters of unpaired ones.
        """
        if paired and n != m:
            raise ConfigurationError(
                f"{n} and {m} rows of features: paired features need the same number"
            )
        if clusters is not None and not paired:
            raise ConfigurationError("clusters of unpaired features: expected None")
        groups, _ = cluster_groups(n, clusters)
        return cls(groups, groups if paired else np.arange(m), paired)

    def count(self) -> int:
        """The least number of units in either array."""
        return min(len(np.unique(self.a)), len(np.unique(self.b)))

    def take(self, rows_a: Rows, rows_b: Rows) -> RowUnits:
        """The units of some of the rows."""
        return RowUnits(self.a[rows_a], self.b[rows_b], self.paired)

    def split(self, parts: int, rng: np.random.Generator) -> list[tuple[Rows, Rows]]:
        """Divide the rows at random into parts of as many units each, to within one.

        Units are never divided. Rows are never taken in their order: files are often sorted by
        class.
        """
        part_a = _deal(self.a, parts, rng)
        part_b = part_a if self.paired else _deal(self.b, parts, rng)
        return [(np.flatnonzero(part_a == i), np.flatnonzero(part_b == i)) for i in range(parts)]


def check_features(
    a: Features, b: Features, names: tuple[str, str] = ("features_a", "features_b")
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return two sets of features as float64.

    Args:
        a: (N,D).
        b: (M,D).
        names: What to call them in messages.

    Raises:
        ConfigurationError: Other shapes, or values that are not finite.
    """
    first, second = _checked(names[0], a), _checked(names[1], b)
    if first.shape[1] != second.shape[1]:
        raise ConfigurationError(
            f"features of {first.shape[1]} and {second.shape[1]} dimensions: expected the same"
        )
    return first, second


def check_row_count(
    what: str, n: int, dimensions: int, times: int = 2, *, force: bool = False
) -> None:
    """Refuse scores of so few rows that their bias, of the order of D / N, swamps them.

    Args:
        what: The score, for the message.
        n: N, number of rows.
        dimensions: D, number of features.
        times: How many times D rows are needed.
        force: Whether to let it pass.

    Raises:
        ConfigurationError: Too few rows, unless forced.
    """
    if n < times * dimensions and not force:
        raise ConfigurationError(
            f"{n} rows of features with {dimensions} dimensions: {what} needs at least "
            f"{times * dimensions}, since its bias is of the order of dimensions / rows; take more "
            "cases, an extractor with fewer features, or force it"
        )


def half_sampling_error(
    statistic: Callable[[Rows, Rows], ArrayLike],
    units: RowUnits,
    *,
    splits: int,
    rng: np.random.Generator,
    least_rows: int = 2,
) -> NDArray[np.float64]:
    """Estimate the standard error of statistics by splitting the data in halves (McCarthy 1969).

    The statistic is computed on both halves of random splits; half the root of the mean squared
    difference estimates its standard error on all rows. No row occurs twice, so statistics of
    neighbours, which a bootstrap breaks, are treated rightly. Between equal laws, where the spread
    falls as 1/N and not as 1/sqrt(N), it is too large, in simulations by a factor up to 1.6.

    Args:
        statistic: Rows of the first and second array -> M numbers.
        units: Which rows belong together.
        splits: Number of random splits; 0 for none.
        rng: Of the splits.
        least_rows: Rows that a half needs.

    Returns:
        (M,); (1,) nan without splits or where a half is too small.
    """
    check_positive("splits", splits, zero=True)
    gaps = []
    for _ in range(splits):
        first, second = units.split(2, rng)
        if min(len(rows) for half in (first, second) for rows in half) < least_rows:
            return np.array([math.nan])
        gaps.append(np.subtract(statistic(*first), statistic(*second)))
    if not gaps:
        return np.array([math.nan])
    return np.atleast_1d(np.sqrt(np.mean(np.square(gaps), axis=0)) / 2)


def _checked(name: str, features: Features) -> NDArray[np.float64]:
    """Return finite float64 (N,D)."""
    array = np.ascontiguousarray(features, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] == 0:
        raise ConfigurationError(f"{name} of shape {array.shape}: expected (N, D) with D >= 1")
    if not np.isfinite(array).all():
        raise ConfigurationError(f"{name}: contains values that are not finite")
    return array


def _deal(labels: Rows, parts: int, rng: np.random.Generator) -> Rows:
    """Give each row a part, the same to all rows of a unit."""
    names, units = np.unique(labels, return_inverse=True)
    return np.asarray((rng.permutation(len(names)) % parts)[units])
