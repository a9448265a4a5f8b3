"""Ranks of truths among draws, and whether they are uniform (simulation-based calibration).

Given y, the truth and S draws of an exact posterior sampler are exchangeable. The rank of any
statistic of the truth among those of the draws is then uniform on 0 .. S, and independent of y.

References:
    S. Talts, M. Betancourt, D. Simpson, A. Vehtari, A. Gelman. Validating Bayesian inference
    algorithms with simulation-based calibration. 2018.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from condvae.calibration.shape import RankShape, rank_shape
from condvae.ground.configuration import ConfigurationError, check_positive

__all__ = [
    "RankTest",
    "assess_all_ranks",
    "assess_ranks",
    "case_uniforms",
    "check_ranks",
    "choose_bins",
    "choose_marked",
    "one_case_per_image",
    "rank_truths",
]

MOST_BINS = 20
# Deviations of samplers are smooth: fewer, fuller bins see them better than many nearly empty ones.
CASES_PER_BIN = 20


@dataclass(frozen=True)
class RankTest:
    """Test of one statistic's ranks.

    Attributes:
        name: Of the statistic.
        n: Independent images the test is made of.
        draws: S; ranks go from 0 to S.
        counts: Ranks in each of the equally wide bins.
        chi_square: Pearson's statistic against equal counts.
        p_value: Of the chi-square test, not corrected for other tests.
        shape: Which way the histogram deviates.
    """

    name: str
    n: int
    draws: int
    counts: tuple[int, ...]
    chi_square: float
    p_value: float
    shape: RankShape


def case_uniforms(name: str, seed: int, first: int, n: int) -> NDArray[np.float64]:
    """Draw uniform numbers that belong to cases, whatever the chunks they come in.

    Args:
        name: What they are for; other names get independent numbers.
        seed: At least 0.
        first: Number of the first case among all.
        n: How many cases.

    Returns:
        (n,) in [0, 1), the numbers of the cases first .. first + n - 1.
    """
    bits = np.random.PCG64([seed, zlib.crc32(name.encode())])
    bits.advance(first)
    return np.random.Generator(bits).random(n)


def choose_marked(marked: ArrayLike, uniforms: ArrayLike) -> NDArray[np.intp]:
    """Choose one of the marked places of each row, all equally likely.

    Args:
        marked: bool (N,D), at least one place in each row.
        uniforms: (N,) in [0, 1), they decide; see `case_uniforms`.

    Returns:
        (N,) places, 0 to D - 1.
    """
    places = np.asarray(marked, np.bool_)
    wanted = np.floor(np.asarray(uniforms) * places.sum(axis=1)) + 1
    return np.asarray((places.cumsum(axis=1) >= wanted[:, None]).argmax(axis=1))


def rank_truths(
    truths: ArrayLike, draws: ArrayLike, uniforms: ArrayLike, *, resolution: float = 0.0
) -> NDArray[np.int64]:
    """Count the draws below the truth; among equal values the truth's place is random.

    Args:
        truths: (N,) statistic of the truths.
        draws: (S,N) the same statistic of the draws.
        uniforms: (N,) in [0, 1), they decide ties; see `case_uniforms`.
        resolution: Values are rounded to this share of the largest magnitude of their case before
            they are compared. Networks give identical images slightly different numbers in batches
            of different sizes, which must count as equal. 0 = compare as they are.

    Returns:
        (N,), 0 to S.

    Raises:
        ConfigurationError: Other shapes, or values that are not finite.
    """
    true, drawn, places = np.asarray(truths), np.asarray(draws), np.asarray(uniforms)
    if drawn.ndim != 2 or len(drawn) == 0 or true.shape != drawn.shape[1:]:
        raise ConfigurationError(
            f"draws of shape {drawn.shape}, truths of shape {true.shape}: "
            "expected (S, N) with S >= 1 and (N,)"
        )
    if places.shape != true.shape:
        raise ConfigurationError(f"uniforms of shape {places.shape}: expected {true.shape}")
    if not (np.isfinite(true).all() and np.isfinite(drawn).all()):
        raise ConfigurationError("statistics contain values that are not finite")
    if resolution > 0:
        step = resolution * np.maximum(np.abs(drawn).max(axis=0), np.abs(true))
        step = np.where(step > 0, step, 1.0)
        true, drawn = np.round(true / step), np.round(drawn / step)
    below = (drawn < true).sum(axis=0)
    equal = (drawn == true).sum(axis=0)
    return np.asarray(below + np.floor(places * (equal + 1)).astype(np.int64))


def choose_bins(draws: int, n: int) -> int:
    """Choose the number of histogram bins: a divisor of S + 1, so that bins are equally likely.

    Args:
        draws: S.
        n: Independent cases.

    Returns:
        The largest divisor of S + 1 that is at most 20 and leaves 20 cases for each bin, at least
        the smallest divisor above 1.

    Raises:
        ConfigurationError: S + 1 has no divisor between 2 and 20; the message names an S that has.
    """
    check_positive("draws", draws)
    divisors = [b for b in range(2, MOST_BINS + 1) if (draws + 1) % b == 0]
    if not divisors:
        better = (draws + 1) // MOST_BINS * MOST_BINS - 1
        raise ConfigurationError(
            f"{draws} draws: {draws + 1} ranks cannot be divided into 2 to {MOST_BINS} equal bins; "
            f"use {better} draws"
        )
    return max([b for b in divisors if b * CASES_PER_BIN <= n], default=divisors[0])


def assess_ranks(name: str, ranks: ArrayLike, draws: int, *, bins: int | None = None) -> RankTest:
    """Test whether the ranks of independent cases are uniform.

    Args:
        name: Of the statistic.
        ranks: (N,) integers 0 .. S, one case per image.
        draws: S.
        bins: Number of histogram bins, a divisor of S + 1; `None` = `choose_bins`.

    Raises:
        ConfigurationError: No ranks, ranks out of range, or bins that do not divide S + 1.
    """
    values = check_ranks(ranks, draws)
    bins = choose_bins(draws, len(values)) if bins is None else bins
    if bins < 2 or (draws + 1) % bins:
        raise ConfigurationError(f"bins = {bins!r}: expected a divisor of {draws + 1}, at least 2")
    counts = np.bincount(values * bins // (draws + 1), minlength=bins)
    expected = len(values) / bins
    chi_square = float(((counts - expected) ** 2).sum() / expected)
    return RankTest(
        name,
        len(values),
        draws,
        tuple(counts.tolist()),
        chi_square,
        float(special.chdtrc(bins - 1, chi_square)),
        rank_shape(values, draws),
    )


def assess_all_ranks(
    ranks: Mapping[str, ArrayLike], draws: int, images: ArrayLike | None = None, *, seed: int
) -> tuple[RankTest, ...]:
    """Test every statistic on one case of each image.

    Ranks of cases that share an image depend on each other in an unknown way. Taking one of them
    keeps every p-value exact at any number of images.

    Args:
        ranks: Name -> (N,) ranks of all cases.
        draws: S.
        images: (N,) image of each case, `None` when no two cases share one.
        seed: Decides which case of an image is taken, the same for all statistics.
    """
    if not ranks:
        raise ConfigurationError("no ranks: expected at least one statistic")
    n = len(np.asarray(next(iter(ranks.values()))))
    labels = np.arange(n) if images is None else np.asarray(images)
    chosen = one_case_per_image(labels, seed)
    tests = []
    for name, values in ranks.items():
        array = np.asarray(values)
        if array.shape != (n,) or labels.shape != (n,):
            raise ConfigurationError(
                f"ranks of {name} of shape {array.shape}, images of shape {labels.shape}: "
                f"expected ({n},) twice"
            )
        tests.append(assess_ranks(name, array[chosen], draws))
    return tuple(tests)


def one_case_per_image(images: ArrayLike, seed: int) -> NDArray[np.intp]:
    """Choose one case of every image at random: (N,) labels -> case numbers, ascending."""
    labels = np.asarray(images)
    order = np.random.default_rng(seed).permutation(len(labels))
    _, first = np.unique(labels[order], return_index=True)
    return np.sort(order[first])


def check_ranks(ranks: ArrayLike, draws: int) -> NDArray[np.int64]:
    """Return integer ranks (N,), N >= 1, or raise `ConfigurationError`."""
    values = np.asarray(ranks)
    if values.ndim != 1 or values.size == 0 or values.dtype.kind not in "iu":
        raise ConfigurationError(
            f"ranks of shape {values.shape} and type {values.dtype}: expected integers (N,), N >= 1"
        )
    if values.min() < 0 or values.max() > draws:
        raise ConfigurationError(
            f"ranks from {values.min()} to {values.max()}: expected 0 to {draws}"
        )
    return values.astype(np.int64)
