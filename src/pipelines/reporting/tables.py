"""Tables of the report: from tidy rows to cells of text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from condvae.configuration import ConfigurationError
from condvae.plots import BINS, POOLED, MetricLabel, bin_label, format_value, metric_label

__all__ = [
    "Comparison",
    "MetricTable",
    "check_metrics",
    "describe_comparisons",
    "tabulate_metrics",
]

_COLUMNS = ("metric", "bin", "sampler", "value", "standard_error", "n")


@dataclass(frozen=True)
class MetricTable:
    """One metric as samplers × bins, all cells as text.

    Attributes:
        metric: Key of the metric.
        label: Its words.
        headings: One per bin, then all bins.
        rows: Sampler and its cells.
        counts: Number of cases per column.
        pooled: Sampler -> cell over all bins.
        notes: What the values were computed with.
    """

    metric: str
    label: MetricLabel
    headings: list[str]
    rows: list[tuple[str, list[str]]]
    counts: list[str]
    pooled: dict[str, str]
    notes: list[str]


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
        metrics: Columns `metric, bin, sampler, value, standard_error, n`, and where known
            `k, temperature, extractor, seed, manifest`; one row per metric, bin and sampler.
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


def tabulate_metrics(metrics: pd.DataFrame) -> list[MetricTable]:
    """Make one table per metric, in the order of the rows."""
    return [
        _tabulate_metric(str(metric), metrics[metrics["metric"] == metric])
        for metric in metrics["metric"].drop_duplicates()
    ]


def _tabulate_metric(metric: str, rows: pd.DataFrame) -> MetricTable:
    columns = [name for name in (*BINS, POOLED) if name in set(rows["bin"])]
    samplers = [str(name) for name in rows["sampler"].drop_duplicates()]
    cells = {
        (str(sampler), name): format_value(value, error)
        for sampler, name, value, error in zip(
            rows["sampler"], rows["bin"], rows["value"], rows["standard_error"], strict=True
        )
    }
    counts = [_join(rows.loc[rows["bin"] == name, "n"]) or "–" for name in columns]
    names = {"extractor": "features", "k": "K", "temperature": "temperature", "seed": "seed"}
    notes = [
        f"{text}: {_join(rows[column])}"
        for column, text in names.items()
        if column in rows and _join(rows[column])
    ]
    return MetricTable(
        metric=metric,
        label=metric_label(metric),
        headings=[bin_label(name) for name in columns],
        rows=[(s, [cells.get((s, name), "–") for name in columns]) for s in samplers],
        counts=counts,
        pooled={s: cells[s, POOLED] for s in samplers if (s, POOLED) in cells},
        notes=notes,
    )


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


def _verdict(row: Mapping[Any, Any], label: MetricLabel) -> str:
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
