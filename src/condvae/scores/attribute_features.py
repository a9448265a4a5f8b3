"""Features of generated images against real ones with the same attributes: distance and diversity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist, pdist

from condvae.ground.attributes import Attribute
from condvae.ground.configuration import ConfigurationError
from condvae.scores.attribute_scores import ALL
from condvae.scores.estimates import ScoreValue, ratio_of_sums
from condvae.scores.feature_scores import Features, FeatureScore
from condvae.scores.frechet import frechet_distance

__all__ = [
    "LEAST_ROWS",
    "frechet_by_value",
    "frechet_of_halves",
    "pair_distances",
    "relative_diversity",
]

LEAST_ROWS = 8
"""A Frechet distance has at least as many images on either side."""

_MOST_ALIKE = 1000  # real images of one condition compared with each other


def frechet_by_value(
    generated: Features,
    generated_y: ArrayLike,
    real: Features,
    real_y: ArrayLike,
    attributes: Sequence[Attribute],
    *,
    extractor: str,
    resamples: int = 50,
    seed: int = 0,
) -> dict[str, FeatureScore]:
    """Frechet distance overall and within each value of each categorical attribute.

    The bias is about a constant over n (``n x distance`` of equal laws is constant), and a value of an
    attribute has few images: read a distance beside its n and `frechet_of_halves`, and compare at
    equal n only. It is computed from fewer than 2 D rows too.

    Args:
        generated: (M,D) features.
        generated_y: (M,A) what they were asked for, nan = not asked.
        real: (N,D) features.
        real_y: (N,A), nan = unknown.
        attributes: A attributes; continuous ones have no groups.
        extractor: What produced the features.
        resamples: Bootstrap resamples for each standard error, 0 for none.
        seed: Of the bootstrap.

    Returns:
        ``all`` and ``class=3`` -> distance, with the lesser number of images for n; without values of
        fewer than `LEAST_ROWS` generated or real images.

    Raises:
        ConfigurationError: Shapes that do not fit, or features that are not finite.
    """
    wanted = _rows_by_value("generated_y", generated_y, generated, attributes)
    known = _rows_by_value("real_y", real_y, real, attributes)
    return {
        name: frechet_distance(
            generated[wanted[name]],
            real[known[name]],
            extractor=extractor,
            paired=False,
            resamples=resamples,
            seed=seed,
            force=True,
        )
        for name in wanted
        if min(wanted[name].sum(), known[name].sum()) >= LEAST_ROWS
    }


def frechet_of_halves(
    real: Features,
    real_y: ArrayLike,
    attributes: Sequence[Attribute],
    *,
    extractor: str,
    resamples: int = 50,
    seed: int = 0,
) -> dict[str, FeatureScore]:
    """The floor of `frechet_by_value`: the same between halves of the real images.

    The halves are random but have the same conditions, as images generated at the conditions of real
    ones have: without that the floor would be too high. Each has half as many images, so about twice
    the bias that equal laws show at the whole number. A distance that is not clearly above half the
    floor is not told from zero.

    Args:
        real: (N,D) features.
        real_y: (N,A), nan = unknown.
        attributes: A attributes; continuous ones have no groups.
        extractor: What produced the features.
        resamples: Bootstrap resamples for each standard error, 0 for none.
        seed: Of halves and bootstrap.

    Returns:
        As `frechet_by_value`, without values of fewer than 2 `LEAST_ROWS` images.

    Raises:
        ConfigurationError: Shapes that do not fit, or features that are not finite.
    """
    floors = {}
    y = np.asarray(real_y, dtype=np.float64)
    rng = np.random.default_rng(seed)
    for name, rows in _rows_by_value("real_y", real_y, real, attributes).items():
        # At random, never in order: files are often sorted by class.
        order = rng.permutation(np.flatnonzero(rows))
        if len(order) < 2 * LEAST_ROWS:
            continue
        # Like conditions side by side, in random order; every other row then goes to either half.
        order = order[np.lexsort(y[order].T[::-1])]
        floors[name] = frechet_distance(
            real[order[::2]],
            real[order[1::2]],
            extractor=extractor,
            paired=False,
            resamples=resamples,
            seed=seed,
            force=True,
        )
    return floors


def pair_distances(samples: NDArray[Any]) -> NDArray[np.float64]:
    """Mean Euclidean distance between two samples of one condition.

    Args:
        samples: (S,N,D) features or pixels, S >= 2.

    Returns:
        (N,), mean over the S (S - 1) / 2 pairs.

    Raises:
        ConfigurationError: Another shape.
    """
    if samples.ndim != 3 or len(samples) < 2:
        raise ConfigurationError(f"samples of shape {samples.shape}: expected (S, N, D), S >= 2")
    # Case by case: a float64 copy of all pixels is eight times their size.
    cases = (samples[:, case].astype(np.float64) for case in range(samples.shape[1]))
    return np.array([pdist(case).mean() for case in cases])


def relative_diversity(
    generated: NDArray[np.float64], real: NDArray[Any], y: ArrayLike, *, seed: int = 0
) -> ScoreValue | None:
    """Distance between two samples with one y over that of two real images with the same y.

    1 is as diverse as the data; a sampler of one image per condition has 0. Noise makes it larger, so
    it is no quality by itself. Conditions weigh by their number of real images.

    Args:
        generated: (N,) of `pair_distances`, N conditions.
        real: (N,D) features or pixels of the real images with these conditions.
        y: (N,A) conditions; rows are alike when every value is, unknown ones included.
        seed: Picks 1,000 of the rows of a condition that has more.

    Returns:
        Ratio, standard error over rows (the pairs of real images overlap, which it accounts for),
        number of rows with a partner; `None` where there is none, as with continuous conditions.

    Raises:
        ConfigurationError: Shapes that do not fit.
    """
    conditions = np.asarray(y, dtype=np.float64)
    if not (conditions.ndim == real.ndim == 2 and len(conditions) == len(real) == len(generated)):
        raise ConfigurationError(
            f"{generated.shape} distances, real features of shape {real.shape}, conditions of shape "
            f"{conditions.shape}: expected (N,), (N, D) and (N, A)"
        )
    _, groups = np.unique(
        np.where(np.isnan(conditions), np.inf, conditions), axis=0, return_inverse=True
    )
    groups = groups.reshape(-1)
    rng = np.random.default_rng(seed)
    above, below = [], []
    for group in range(int(groups.max()) + 1):
        rows = rng.permutation(np.flatnonzero(groups == group))[:_MOST_ALIKE]
        if len(rows) < 2:
            continue
        numbers = real[rows].astype(np.float64)
        to_others = cdist(numbers, numbers).sum(axis=1) / (len(rows) - 1)
        # Hoeffding's projection of the mean over pairs, of which each row is in two places; it is
        # not negative by the triangle inequality.
        below.append(np.maximum(2 * to_others - to_others.mean(), 0.0))
        above.append(generated[rows])
    if not below:
        return None
    denominators = np.concatenate(below)
    if denominators.sum() == 0:
        return None
    return ratio_of_sums(np.concatenate(above), denominators)


def _rows_by_value(
    name: str, y: ArrayLike, features: Features, attributes: Sequence[Attribute]
) -> dict[str, NDArray[np.bool_]]:
    """Rows (N,) of every group."""
    values = np.asarray(y, dtype=np.float64)
    if values.shape != (len(features), len(attributes)):
        raise ConfigurationError(
            f"{name} of shape {values.shape}: expected {(len(features), len(attributes))}"
        )
    rows = {ALL: np.ones(len(values), dtype=bool)}
    for column, attribute in zip(values.T, attributes, strict=True):
        for index, value in enumerate(attribute.values):
            rows[f"{attribute.name}={value}"] = column == index
    return rows
