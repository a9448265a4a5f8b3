"""Are the probabilities of a classifier those of the truth?"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from condvae.calibration.classes import assess_classes
from condvae.ground.configuration import ConfigurationError
from condvae.scores.estimates import ScoreValue, mean_score

__all__ = ["assess_probabilities", "credible_ranks"]

_LEVEL = 0.9
_LABELS = 99  # drawn of each case's probabilities


def assess_probabilities(
    probabilities: ArrayLike, labels: ArrayLike, *, seed: int
) -> dict[str, ScoreValue]:
    """Score probabilities of K values against true values.

    Args:
        probabilities: (N,K), rows sum to 1; K >= 2.
        labels: Integers (N,), true values.
        seed: Of ties, simulations, and of 99 labels drawn of each case, from which the calibration
            error is made as for completions.

    Returns:
        ``accuracy`` of the likeliest value; ``nll_nats``, mean negative log probability of the true
        one; ``coverage_90``, share of truths among the values of most probability 0.9 in all (see
        `credible_ranks`); ``calibration_error``, expected calibration error of the likeliest value;
        ``calibration_error_exact``, its mean for true probabilities; ``calibration_p_value``,
        two-sided, see `condvae.calibration.classes.ClassCalibration`. The last three have no standard
        error.

    Raises:
        ConfigurationError: Another shape or type, a label that does not exist, or rows that are no
            probabilities.
    """
    table, true = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    _check(table, true)
    rng = np.random.default_rng(seed)
    n, count = len(table), table.shape[1]
    inside = credible_ranks(table, true, rng.random(n)) <= _LEVEL
    drawn = (table.cumsum(axis=1)[:, :-1] <= rng.random((_LABELS, n, 1))).sum(axis=2)
    found = assess_classes(drawn, true, count, seed=seed)
    own = np.maximum(table[np.arange(n), true], np.finfo(np.float64).tiny)
    return {
        "accuracy": mean_score(table.argmax(axis=1) == true),
        "nll_nats": mean_score(-np.log(own)),
        "coverage_90": mean_score(inside),
        "calibration_error": ScoreValue(found.ece, math.nan, n),
        "calibration_error_exact": ScoreValue(found.exact_ece, math.nan, n),
        "calibration_p_value": ScoreValue(found.p_value, math.nan, n),
    }


def credible_ranks(
    probabilities: NDArray[np.float64],
    labels: NDArray[np.integer],
    uniform: NDArray[np.float64],
) -> NDArray[np.float64]:
    """How much probability lies on values likelier than the true one.

    Uniform on [0, 1] where the probabilities are those of the truth, so that the values of most
    probability, q in all, hold the truth in a share q of cases. A classifier too sure of itself has
    too many ranks near 1.

    Args:
        probabilities: (N,K).
        labels: (N,) true values.
        uniform: (N,) in [0, 1), the part of the true value's own probability that counts.

    Returns:
        (N,).
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ordered = np.take_along_axis(probabilities, order, axis=1)
    rows, places = np.arange(len(labels)), (order == labels[:, None]).argmax(axis=1)
    own = ordered[rows, places]
    return np.asarray(ordered.cumsum(axis=1)[rows, places] - own + uniform * own)


def _check(table: NDArray[np.float64], labels: NDArray[np.generic]) -> None:
    if table.ndim != 2 or table.shape[1] < 2 or labels.shape != table.shape[:1]:
        raise ConfigurationError(
            f"probabilities of shape {table.shape}, labels of shape {labels.shape}: expected (N, K) "
            "with K >= 2 and (N,)"
        )
    if labels.dtype.kind not in "iu" or not np.isin(labels, range(table.shape[1])).all():
        raise ConfigurationError(
            f"labels of type {labels.dtype}: expected integers, 0 to {table.shape[1] - 1}"
        )
    sums = table.sum(axis=1)
    if not ((table >= 0).all() and np.allclose(sums, 1, atol=1e-4)):
        raise ConfigurationError(
            f"probabilities from {table.min():g}, in rows that sum to {sums.min():g} to "
            f"{sums.max():g}: expected >= 0 and 1"
        )
