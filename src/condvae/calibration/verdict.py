"""All tests together: Holm's correction and a verdict in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import optimize, stats

from condvae.calibration.ranks import RankTest
from condvae.calibration.shape import rank_probabilities
from condvae.calibration.tarp import TARP_OTHER, TARP_Y
from condvae.ground.configuration import ConfigurationError

__all__ = [
    "BIASED",
    "CALIBRATED",
    "IGNORES_Y",
    "MISCALIBRATED",
    "TOO_NARROW",
    "TOO_WIDE",
    "Verdict",
    "correct_holm",
    "judge",
    "smallest_visible",
]

TOO_NARROW = "too narrow"
TOO_WIDE = "too wide"
BIASED = "biased"
IGNORES_Y = "ignores y"
MISCALIBRATED = "miscalibrated"
CALIBRATED = "calibrated at this n"

POWER = 0.8


@dataclass(frozen=True)
class Verdict:
    """What the tests say about a sampler.

    Attributes:
        words: `CALIBRATED` alone; or `TOO_NARROW`, `TOO_WIDE`, `BIASED` as far as they hold; or
            `IGNORES_Y` alone; or `MISCALIBRATED` when tests reject without a clear pattern.
        shown_by: Word -> names of the statistics that show it.
        tests: The rank tests.
        adjusted: Name -> p-value after Holm's correction over all tests.
        rejected: Names with an adjusted p-value up to `alpha`.
        alpha: Probability to reject anything for an exact sampler, at most.
        n: Independent images in the rank tests.
        visible_bias: Bias, in posterior standard deviations, that one statistic's test finds in
            80 % of evaluations with this n; nan if none is.
        visible_spread: The same for the ratio of the truth's spread to the draws', above 1.
    """

    words: tuple[str, ...]
    shown_by: dict[str, tuple[str, ...]]
    tests: tuple[RankTest, ...]
    adjusted: dict[str, float]
    rejected: tuple[str, ...]
    alpha: float
    n: int
    visible_bias: float
    visible_spread: float

    @property
    def calibrated(self) -> bool:
        """Whether no test rejects."""
        return self.words == (CALIBRATED,)

    @property
    def summary(self) -> str:
        """The verdict as a sentence or two."""
        count = len(self.adjusted)
        if self.calibrated:
            head = (
                f"{CALIBRATED}: none of {count} tests on {self.n} images rejects at "
                f"{self.alpha:.0%} (Holm)."
            )
            if math.isnan(self.visible_bias) or math.isnan(self.visible_spread):
                return f"{head} So few images would hardly show any fault."
            return (
                f"{head} In 80 % of such evaluations a statistic would show a bias of "
                f"{self.visible_bias:.2g} posterior standard deviations, or truths spread "
                f"{self.visible_spread:.3g} times as widely as draws."
            )
        if TOO_NARROW in self.words and TOO_WIDE in self.words:
            parts = [f"{w} in {', '.join(self.shown_by[w])}" for w in self.words]
            head = "; ".join(parts)
        else:
            head = ", ".join(self.words)
        names = ", ".join(self.rejected)
        return (
            f"{head}: {len(self.rejected)} of {count} tests on {self.n} images reject at "
            f"{self.alpha:.0%} (Holm): {names}."
        )


def judge(
    tests: Sequence[RankTest],
    *,
    other_p_values: Mapping[str, float] | None = None,
    alpha: float = 0.05,
    word_alpha: float = 0.01,
) -> Verdict:
    """Correct for the number of tests and say what is wrong.

    A statistic that is rejected earns the word its histogram's shape shows: U too narrow, hill too
    wide, slope biased. Distances (TARP) do not: a too narrow sampler tilts their histogram.
    ``ignores y`` needs a rejected distance to references made from y, while no test that is blind
    to y clearly rejects; part of y being ignored looks the same. Which of several faults made a
    distance deviate is not said.

    Args:
        tests: From `condvae.calibration.ranks.assess_all_ranks`, names all different.
        other_p_values: Name -> p-value of further tests that are blind to y, such as the class
            calibration's.
        alpha: Level at which anything is called miscalibrated.
        word_alpha: Stricter level for each kind of word.

    Raises:
        ConfigurationError: No tests, repeated names, or levels out of range.
    """
    others = dict(other_p_values or {})
    names = [test.name for test in tests] + list(others)
    if not tests or len(set(names)) != len(names):
        raise ConfigurationError(
            f"tests {names}: expected at least one rank test and different names"
        )
    if not 0 < word_alpha <= alpha < 1:
        raise ConfigurationError(
            f"word_alpha = {word_alpha!r}, alpha = {alpha!r}: expected 0 < word_alpha <= alpha < 1"
        )
    adjusted = correct_holm({test.name: test.p_value for test in tests} | others)
    rejected = tuple(name for name in names if adjusted[name] <= alpha)
    shown_by = _name_faults(tests, adjusted, rejected, word_alpha)
    words = tuple(shown_by) or ((MISCALIBRATED,) if rejected else (CALIBRATED,))
    n = min(test.n for test in tests)
    weakest = min(tests, key=lambda test: test.n)
    bias, spread = smallest_visible(n, weakest.draws, len(weakest.counts), alpha / len(adjusted))
    return Verdict(words, shown_by, tuple(tests), adjusted, rejected, alpha, n, bias, spread)


def correct_holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjust p-values so that rejecting those up to a level errs at most that often (Holm 1979).

    Raises:
        ConfigurationError: A p-value outside [0, 1].
    """
    for name, p in p_values.items():
        if not 0 <= p <= 1:
            raise ConfigurationError(f"p-value of {name} = {p!r}: expected between 0 and 1")
    adjusted, largest = {}, 0.0
    for index, name in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        largest = max(largest, min(1.0, (len(p_values) - index) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


@lru_cache(maxsize=64)
def smallest_visible(n: int, draws: int, bins: int, alpha: float) -> tuple[float, float]:
    """Find the smallest bias and spread that a chi-square test of ranks rejects 8 times in 10.

    Args:
        n: Independent cases.
        draws: S.
        bins: Of the histogram.
        alpha: Level of this one test.

    Returns:
        Bias in standard deviations of the draws, and ratio (> 1) of the truth's spread to the
        draws'; nan where even 5 is not seen.
    """
    threshold = stats.chi2.isf(alpha, bins - 1)

    def missing_power(noncentrality: float) -> float:
        return float(stats.ncx2.sf(threshold, bins - 1, noncentrality)) - POWER

    needed = optimize.brentq(missing_power, 1e-9, 1e4)

    def surplus(shift: float, ratio: float) -> float:
        shares = rank_probabilities(draws, shift, ratio).reshape(bins, -1).sum(axis=1)
        return float(n * bins * np.square(shares - 1 / bins).sum() - needed)

    bias = spread = math.nan
    if surplus(5.0, 1.0) > 0:
        bias = float(optimize.brentq(lambda shift: surplus(shift, 1.0), 0.0, 5.0, xtol=1e-4))
    if surplus(0.0, 5.0) > 0:
        spread = float(optimize.brentq(lambda ratio: surplus(0.0, ratio), 1.0, 5.0, xtol=1e-4))
    return bias, spread


def _name_faults(
    tests: Sequence[RankTest],
    adjusted: Mapping[str, float],
    rejected: Sequence[str],
    word_alpha: float,
) -> dict[str, tuple[str, ...]]:
    """Word -> names of the tests that show it, in the order of reports."""
    statistics = [t for t in tests if not t.name.startswith((TARP_Y, TARP_OTHER))]
    bias = correct_holm({test.name: test.shape.bias_p_value for test in statistics})
    spread = correct_holm({test.name: test.shape.spread_p_value for test in statistics})
    found: dict[str, list[str]] = {TOO_NARROW: [], TOO_WIDE: [], BIASED: []}
    for test in statistics:
        if test.name in rejected and spread[test.name] <= word_alpha:
            found[TOO_NARROW if test.shape.spread > 1 else TOO_WIDE].append(test.name)
        if test.name in rejected and bias[test.name] <= word_alpha:
            found[BIASED].append(test.name)
    shown = {word: tuple(names) for word, names in found.items() if names}
    follows_y = tuple(name for name in rejected if name.startswith(TARP_Y))
    blind = [p for name, p in adjusted.items() if not name.startswith(TARP_Y)]
    if follows_y and min(blind, default=1.0) > word_alpha:
        return {IGNORES_Y: follows_y}
    return shown
