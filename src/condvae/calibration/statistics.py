"""Named statistics of completions and truths, and the truths' ranks under them.

Every function takes all draws of a chunk of cases and returns one rank per case and statistic, so
that completions of only a few cases are held at a time. What is random (ties, the chosen pixel, the
directions) belongs to the seed, the name and the case's number; chunks do not matter.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp

from condvae.calibration.ranks import case_uniforms, choose_marked, rank_truths
from condvae.calibration.tarp import TARP_OTHER, TARP_Y, squared_distances
from condvae.ground.configuration import ConfigurationError, check_positive

__all__ = ["View", "class_log_odds", "rank_classes", "rank_features", "rank_pixels"]

Ranks = dict[str, NDArray[np.int64]]

# Of float32 networks: identical images differ by about 1e-6 from batch to batch.
NETWORK_RESOLUTION = 1e-4


@dataclass(frozen=True, eq=False)
class View:
    """Draws and truths of n cases, as pixels or as features.

    Attributes:
        samples: (S,n,D), uint8 pixels or floats.
        truths: (n,D).
        unobserved: bool (n,D), the values that count; `None` = all. At least one in each case.
        references: (n,D), a function of each case's y; `None` leaves out distances.
        other_references: (n,D), references of other images; see
            `condvae.calibration.tarp.other_references`.
    """

    samples: NDArray[np.generic]
    truths: NDArray[np.generic]
    unobserved: NDArray[np.bool_] | None = None
    references: NDArray[np.generic] | None = None
    other_references: NDArray[np.generic] | None = None

    def __post_init__(self) -> None:
        shape = self.samples.shape[1:]
        if self.samples.ndim != 3 or 0 in self.samples.shape:
            raise ConfigurationError(f"samples of shape {self.samples.shape}: expected (S, n, D)")
        for name in ("truths", "unobserved", "references", "other_references"):
            value = getattr(self, name)
            if value is not None and value.shape != shape:
                raise ConfigurationError(f"{name} of shape {value.shape}: expected {shape}")
        if self.unobserved is not None and not self.unobserved.any(axis=1).all():
            case = int(np.flatnonzero(~self.unobserved.any(axis=1))[0])
            raise ConfigurationError(f"case {case} of the chunk hides nothing: it has no ranks")


def rank_pixels(
    view: View, *, seed: int, first: int = 0, pixels: int = 4, projections: int = 8
) -> Ranks:
    """Rank truths by statistics of their unobserved values.

    Args:
        view: The pixels of n cases.
        seed: Of everything random, at least 0.
        first: Number of the chunk's first case among all cases.
        pixels: How many statistics ``pixel_k``: an unobserved value chosen at random in each case.
        projections: How many statistics ``projection_k``: the sum of unobserved values with signs
            + and - that are the same for all cases.

    Returns:
        Ranks (n,) of ``pixel_k``, ``hole_mean``, ``projection_k`` and, with references,
        ``tarp_y_pixels`` and ``tarp_other_pixels``.
    """
    check_positive("pixels", pixels, zero=True)
    n, d = view.truths.shape
    unobserved = np.ones((n, d), bool) if view.unobserved is None else view.unobserved
    names = [f"pixel_{k}" for k in range(1, pixels + 1)]
    chosen = [
        choose_marked(unobserved, case_uniforms(f"choice of {name}", seed, first, n))
        for name in names
    ]
    columns = np.stack(chosen) if chosen else np.empty((0, n), np.intp)
    measure, others = _measure_vectors(view, unobserved, "projection", projections, seed, "pixels")
    rows, sizes, ones = np.arange(n), unobserved.sum(axis=1), np.ones(d)

    def statistics(images: NDArray[np.generic]) -> NDArray[np.float64]:
        # In float64 sums of grey levels are exact, so that equal ones tie.
        hidden = np.asarray(images, np.float64)
        hidden = hidden if view.unobserved is None else hidden * unobserved
        mean = hidden @ ones / sizes
        return np.concatenate([hidden[rows, columns], mean[None], measure(hidden)])

    return _rank_rows(view, statistics, [*names, "hole_mean", *others], seed, first)


def rank_features(view: View, *, seed: int, first: int = 0, projections: int = 8) -> Ranks:
    """Rank truths by random projections of their features, and by distances to references.

    Args:
        view: The features of n cases; references are features of reference images.
        seed: Of everything random, at least 0.
        first: Number of the chunk's first case among all cases.
        projections: How many statistics ``feature_projection_k``, sums of features with random signs.

    Returns:
        Ranks (n,) of ``feature_projection_k`` and, with references, ``tarp_y_features`` and
        ``tarp_other_features``.
    """
    if view.unobserved is not None:
        raise ConfigurationError("unobserved values of features: expected None")
    everything = np.ones(view.truths.shape, bool)
    measure, names = _measure_vectors(
        view, everything, "feature_projection", projections, seed, "features"
    )

    def statistics(features: NDArray[np.generic]) -> NDArray[np.float64]:
        return measure(np.asarray(features, np.float64))

    return _rank_rows(view, statistics, names, seed, first, NETWORK_RESOLUTION)


def rank_classes(
    sample_logits: ArrayLike, truth_logits: ArrayLike, *, seed: int, first: int = 0
) -> Ranks:
    """Rank truths by the probability a classifier gives to one class.

    Args:
        sample_logits: (S,n,classes).
        truth_logits: (n,classes), of the true images, not of their labels.
        seed: Decides ties.
        first: Number of the chunk's first case among all cases.

    Returns:
        Ranks (n,) of ``class_probability``.
    """
    draws, truths = class_log_odds(sample_logits, truth_logits)
    uniforms = case_uniforms("class_probability", seed, first, len(truths))
    ranks = rank_truths(truths, draws, uniforms, resolution=NETWORK_RESOLUTION)
    return {"class_probability": ranks}


def class_log_odds(
    sample_logits: ArrayLike, truth_logits: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log odds of the class that is likeliest over a case's draws and its truth together.

    The class may depend on the truth only if it depends on every draw in the same way: a choice by
    the true label alone would favour the truth. Log odds order images as probabilities do and do not
    saturate.

    Args:
        sample_logits: (S,n,classes).
        truth_logits: (n,classes).

    Returns:
        (S,n) of the draws and (n,) of the truths.

    Raises:
        ConfigurationError: Other shapes, or fewer than two classes.
    """
    drawn = np.asarray(sample_logits, np.float64)
    true = np.asarray(truth_logits, np.float64)
    if drawn.ndim != 3 or true.shape != drawn.shape[1:] or drawn.shape[2] < 2:
        raise ConfigurationError(
            f"logits of shapes {drawn.shape} and {true.shape}: expected (S, n, classes) and "
            "(n, classes), two classes or more"
        )
    logits = np.concatenate([drawn, true[None]])
    log_probabilities = logits - logsumexp(logits, axis=2, keepdims=True)
    # Rounded: classes in a near tie must not be chosen by the order of the summation.
    mean = np.round(np.exp(log_probabilities).mean(axis=0), 6)
    chosen = np.broadcast_to(mean.argmax(axis=1)[None, :, None], (len(logits), len(true), 1))
    own = np.take_along_axis(logits, chosen, axis=2)
    rest = logits.copy()
    np.put_along_axis(rest, chosen, -np.inf, axis=2)
    odds = own[..., 0] - logsumexp(rest, axis=2)
    return odds[:-1], odds[-1]


def _measure_vectors(
    view: View,
    unobserved: NDArray[np.bool_],
    prefix: str,
    projections: int,
    seed: int,
    space: str,
) -> tuple[Callable[[NDArray[np.float64]], NDArray[np.float64]], list[str]]:
    """What pixels and features share: a function (n,D) -> (statistics, n), and their names."""
    check_positive("projections", projections, zero=True)
    rng = np.random.default_rng([seed, zlib.crc32(prefix.encode())])
    directions = rng.integers(2, size=(projections, view.truths.shape[1])) * 2.0 - 1.0
    names = [f"{prefix}_{k}" for k in range(1, projections + 1)]
    targets = []
    for kind, reference in ((TARP_Y, view.references), (TARP_OTHER, view.other_references)):
        if reference is not None:
            targets.append(np.where(unobserved, reference, 0).astype(np.float64))
            names.append(f"{kind}_{space}")

    def measure(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        distances = [squared_distances(vectors, target)[None] for target in targets]
        return np.concatenate([directions @ vectors.T, *distances])

    return measure, names


def _rank_rows(
    view: View,
    statistics: Callable[[NDArray[np.generic]], NDArray[np.float64]],
    names: list[str],
    seed: int,
    first: int,
    resolution: float = 0.0,
) -> Ranks:
    """Rank every row of ``statistics(truths)``, (statistics, n), among those of the draws."""
    # Draw by draw: equal images give bit-equal numbers only in arrays of the same shape.
    draws = np.stack([statistics(images) for images in view.samples])
    truths = statistics(view.truths)
    return {
        name: rank_truths(
            truths[k],
            draws[:, k],
            case_uniforms(name, seed, first, truths.shape[1]),
            resolution=resolution,
        )
        for k, name in enumerate(names)
    }
