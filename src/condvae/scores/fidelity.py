"""Scores of two sets of features: kernel distance, precision and recall, density and coverage.

All of them compare collections of images and do not see whether a completion fits its observation.
"""

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
    half_sampling_error,
)

__all__ = ["density_coverage", "kernel_distance", "precision_recall"]

LARGEST_SUBSET = 1000
_ROWS_AT_ONCE = 1024


def kernel_distance(
    features_a: Features,
    features_b: Features,
    *,
    extractor: str,
    paired: bool = True,
    clusters: ArrayLike | None = None,
    keep_pairs: bool = True,
    subsets: int = 100,
    seed: int = 0,
) -> FeatureScore:
    """Compute the kernel distance (KID, Binkowski et al. 2018).

    Unbiased squared MMD of the kernel ``(x . y / D + 1)^3``. torch-fidelity's number is the mean
    over random subsets of 1,000 rows, or of all rows when there are fewer; then the one subset there
    is. It may be negative. Unbiased means independent sets: if rows are paired, the N pairs among
    the N^2 products of both sets lower it by 2 / N times what a pair's kernel value exceeds that of
    strangers. Without them, and without any other product of rows of one unit, it is unbiased
    again, and computed from all rows at once.

    The standard error is that of the data, from the jackknife over units, and not the spread over
    subsets that torch-fidelity reports; the noise of drawing subsets is added to it. Between equal
    laws it is too large, in simulations by a factor up to 1.6.

    Args:
        features_a: (N,D).
        features_b: (M,D).
        extractor: What produced the features.
        paired: Whether row i of both belongs to the same case. Such rows are left out together.
        clusters: (N,) labels of the independent units (images) of paired rows; `None` for
            independent rows.
        keep_pairs: Whether products of paired rows count, as in torch-fidelity.
        subsets: Number of subsets; without meaning unless pairs are kept.
        seed: Seed of the subsets.

    Returns:
        Distance, standard error (nan for fewer than three units), least number of rows; settings
        ``subset_size`` and ``subsets``, or ``pairs`` = 0 where pairs are left out.

    Raises:
        ConfigurationError: Other shapes, values that are not finite, fewer than two rows (without
            pairs: units), paired features with different numbers of rows, or pairs of unpaired
            features to be left out.
    """
    from torch_fidelity.metric_kid import (
        KEY_METRIC_KID_MEAN,
        KEY_METRIC_KID_STD,
        kid_features_to_metric,
    )

    a, b = check_features(features_a, features_b)
    units = RowUnits.of(len(a), len(b), paired, clusters)
    check_positive("subsets", subsets)
    n = min(len(a), len(b))
    if n < 2:
        raise ConfigurationError(f"{n} rows of features: a kernel distance needs at least 2")
    if not keep_pairs:
        return _distance_of_strangers(a, b, units, extractor)
    size = min(LARGEST_SUBSET, n)
    if size == len(a) == len(b):
        subsets = 1
    found = kid_features_to_metric(
        torch.from_numpy(a),
        torch.from_numpy(b),
        kid_subsets=subsets,
        kid_subset_size=size,
        rng_seed=seed,
        verbose=False,
    )
    noise = found[KEY_METRIC_KID_STD] / math.sqrt(subsets)
    error = math.hypot(_jackknife_error(a, b, units), noise)
    settings = {"subset_size": size, "subsets": subsets}
    return FeatureScore(found[KEY_METRIC_KID_MEAN], error, n, extractor, settings)


def precision_recall(
    features: Features,
    reference: Features,
    *,
    extractor: str,
    paired: bool = True,
    clusters: ArrayLike | None = None,
    neighbours: int = 3,
    splits: int = 20,
    seed: int = 0,
) -> tuple[FeatureScore, FeatureScore]:
    """Compute precision and recall (Kynkaanniemi et al. 2019) as torch-fidelity does.

    Precision is the share of completions inside the ball of a reference image, which reaches to its
    k-th nearest neighbour in the reference; recall the same with both sets exchanged. They are not 1
    for equal laws, and depend on N and k; single outliers have large balls.

    Args:
        features: (N,D) of completions.
        reference: (M,D) of true images.
        extractor: What produced the features.
        paired: Whether row i of both belongs to the same case. Such rows stay together.
        clusters: (N,) labels of the independent units (images) of paired rows; `None` for
            independent rows.
        neighbours: k.
        splits: Random halves for the standard errors; each split takes half the time of the values;
            0 for none.
        seed: Seed of the halves.

    Returns:
        Precision and recall, each with half-sampling standard error, least number of rows and the
        setting ``neighbours``.

    Raises:
        ConfigurationError: Other shapes, values that are not finite, fewer than k + 1 rows, or
            paired features with different numbers of rows.
    """
    from torch_fidelity.metric_prc import (
        KEY_METRIC_PRECISION,
        KEY_METRIC_RECALL,
        prc_features_to_metric,
    )

    a, b = _neighbours_possible(features, reference, neighbours)

    def shares(rows_a: NDArray[np.intp], rows_b: NDArray[np.intp]) -> tuple[float, float]:
        found = prc_features_to_metric(
            torch.from_numpy(a[rows_a]),
            torch.from_numpy(b[rows_b]),
            prc_neighborhood=neighbours,
            save_cpu_ram=True,
            verbose=False,
        )
        return found[KEY_METRIC_PRECISION], found[KEY_METRIC_RECALL]

    values = shares(np.arange(len(a)), np.arange(len(b)))
    units = RowUnits.of(len(a), len(b), paired, clusters)
    errors = half_sampling_error(
        shares,
        units,
        splits=splits,
        rng=np.random.default_rng(seed),
        least_rows=neighbours + 1,
    )
    return _two_scores(values, errors, min(len(a), len(b)), extractor, neighbours)


def density_coverage(
    features: Features,
    reference: Features,
    *,
    extractor: str,
    paired: bool = True,
    clusters: ArrayLike | None = None,
    neighbours: int = 5,
    splits: int = 20,
    seed: int = 0,
) -> tuple[FeatureScore, FeatureScore]:
    """Compute density and coverage (Naeem et al. 2020).

    Each reference image has an open ball that reaches to its k-th nearest neighbour in the
    reference. Density is the number of balls that a completion lies in, over k, mean over
    completions: about 1 for equal laws, possibly more. Coverage is the share of balls with a
    completion inside: for equal laws and N = M large about ``1 - 2^-k``.

    Args:
        features: (N,D) of completions.
        reference: (M,D) of true images.
        extractor: What produced the features.
        paired: Whether row i of both belongs to the same case. Such rows stay together.
        clusters: (N,) labels of the independent units (images) of paired rows; `None` for
            independent rows.
        neighbours: k.
        splits: Random halves for the standard errors; each split takes half the time of the values;
            0 for none.
        seed: Seed of the halves.

    Returns:
        Density and coverage, each with half-sampling standard error, least number of rows and the
        setting ``neighbours``.

    Raises:
        ConfigurationError: Other shapes, values that are not finite, fewer than k + 1 rows, or
            paired features with different numbers of rows.
    """
    a, b = _neighbours_possible(features, reference, neighbours)
    completions, truths = torch.from_numpy(a), torch.from_numpy(b)

    def both(rows_a: NDArray[np.intp], rows_b: NDArray[np.intp]) -> tuple[float, float]:
        drawn, true = completions[rows_a], truths[rows_b]
        inside = covered = 0
        for some in torch.split(true, _ROWS_AT_ONCE):
            # The nearest row of the reference is the image itself.
            radii = torch.cdist(some, true).kthvalue(neighbours + 1, dim=1).values
            hits = (torch.cdist(some, drawn) < radii[:, None]).sum(dim=1)
            inside += int(hits.sum())
            covered += int((hits > 0).sum())
        return inside / (neighbours * len(drawn)), covered / len(true)

    values = both(np.arange(len(a)), np.arange(len(b)))
    units = RowUnits.of(len(a), len(b), paired, clusters)
    errors = half_sampling_error(
        both, units, splits=splits, rng=np.random.default_rng(seed), least_rows=neighbours + 1
    )
    return _two_scores(values, errors, min(len(a), len(b)), extractor, neighbours)


def _neighbours_possible(
    features: Features, reference: Features, neighbours: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return float64 features of which each row has enough others."""
    a, b = check_features(features, reference, ("features", "reference"))
    check_positive("neighbours", neighbours)
    n = min(len(a), len(b))
    if n < neighbours + 1:
        raise ConfigurationError(
            f"{n} rows of features: balls of {neighbours} neighbours need at least {neighbours + 1}"
        )
    return a, b


def _two_scores(
    values: tuple[float, float],
    errors: NDArray[np.float64],
    n: int,
    extractor: str,
    neighbours: int,
) -> tuple[FeatureScore, FeatureScore]:
    first, second = np.broadcast_to(errors, 2)
    settings = {"neighbours": neighbours}
    return (
        FeatureScore(values[0], float(first), n, extractor, settings),
        FeatureScore(values[1], float(second), n, extractor, settings),
    )


def _jackknife_error(a: NDArray[np.float64], b: NDArray[np.float64], units: RowUnits) -> float:
    """Standard error of the kernel distance from all rows: each unit is left out once.

    Sums of kernel values over a unit's rows give the distance without it, so that the kernel is
    computed once.
    """
    if units.count() < 3:
        return math.nan
    sizes_a, sizes_b = np.bincount(units.a), np.bincount(units.b)
    aa, own_aa = _kernel_sums(a, a, units.a, units.a, same=True)
    bb, own_bb = _kernel_sums(b, b, units.b, units.b, same=True)
    ab, own_ab = _kernel_sums(a, b, units.a, units.b)
    n, m = len(a), len(b)
    if units.paired:
        ba, _ = _kernel_sums(b, a, units.b, units.a)
        without = _squared_mmd(
            aa.sum() - 2 * aa + own_aa,
            bb.sum() - 2 * bb + own_bb,
            ab.sum() - ab - ba + own_ab,
            n - sizes_a,
            n - sizes_a,
        )
        return math.sqrt(_jackknife_variance(without))
    ba, _ = _kernel_sums(b, a, units.b, units.a)
    without_a = _squared_mmd(
        aa.sum() - 2 * aa + own_aa, bb.sum(), ab.sum() - ab, n - sizes_a, np.array(m)
    )
    without_b = _squared_mmd(
        aa.sum(), bb.sum() - 2 * bb + own_bb, ab.sum() - ba, np.array(n), m - sizes_b
    )
    return math.sqrt(_jackknife_variance(without_a) + _jackknife_variance(without_b))


def _distance_of_strangers(
    a: NDArray[np.float64], b: NDArray[np.float64], units: RowUnits, extractor: str
) -> FeatureScore:
    """Kernel distance from the products of rows of different units, and its jackknife error."""
    if not units.paired:
        raise ConfigurationError("keep_pairs = False: expected paired features")
    count = units.count()
    if count < 2:
        raise ConfigurationError(f"{count} units: a kernel distance without pairs needs 2")
    sums = [
        _kernel_sums(first, second, units.a, units.a)
        for first, second in ((a, a), (b, b), (a, b), (b, a))
    ]
    aa, bb, ab, ba = (everyone - own for everyone, own in sums)
    sizes = np.bincount(units.a)
    contributions = aa + bb - ab - ba  # of each unit with all others
    products = len(a) ** 2 - np.square(sizes).sum()
    value = float(contributions.sum() / products)
    error = math.nan
    if count > 2:
        without = (contributions.sum() - 2 * contributions) / (
            products - 2 * sizes * (len(a) - sizes)
        )
        error = math.sqrt(_jackknife_variance(without))
    return FeatureScore(value, error, len(a), extractor, {"pairs": 0})


def _kernel_sums(
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    units_a: NDArray[np.intp],
    units_b: NDArray[np.intp],
    *,
    same: bool = False,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums of kernel values of each unit of `a` with all rows of `b`, and with its own unit's.

    Args:
        a: (N,D).
        b: (M,D).
        units_a: (N,) unit numbers from 0.
        units_b: (M,) the same.
        same: Whether `b` is `a`, and a row's value with itself is left out.
    """
    everyone, own = np.zeros(len(a)), np.zeros(len(a))
    for start in range(0, len(a), _ROWS_AT_ONCE):
        rows = np.arange(start, min(start + _ROWS_AT_ONCE, len(a)))
        products = a[rows] @ b.T / a.shape[1] + 1
        values = products * products * products  # ** 3 takes ten times as long
        if same:
            values[np.arange(len(rows)), rows] = 0
        everyone[rows] = values.sum(axis=1)
        own[rows] = (values * (units_a[rows, None] == units_b)).sum(axis=1)
    sums = [np.bincount(units_a, weights=values) for values in (everyone, own)]
    return sums[0].astype(np.float64), sums[1].astype(np.float64)


def _squared_mmd(
    aa: NDArray[np.float64],
    bb: NDArray[np.float64],
    ab: NDArray[np.float64],
    n: NDArray[np.integer],
    m: NDArray[np.integer],
) -> NDArray[np.float64]:
    """Unbiased squared MMD from sums of kernel values, without those of rows with themselves."""
    return np.asarray(aa / (n * (n - 1)) + bb / (m * (m - 1)) - 2 * ab / (n * m))


def _jackknife_variance(without: NDArray[np.float64]) -> float:
    """Variance of a statistic from its values without each of the units."""
    count = len(without)
    return float((count - 1) / count * np.square(without - without.mean()).sum())
