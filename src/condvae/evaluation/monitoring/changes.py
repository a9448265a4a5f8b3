"""Has a model become worse on the same cases? Scores and calibration now and when it was registered.

An unchanged model draws the same completions and has the same scores up to rounding, which is other
on other machines and versions. So a change counts when its paired interval excludes zero and it is
larger than a tolerance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from condvae.calibration.verdict import CALIBRATED
from condvae.evaluation.bins import POOLED
from condvae.evaluation.runs import compare_case_tables
from condvae.ground.configuration import ConfigurationError
from condvae.scores.definitions import METRICS

__all__ = [
    "JUDGED",
    "CoverageChange",
    "ScoreChange",
    "compare_coverage",
    "compare_scores",
    "find_new_faults",
]

JUDGED = (
    *("crps_per_unobserved_dim", "energy_score_pixels", "bound_bits_per_unobserved_dim"),
    *("negative_elbo_nats_per_dim",),
)
"""Scores that decide: of pixels and likelihood, which need no extractor, and all lower for better."""
COVERAGE = "posterior_coverage"
NOMINAL = 0.9

_Table = Mapping[str, ArrayLike]


@dataclass(frozen=True)
class ScoreChange:
    """A score now less the score at registration, over the same cases.

    Attributes:
        metric: Key of `condvae.scores.definitions.METRICS`.
        before: Score at registration.
        difference: Now less before; above 0 is worse.
        low: Lower end of its interval.
        high: Upper end.
        level: Coverage of the interval, corrected for the number of scores.
        n: Cases.
        worse: The interval lies above 0 and the difference exceeds the tolerance.
    """

    metric: str
    before: float
    difference: float
    low: float
    high: float
    level: float
    n: int
    worse: bool

    @property
    def message(self) -> str:
        """The change as a sentence."""
        definition = METRICS[self.metric]
        return (
            f"{definition.title}: {self.before + self.difference:.4g} now, {self.before:.4g} at "
            f"registration ({definition.unit}, lower is better); difference {self.difference:+.3g}, "
            f"interval {self.low:+.3g} to {self.high:+.3g} at {self.level:.3%}, {self.n} cases"
        )


def compare_scores(
    now: _Table,
    before: _Table,
    *,
    sampler_now: str = "ipa",
    sampler_before: str = "ipa",
    tolerance: float,
    level: float,
    seed: int,
) -> list[ScoreChange]:
    """Compare the scores `JUDGED` that both tables have, over all cases.

    Args:
        now: Columns of the case table of the re-evaluation, see `list_case_scores`.
        before: The same of the registered evaluation.
        sampler_now: Which sampler of the first table.
        sampler_before: Which sampler of the second table.
        tolerance: Smallest change that counts, as a share of the score before.
        level: Of all intervals together (Bonferroni).
        seed: Of the bootstrap.

    Raises:
        ConfigurationError: See `compare_case_tables`; or no score in common.
    """
    corrected = 1 - (1 - level) / len(JUDGED)
    rows = _pooled(now, before, sampler_now, sampler_before, JUDGED, corrected, seed)
    changes = []
    for metric, row in rows.items():
        score = _ratio(before, sampler_before, metric)
        worse = row["low"] > 0 and row["difference"] > tolerance * abs(score)
        difference, low, high = (float(row[key]) for key in ("difference", "low", "high"))
        changes.append(
            ScoreChange(metric, score, difference, low, high, corrected, int(row["n"]), bool(worse))
        )
    if not changes:
        raise ConfigurationError(
            f"no score in common: expected one of {', '.join(JUDGED)} in both tables of cases"
        )
    return changes


@dataclass(frozen=True)
class CoverageChange:
    """Coverage of 90 % intervals now and at registration, over the same cases.

    Attributes:
        now: Share of unobserved values inside.
        before: The same at registration.
        low: Lower end of the interval of now less before.
        high: Upper end.
        n: Cases.
        worse: The interval excludes 0 and the distance from 0.9 grew by more than the tolerance.
    """

    now: float
    before: float
    low: float
    high: float
    n: int
    worse: bool

    @property
    def message(self) -> str:
        """The change as a sentence."""
        side = "too narrow or biased" if self.now < NOMINAL else "too wide"
        fault = f": completions have become {side}" if self.worse else ""
        return (
            f"90 % intervals cover {self.now:.1%} of unobserved values now, {self.before:.1%} at "
            f"registration (interval of the difference {self.low:+.1%} to {self.high:+.1%}, "
            f"{self.n} cases){fault}"
        )


def compare_coverage(
    now: _Table,
    before: _Table,
    *,
    sampler_now: str = "ipa",
    sampler_before: str = "ipa",
    tolerance: float,
    level: float,
    seed: int,
) -> CoverageChange:
    """Say whether intervals cover less, or more, than they should and did.

    Args:
        now: Columns of the case table of the re-evaluation.
        before: The same of the registered evaluation.
        sampler_now: Which sampler of the first table.
        sampler_before: Which sampler of the second table.
        tolerance: By so much the distance from 0.9 may grow.
        level: Of the interval.
        seed: Of the bootstrap.

    Raises:
        ConfigurationError: See `compare_case_tables`; or a table without coverage.
    """
    rows = _pooled(now, before, sampler_now, sampler_before, (COVERAGE,), level, seed)
    if COVERAGE not in rows:
        raise ConfigurationError(f"a table of cases without {COVERAGE}: expected it in both")
    row = rows[COVERAGE]
    first = _ratio(now, sampler_now, COVERAGE)
    second = _ratio(before, sampler_before, COVERAGE)
    farther = abs(first - NOMINAL) - abs(second - NOMINAL) > tolerance
    excluded = row["low"] > 0 or row["high"] < 0
    return CoverageChange(
        first, second, float(row["low"]), float(row["high"]), int(row["n"]), farther and excluded
    )


def find_new_faults(now: Sequence[str], before: Sequence[str]) -> tuple[str, ...]:
    """Words of a calibration verdict that an earlier one did not have.

    Args:
        now: `condvae.calibration.Verdict.words` of the re-evaluation.
        before: The same at registration.
    """
    return tuple(word for word in now if word != CALIBRATED and word not in before)


def _pooled(
    now: _Table,
    before: _Table,
    sampler_now: str,
    sampler_before: str,
    metrics: Sequence[str],
    level: float,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Metric -> row of `compare_case_tables` over all cases."""
    wanted = []
    for table in (now, before):
        columns = {key: np.asarray(column) for key, column in table.items()}
        here = np.isin(columns["metric"], metrics)
        wanted.append({key: column[here] for key, column in columns.items()})
    rows = compare_case_tables(
        *wanted, sampler_a=sampler_now, sampler_b=sampler_before, level=level, seed=seed
    )
    return {row["metric"]: row for row in rows if row["bin"] == POOLED}


def _ratio(table: _Table, sampler: str, metric: str) -> float:
    """Sum of a metric's values over the sum of their weights."""
    columns = {key: np.asarray(table[key]) for key in ("sampler", "metric", "value", "weight")}
    here = (columns["sampler"] == sampler) & (columns["metric"] == metric)
    return float(columns["value"][here].sum() / columns["weight"][here].sum())
