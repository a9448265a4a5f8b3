"""How fast a model learns: bounds over steps of training, and results of runs that are kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from condvae.ground.configuration import ConfigurationError
from condvae.ground.files import fingerprint, write_json

__all__ = [
    "LearningCurve",
    "keep_result",
    "mean_curve",
    "mean_of_runs",
    "reach_of_runs",
    "spaced_steps",
]


@dataclass(frozen=True)
class LearningCurve:
    """A score, the lower the better, after some numbers of steps.

    Between two of them it is taken to be linear in the logarithm of the step.

    Attributes:
        steps: (N), at least one, positive and rising.
        values: (N), finite.

    Raises:
        ConfigurationError: Anything else.
    """

    steps: tuple[int, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip((0, *self.steps), self.steps, strict=False))
        if not self.steps or not rising or len(self.steps) != len(self.values):
            raise ConfigurationError(
                f"steps = {self.steps} with {len(self.values)} values: expected rising positive steps "
                "and one value for each, at least one"
            )
        if not np.isfinite(self.values).all():
            raise ConfigurationError(f"values = {self.values}: expected finite numbers")

    @property
    def final(self) -> float:
        """Value after the last step."""
        return self.values[-1]

    def value_at(self, step: float) -> float:
        """Value after `step` steps, that of the nearest end outside the curve."""
        return float(np.interp(np.log(step), np.log(self.steps), self.values))

    def steps_to(self, target: float) -> float | None:
        """Steps until the value is `target` or lower for the first time; None if it never is.

        Where it is at the first point already, that point's step: an upper limit.
        """
        below = np.flatnonzero(np.asarray(self.values) <= target)
        if not len(below):
            return None
        i = int(below[0])
        if i == 0:
            return float(self.steps[0])
        before, after = self.values[i - 1], self.values[i]
        share = (before - target) / (before - after)
        start, end = np.log(self.steps[i - 1]), np.log(self.steps[i])
        return float(np.exp(start + share * (end - start)))

    def has_levelled(self, gain: float, share: float = 0.2) -> bool:
        """Whether the last `share` of the steps lowered the value by less than `gain` of it."""
        before = self.value_at((1 - share) * self.steps[-1])
        return before - self.final < gain * abs(before)


def spaced_steps(first: int, last: int) -> tuple[int, ...]:
    """Steps at which to look: `first`, times 1.5, times 2, times 3, times 4 and so on, and `last`.

    Args:
        first: Even, at least 2.
        last: At least 1.

    Raises:
        ConfigurationError: Other numbers.
    """
    if first < 2 or first % 2 or last < 1:
        raise ConfigurationError(
            f"first = {first!r}, last = {last!r}: expected an even number >= 2 and one >= 1"
        )
    steps, octave = {last}, first
    while octave < last:
        steps |= {octave, octave * 3 // 2}
        octave *= 2
    return tuple(sorted(step for step in steps if step <= last))


def mean_of_runs(values: Sequence[float]) -> tuple[float, float]:
    """Mean of independent runs and its standard error, nan for one run."""
    array = np.asarray(values, dtype=np.float64)
    error = array.std(ddof=1) / np.sqrt(len(array)) if len(array) > 1 else np.nan
    return float(array.mean()), float(error)


def mean_curve(curves: Sequence[LearningCurve]) -> LearningCurve:
    """Mean of runs at all steps of any of them, from where all have begun.

    A run that has ended keeps its last value.
    """
    first = max(curve.steps[0] for curve in curves)
    steps = sorted({step for curve in curves for step in curve.steps if step >= first})
    values = np.mean([[curve.value_at(step) for step in steps] for curve in curves], axis=0)
    return LearningCurve(tuple(steps), tuple(values.tolist()))


def reach_of_runs(curves: Sequence[LearningCurve], target: float) -> tuple[float, float] | None:
    """Steps until runs reach `target`: geometric mean, and the standard error of its logarithm.

    None if one of them never does.
    """
    steps = [curve.steps_to(target) for curve in curves]
    reached = [step for step in steps if step is not None]
    if len(reached) < len(steps):
        return None
    mean, error = mean_of_runs(np.log(reached).tolist())
    return float(np.exp(mean)), error


def keep_result(path: Path, identity: Mapping[str, Any], work: Callable[[], Any]) -> Any:
    """Return the result of `work`, done once: it is kept in a file and taken from there next time.

    Args:
        path: JSON file. One that is damaged, or of another identity, is written anew.
        identity: All that decides the result; a JSON value.
        work: Gives a JSON value. Ended by an error, nothing is kept.
    """
    key = fingerprint(dict(identity))
    try:
        kept = json.loads(path.read_bytes())
        if kept["key"] == key:
            return kept["result"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    result = work()
    write_json(path, {"key": key, "identity": dict(identity), "result": result})
    return result
