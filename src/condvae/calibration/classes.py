"""Does the distribution of classes over completions match the label of the truth?

S completions only estimate the class distribution, so that even an exact sampler's scores are not
those of the exact distribution. They are compared with what an exact sampler would get with the same
S: under it truth and completions are exchangeable, and any of the S + 1 labels could be the true one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from condvae.calibration.ranks import one_case_per_image
from condvae.ground.configuration import ConfigurationError, check_positive
from condvae.scores.estimates import ScoreValue, mean_score

__all__ = ["ClassCalibration", "ReliabilityBin", "assess_classes", "scores_by_class"]


@dataclass(frozen=True)
class ReliabilityBin:
    """Cases whose likeliest class has about the same share of the completions.

    Attributes:
        low: Lower end of the confidence, exclusive but in the first bin.
        high: Upper end, inclusive.
        n: Number of images; the other numbers are nan when it is 0.
        confidence: Mean share of completions in the likeliest class.
        accuracy: Share of cases where that class is the true one.
        accuracy_low: Lower end of Wilson's 95 % interval of the accuracy.
        accuracy_high: Upper end.
        exact_low: 2.5 % quantile of the accuracy an exact sampler would show (consistency bar).
        exact_high: 97.5 % quantile.
    """

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    exact_low: float
    exact_high: float


@dataclass(frozen=True)
class ClassCalibration:
    """Calibration of the class distribution over completions.

    Attributes:
        draws: S.
        classes: C.
        nll: Mean negative log probability of the true class, nats, all cases. Probabilities are
            (completions in the class + 1/2) / (S + C/2), so that none is 0.
        nll_excess: `nll` less what an exact sampler is expected to get with these S; above 0 the
            class distribution is too sure, below 0 not sure enough.
        brier: Mean of sum_c (p_c - [c is true])², 0 to 2, less the part that is due to estimating
            p from S completions (unbiased in S).
        brier_excess: `brier` less its expectation for an exact sampler.
        ece: Expected calibration error of the likeliest class, one case per image.
        exact_ece: Its mean for an exact sampler with as many cases and completions; never 0.
        p_value: Two-sided, `ece` among the errors of simulated exact samplers. Exact samplers look
            too sure of their likeliest class, which few completions have picked: one that is not
            sure enough may show a smaller error than they do.
        reliability: Bins of the curve, one case per image.
        n: Number of images in `ece` and `reliability`.
    """

    draws: int
    classes: int
    nll: ScoreValue
    nll_excess: ScoreValue
    brier: ScoreValue
    brier_excess: ScoreValue
    ece: float
    exact_ece: float
    p_value: float
    reliability: tuple[ReliabilityBin, ...]
    n: int


def assess_classes(
    predictions: ArrayLike,
    labels: ArrayLike,
    classes: int,
    images: ArrayLike | None = None,
    *,
    seed: int,
    bins: int = 10,
    simulations: int = 999,
) -> ClassCalibration:
    """Score the class distribution over completions against the labels of the truths.

    Args:
        predictions: Integers (S,N), S >= 2: classes a classifier gives the completions.
        labels: Integers (N,). The classifier's classes of the true images judge the sampler alone;
            true labels judge sampler and classifier together.
        classes: C, at least 2.
        images: (N,) image of each case, `None` when no two cases share one. Standard errors are
            clustered by it; error, curve and p-value are made of one case of each image.
        seed: Of that choice and of the simulations.
        bins: Equally wide bins of the confidence (Guo et al. 2017).
        simulations: Simulated exact samplers.

    Raises:
        ConfigurationError: Other shapes or types, or a class outside 0 .. C - 1.
    """
    given, true = np.asarray(predictions), np.asarray(labels)
    _check_labels(given, true, classes)
    check_positive("bins", bins)
    check_positive("simulations", simulations)
    draws, n = given.shape
    counts = np.stack([(given == c).sum(axis=0) for c in range(classes)], axis=1)
    totals = counts + (true[:, None] == np.arange(classes))
    nll, brier = scores_by_class(totals, draws)
    rows = np.arange(n)
    weights = totals / (draws + 1)
    chosen = one_case_per_image(rows if images is None else images, seed)
    ece, exact, curve = _assess_confidence(
        totals[chosen], true[chosen], draws, bins, simulations, seed
    )
    return ClassCalibration(
        draws=draws,
        classes=classes,
        nll=mean_score(nll[rows, true], images),
        nll_excess=mean_score(nll[rows, true] - (weights * nll).sum(axis=1), images),
        brier=mean_score(brier[rows, true], images),
        brier_excess=mean_score(brier[rows, true] - (weights * brier).sum(axis=1), images),
        ece=ece,
        exact_ece=float(exact.mean()),
        p_value=_two_sided(ece, exact),
        reliability=curve,
        n=len(chosen),
    )


def _check_labels(given: NDArray[np.generic], true: NDArray[np.generic], classes: int) -> None:
    if given.ndim != 2 or given.shape[0] < 2 or true.shape != given.shape[1:] or true.size == 0:
        raise ConfigurationError(
            f"predictions of shape {given.shape}, labels of shape {true.shape}: "
            "expected (S, N) with S >= 2 and (N,) with N >= 1"
        )
    if given.dtype.kind not in "iu" or true.dtype.kind not in "iu":
        raise ConfigurationError(
            f"predictions of type {given.dtype}, labels of type {true.dtype}: expected integers"
        )
    if classes < 2:
        raise ConfigurationError(f"classes = {classes!r}: expected at least 2")
    for name, values in (("predictions", given), ("labels", true)):
        low, high = np.min(values), np.max(values)
        if low < 0 or high >= classes:
            raise ConfigurationError(
                f"{name} from {low} to {high}: expected classes 0 to {classes - 1}"
            )


def scores_by_class(
    totals: NDArray[np.int64], draws: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Negative log-likelihood and Brier score of every case, if class c were its truth.

    Args:
        totals: Integers (N,C), completions in each class, the truth counted in.
        draws: S, completions without the truth.

    Returns:
        Both (N,C); see `ClassCalibration`.
    """
    classes = totals.shape[1]
    rest = totals - 1.0
    possible = np.where(totals > 0, (rest + 0.5) / (draws + classes / 2), 1.0)
    squares = (np.square(totals).sum(axis=1, keepdims=True) - 2 * totals + 1) / draws**2
    brier = squares - 2 * rest / draws + 1 - (1 - squares) / (draws - 1)
    return -np.log(possible), brier


def _assess_confidence(
    totals: NDArray[np.int64],
    true: NDArray[np.int64],
    draws: int,
    bins: int,
    simulations: int,
    seed: int,
) -> tuple[float, NDArray[np.float64], tuple[ReliabilityBin, ...]]:
    """Return the calibration error, those of simulated exact samplers, and the curve."""
    rng = np.random.default_rng(seed)
    ends = totals.cumsum(axis=1)
    errors, accuracies = [], []
    for _ in range(simulations):
        place = rng.integers(draws + 1, size=(len(totals), 1))
        n, confident, correct = _bin_confidences(totals, (ends <= place).sum(axis=1), draws, bins)
        errors.append(np.abs(confident - correct).sum() / len(totals))
        accuracies.append(_divide(correct, n))
    n, confident, correct = _bin_confidences(totals, true, draws, bins)
    error = float(np.abs(confident - correct).sum() / len(totals))
    confidence, accuracy = _divide(confident, n), _divide(correct, n)
    table = np.array(accuracies)
    curve = []
    for index in range(bins):
        low = high = exact_low = exact_high = np.nan
        simulated = table[~np.isnan(table[:, index]), index]
        if n[index]:
            test = stats.binomtest(int(correct[index]), int(n[index]))
            low, high = test.proportion_ci(0.95, method="wilson")
        if n[index] and len(simulated):
            exact_low, exact_high = np.quantile(simulated, [0.025, 0.975])
        numbers = (confidence[index], accuracy[index], low, high, exact_low, exact_high)
        curve.append(
            ReliabilityBin(
                index / bins, (index + 1) / bins, int(n[index]), *(float(v) for v in numbers)
            )
        )
    return error, np.array(errors), tuple(curve)


def _bin_confidences(
    totals: NDArray[np.int64], true: NDArray[np.int64], draws: int, bins: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Per bin: number of cases, sum of confidences, number of correct cases."""
    counts = totals.copy()
    counts[np.arange(len(true)), true] -= 1
    likeliest = counts.argmax(axis=1)
    top = counts[np.arange(len(true)), likeliest]
    # In integers: 0.3 * 10 is not 3 for every way to write 0.3.
    index = np.maximum(-(-top * bins // draws) - 1, 0)
    return (
        np.bincount(index, minlength=bins),
        np.bincount(index, weights=top / draws, minlength=bins).astype(np.float64),
        np.bincount(index, weights=likeliest == true, minlength=bins).astype(np.float64),
    )


def _two_sided(value: float, simulated: NDArray[np.float64]) -> float:
    """Monte-Carlo p-value; equal errors differ in their last digits and count as equal."""
    above, below = (simulated >= value - 1e-12).sum(), (simulated <= value + 1e-12).sum()
    return min(1.0, float(2 * (1 + min(above, below)) / (1 + len(simulated))))


def _divide(sums: NDArray[np.float64], n: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(np.divide(sums, n, out=np.full(len(n), np.nan), where=n > 0))
