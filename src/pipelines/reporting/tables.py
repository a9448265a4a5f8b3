"""Tables of the report: from tidy rows to cells of text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from condvae.ground.configuration import ConfigurationError
from condvae.plots import (
    BINS,
    POOLED,
    bin_label,
    coverage_target,
    direction_words,
    format_interval,
    format_value,
    is_finite,
    metric_label,
)
from condvae.scores.definitions import METRICS, MetricDefinition
from pipelines.reporting.cards import MetricCard, make_card

__all__ = [
    "GROUPS",
    "Comparison",
    "MetricTable",
    "check_metrics",
    "describe_comparisons",
    "tabulate_metrics",
]

GROUPS = {
    "calibration": "Calibration",
    "observation": "Agreement with the observation",
    "proper": "Proper scores",
    "other": "Other metrics",
}
_COLUMNS = ("metric", "bin", "sampler", "value", "standard_error", "n")


@dataclass(frozen=True)
class MetricTable:
    """One metric as samplers × bins, all cells as text.

    Attributes:
        metric: Key of the metric.
        label: Its words.
        group: Key of `GROUPS`.
        direction: Which values are better, in words.
        headings: One per bin, then all bins.
        rows: Sampler and its cells, values with standard errors.
        counts: Number of cases per column.
        pooled: Sampler -> cell over all bins, value with interval.
        ranking: Samplers with a value over all bins, from best to worst; empty for a metric without
            a direction.
        card: What the values were computed with.
    """

    metric: str
    label: MetricDefinition
    group: str
    direction: str
    headings: list[str]
    rows: list[tuple[str, list[str]]]
    counts: list[str]
    pooled: dict[str, str]
    ranking: list[str]
    card: MetricCard


@dataclass(frozen=True)
class Comparison:
    """One paired difference in words.

    Attributes:
        metric: Key of the metric.
        title: Its words.
        bin: Bin of the observed share in words.
        pooled: Whether it is over all bins.
        text: The difference with its interval.
        verdict: ``"<sampler> better"``, or that it is not clear; empty without a direction.
        relative: Relative difference in per cent.
        n: Number of pairs.
    """

    metric: str
    title: str
    bin: str
    pooled: bool
    text: str
    verdict: str
    relative: str
    n: str


def check_metrics(metrics: pd.DataFrame, run_facts: Mapping[str, Any]) -> None:
    """Refuse a table whose values do not belong together.

    Args:
        metrics: Columns `metric, bin, sampler, value, standard_error, n`, and where known `low, high,
            level, k, temperature, extractor, seed, manifest`; one row per metric, bin and sampler.
        run_facts: `manifest`, where present, is the one the values must come from.

    Raises:
        ConfigurationError: Missing columns, an unknown bin, two values for one cell, or values
            from different evaluation manifests.
    """
    missing = [column for column in _COLUMNS if column not in metrics]
    if missing:
        raise ConfigurationError(f"metrics lack the columns {', '.join(missing)}")
    for name in metrics["bin"].drop_duplicates():
        bin_label(str(name))
    keys = ["metric", "bin", "sampler"]
    repeated = metrics[metrics.duplicated(keys)]
    if len(repeated):
        cell = ", ".join(str(value) for value in repeated.iloc[0][keys])
        raise ConfigurationError(f"metrics hold two values for {cell}: expected one")
    found = set(metrics["manifest"].dropna()) if "manifest" in metrics else set()
    expected = run_facts.get("manifest")
    found |= {expected} if isinstance(expected, str) else set()
    if len(found) > 1:
        raise ConfigurationError(
            f"metrics come from different manifests, {', '.join(sorted(found))}: numbers from "
            "different cases must not share a table"
        )


def tabulate_metrics(metrics: pd.DataFrame, run_facts: Mapping[str, Any]) -> list[MetricTable]:
    """Make one table per metric, in the order of `GROUPS`.

    Args:
        metrics: The tidy table, see `check_metrics`.
        run_facts: Facts for the cards, see `pipelines.reporting.cards.make_card`.
    """
    found = [str(metric) for metric in metrics["metric"].drop_duplicates()]
    places = {metric: i for i, metric in enumerate(dict.fromkeys((*METRICS, *found)))}
    found.sort(key=lambda metric: (list(GROUPS).index(_group(metric)), places[metric]))
    return [
        _tabulate_metric(metric, metrics[metrics["metric"] == metric], run_facts)
        for metric in found
    ]


def _group(metric: str) -> str:
    if coverage_target(metric) is not None:
        return "calibration"
    if metric == "consistency_rmse":
        return "observation"
    return "proper" if metric_label(metric).proper else "other"


def _tabulate_metric(metric: str, rows: pd.DataFrame, run_facts: Mapping[str, Any]) -> MetricTable:
    columns = [name for name in (*BINS, POOLED) if name in set(rows["bin"])]
    records = [(str(row["sampler"]), row["bin"], row) for row in rows.to_dict("records")]
    cells = {
        (sampler, name): format_value(row["value"], row["standard_error"])
        for sampler, name, row in records
    }
    pooled = {sampler: row for sampler, name, row in records if name == POOLED}
    return MetricTable(
        metric=metric,
        label=metric_label(metric),
        group=_group(metric),
        direction=direction_words(metric),
        headings=[bin_label(name) for name in columns],
        rows=[
            (sampler, [cells.get((sampler, name), "–") for name in columns])
            for sampler in dict.fromkeys(sampler for sampler, _, _ in records)
        ],
        counts=[_join(rows.loc[rows["bin"] == name, "n"]) or "–" for name in columns],
        pooled={
            sampler: format_interval(
                row["value"], row.get("low"), row.get("high"), row["standard_error"]
            )
            for sampler, row in pooled.items()
        },
        ranking=_rank_samplers(metric, {s: row["value"] for s, row in pooled.items()}),
        card=make_card(metric, rows, run_facts),
    )


def _rank_samplers(metric: str, values: Mapping[str, Any]) -> list[str]:
    target, better = coverage_target(metric), metric_label(metric).better
    finite = {sampler: float(value) for sampler, value in values.items() if is_finite(value)}
    if target is not None:
        return sorted(finite, key=lambda sampler: abs(finite[sampler] - target))
    if better is None:
        return []
    return sorted(finite, key=lambda sampler: finite[sampler], reverse=better == "higher")


def describe_comparisons(comparisons: pd.DataFrame) -> list[Comparison]:
    """Put paired differences into words.

    Args:
        comparisons: Columns `metric, bin, sampler_a, sampler_b, difference` (a minus b),
            `low, high` (its interval), `level` (0.95, say), `relative_difference` (a share of b)
            and `n`.
    """
    result = []
    for row in comparisons.to_dict("records"):
        label = metric_label(str(row["metric"]))
        result.append(
            Comparison(
                metric=str(row["metric"]),
                title=label.title,
                bin=bin_label(str(row["bin"])),
                pooled=row["bin"] == POOLED,
                text=_difference_text(row),
                verdict=_verdict(row, label),
                relative=_per_cent(row["relative_difference"]),
                n=_join(pd.Series([row["n"]])),
            )
        )
    return result


def _difference_text(row: Mapping[Any, Any]) -> str:
    a, b = row["sampler_a"], row["sampler_b"]
    difference, low, high = (float(row[key]) for key in ("difference", "low", "high"))
    if not math.isfinite(difference):
        return f"{a} and {b}: not available"
    word = _side(low, high)
    if word == "lower":
        difference, low, high = -difference, -high, -low
    # As many decimals as two digits of the standard error would have.
    error = (high - low) / 3.92
    decimals = max(0, 1 - math.floor(math.log10(error))) if error > 0 else 4
    size, *interval = (f"{x:.{decimals}f}".replace("-", "−") for x in (difference, low, high))
    level = f"{100 * float(row['level']):.3g} %"
    numbers = f"{size} [{', '.join(interval)}] ({level})"
    if word is None:
        return f"no clear difference between {a} and {b}: {numbers}"
    return f"{a} {word} than {b} by {numbers}"


def _verdict(row: Mapping[Any, Any], label: MetricDefinition) -> str:
    if label.better is None or not math.isfinite(float(row["difference"])):
        return ""
    word = _side(float(row["low"]), float(row["high"]))
    if word is None:
        return "not clear"
    return f"{row['sampler_a'] if word == label.better else row['sampler_b']} better"


def _side(low: float, high: float) -> str | None:
    """Which side of zero an interval lies on; `None` where it holds zero or is not known."""
    if low > 0:
        return "higher"
    return "lower" if high < 0 else None


def _per_cent(share: float) -> str:
    return f"{100 * share:+.1f} %".replace("-", "−") if math.isfinite(share) else "–"


def _join(values: pd.Series[Any]) -> str:
    """Distinct values as text; whole numbers lose their decimal point."""
    texts = []
    for value in values.dropna().drop_duplicates():
        whole = isinstance(value, float) and value.is_integer()
        texts.append(str(int(value)) if whole else str(value))
    return ", ".join(text for text in texts if text)
