"""Do images show the attributes they were asked for? Scores of predicted against wanted values.

Attribute vectors are coded as everywhere: a categorical attribute holds the index of its value, a
continuous one its standardised value, nan in the wanted values is "not asked". Predictions come from
a classifier of images, whose own scores on real images are the ceiling of these.

Each score is a smooth function of means, so its standard error is the first-order (delta-method) one:
every row has an influence on the score, and rows of a cluster come and go together.

References:
    N. Obuchowski. Nonparametric analysis of clustered ROC curve data. Biometrics 1997.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from condvae.ground.attributes import Attribute, check_conditions
from condvae.ground.configuration import ConfigurationError
from condvae.scores.estimates import ScoreValue, cluster_groups

__all__ = ["ALL", "AttributeScore", "relative_score", "score_attributes"]

ALL = "all"
"""In place of an attribute's name: the mean over attributes, or all of them together."""

_Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class AttributeScore:
    """A score of one attribute or of all.

    Attributes:
        metric: ``accuracy``; ``balanced_accuracy``, mean over values of the share of rows asked for
            the value that show it; ``f1``, mean over the values asked for; ``auroc``, mean over the
            values asked for of telling rows asked for the value from the others by its probability;
            ``exact_match``, share of rows that show every categorical value they were asked for;
            of continuous attributes ``rmse`` and ``correlation``.
        attribute: Its name, or `ALL`: the unweighted mean over attributes (``exact_match``: all
            together).
        score: Value, standard error, number of rows that were asked for it.
    """

    metric: str
    attribute: str
    score: ScoreValue


@dataclass(frozen=True)
class _Part:
    """A value with the influence of each row on it, (N,), zero where the row was not asked."""

    value: float
    influences: _Numbers
    asked: NDArray[np.bool_]


def score_attributes(
    predicted: ArrayLike,
    wanted: ArrayLike,
    attributes: Sequence[Attribute],
    *,
    probabilities: Sequence[ArrayLike | None] | None = None,
    clusters: ArrayLike | None = None,
) -> list[AttributeScore]:
    """Score predicted attributes against wanted ones.

    An attribute that no row was asked for is left out, as are an AUROC with one value asked for and a
    correlation with a constant. An imbalanced attribute shows in the gap between accuracy and balanced
    accuracy: always guessing the commonest of K values gives 1 / K of the latter.

    Args:
        predicted: (N,A).
        wanted: (N,A), nan = not asked.
        attributes: A attributes.
        probabilities: Of each attribute (N,K) of its K values, `None` for a continuous one; without
            them there is no AUROC.
        clusters: (N,) labels of the independent units (several samples of one condition), `None` when
            all rows are independent.

    Raises:
        ConfigurationError: Shapes that do not fit, a wanted value that does not exist, or a missing
            prediction where a value is asked for.
    """
    given, asked_for = _check(predicted, wanted, attributes)
    tables: Sequence[ArrayLike | None] = probabilities or [None] * len(attributes)
    if len(tables) != len(attributes):
        raise ConfigurationError(
            f"probabilities of {len(tables)} attributes: expected {len(attributes)}"
        )
    groups, _ = cluster_groups(len(given), clusters)
    parts: dict[str, dict[str, _Part]] = {}
    for place, attribute in enumerate(attributes):
        columns = given[:, place], asked_for[:, place]
        if np.isnan(columns[1]).all():
            continue
        if attribute.values:
            found = _score_categorical(*columns, attribute, tables[place])
        else:
            found = _score_continuous(*columns)
        for metric, part in found.items():
            parts.setdefault(metric, {})[attribute.name] = part
    scores = []
    for metric, by_name in parts.items():
        own = {ALL: _mean_part(list(by_name.values())), **by_name}
        scores += [AttributeScore(metric, name, _finish(p, groups)) for name, p in own.items()]
    categorical = [bool(attribute.values) for attribute in attributes]
    match = _exact_match(given[:, categorical], asked_for[:, categorical])
    if match is not None:
        scores.append(AttributeScore("exact_match", ALL, _finish(match, groups)))
    return scores


def relative_score(score: ScoreValue, ceiling: ScoreValue) -> ScoreValue:
    """Divide a score by its ceiling, the same score of real images.

    Returns:
        The ratio and n of `score`; the standard error takes both as independent, nan where either's
        is. Nan for a ceiling of zero.
    """
    if ceiling.value == 0:
        return ScoreValue(math.nan, math.nan, score.n)
    ratio = score.value / ceiling.value
    error = math.hypot(score.standard_error, ratio * ceiling.standard_error) / abs(ceiling.value)
    return ScoreValue(ratio, error, score.n)


def _check(
    predicted: ArrayLike, wanted: ArrayLike, attributes: Sequence[Attribute]
) -> tuple[_Numbers, _Numbers]:
    given, asked_for = (np.asarray(v, dtype=np.float64) for v in (predicted, wanted))
    if given.shape != asked_for.shape or given.ndim != 2 or given.shape[1] != len(attributes):
        raise ConfigurationError(
            f"predicted of shape {given.shape}, wanted of shape {asked_for.shape}: expected (N, A) "
            f"with A = {len(attributes)} for both"
        )
    check_conditions(attributes, torch.from_numpy(asked_for))
    check_conditions(attributes, torch.from_numpy(given))
    missing = np.isnan(given) & ~np.isnan(asked_for)
    if missing.any():
        row, column = np.argwhere(missing)[0]
        raise ConfigurationError(
            f"predicted {attributes[column].name} of row {row} = nan: expected a value where one is "
            "wanted"
        )
    return given, asked_for


def _score_categorical(
    given: _Numbers, wanted: _Numbers, attribute: Attribute, probabilities: ArrayLike | None
) -> dict[str, _Part]:
    asked = ~np.isnan(wanted)
    right = np.where(asked, given == wanted, 0.0)
    recalls, overlaps, curves = [], [], []
    table = None if probabilities is None else np.asarray(probabilities, dtype=np.float64)
    if table is not None and table.shape != (len(given), len(attribute.values)):
        raise ConfigurationError(
            f"probabilities of {attribute.name} of shape {table.shape}: expected "
            f"{(len(given), len(attribute.values))}"
        )
    for value in np.unique(wanted[asked]):
        those = wanted == value
        recalls.append(_ratio(right * those, those, asked))
        shown = asked & (given == value)
        overlaps.append(_ratio(2.0 * (those & shown), those * 1.0 + shown, asked))
        if table is not None and not np.array_equal(those, asked):
            curves.append(_area(table[:, int(value)], those, asked & ~those))
    parts = {
        "accuracy": _ratio(right, asked, asked),
        "balanced_accuracy": _mean_part(recalls),
        "f1": _mean_part(overlaps),
    }
    return parts | ({"auroc": _mean_part(curves)} if curves else {})


def _score_continuous(given: _Numbers, wanted: _Numbers) -> dict[str, _Part]:
    asked = ~np.isnan(wanted)
    square = _ratio(np.where(asked, (given - wanted) ** 2, 0.0), asked, asked)
    root = math.sqrt(square.value)
    slope = 0.5 / root if root > 0 else 0.0
    parts = {"rmse": _Part(root, slope * square.influences, asked)}
    x, y = given[asked], wanted[asked]
    if x.std() > 0 and y.std() > 0:
        x, y = (x - x.mean()) / x.std(), (y - y.mean()) / y.std()
        correlation = float((x * y).mean())
        influences = np.zeros(len(given))
        influences[asked] = (x * y - correlation * (x**2 + y**2) / 2) / len(x)
        parts["correlation"] = _Part(correlation, influences, asked)
    return parts


def _exact_match(given: _Numbers, wanted: _Numbers) -> _Part | None:
    """`None` when no row was asked for a categorical value."""
    asked = ~np.isnan(wanted)
    rows: NDArray[np.bool_] = np.any(asked, axis=1)
    if not rows.any():
        return None
    right: NDArray[np.bool_] = np.all((given == wanted) | ~asked, axis=1)
    return _ratio(rows & right, rows, rows)


def _ratio(
    above: NDArray[np.generic], below: NDArray[np.generic], asked: NDArray[np.bool_]
) -> _Part:
    """Ratio of the sums of (N,) and (N,)."""
    numerators, denominators = above.astype(np.float64), below.astype(np.float64)
    total = float(denominators.sum())
    value = float(numerators.sum()) / total
    return _Part(value, (numerators - value * denominators) / total, asked)


def _area(scores: _Numbers, those: NDArray[np.bool_], others: NDArray[np.bool_]) -> _Part:
    """Area under the ROC curve: probability that one of `those` scores above one of `others`."""
    n, m = int(those.sum()), int(others.sum())
    ranks = np.zeros(len(scores))
    ranks[those | others] = rankdata(scores[those | others])
    beaten = (ranks[those] - rankdata(scores[those])) / m
    beaten_by = (n - ranks[others] + rankdata(scores[others])) / n
    value = float(beaten.mean())
    influences = np.zeros(len(scores))
    influences[those], influences[others] = (beaten - value) / n, (beaten_by - value) / m
    return _Part(value, influences, those | others)


def _mean_part(parts: Sequence[_Part]) -> _Part:
    return _Part(
        float(np.mean([part.value for part in parts])),
        np.asarray(np.mean([part.influences for part in parts], axis=0)),
        np.logical_or.reduce([part.asked for part in parts]),
    )


def _finish(part: _Part, groups: NDArray[np.intp]) -> ScoreValue:
    """Sum influences over clusters, which are independent."""
    _, units = np.unique(groups[part.asked], return_inverse=True)
    sums = np.bincount(units, weights=part.influences[part.asked])
    count = len(sums)
    error = math.sqrt(count / (count - 1) * float(sums @ sums)) if count > 1 else math.nan
    return ScoreValue(part.value, error, int(part.asked.sum()))
