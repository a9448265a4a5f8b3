"""What belongs beside every number: a card per metric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from condvae.plots import BINS, POOLED, metric_label
from condvae.scores.definitions import MetricDefinition

__all__ = ["MetricCard", "make_card"]

_KINDS = {
    "mean": "mean over cases",
    "ratio": "ratio of sums over cases",
    "root": "root of a ratio of sums over cases",
    "set": "of all cases together",
}
_SOURCES = {"likelihood": "the model's densities", "pixels": "pixels"}


@dataclass(frozen=True)
class MetricCard:
    """How the numbers of a metric came about.

    Attributes:
        metric: Key of the metric.
        title: Name in words.
        unit: Unit or scale of the values.
        definition: What is computed; empty for a metric that is not known.
        made_up: How cases make up a value, in words.
        proper: Whether its expectation is best at the true posterior.
        computed_from: Extractor by name, or what else the values are computed from.
        extractor_sha256: Hash of the extractor's weights, where it is known.
        resizer: How images are resized for the extractor, where it is known.
        settings: Other choices that change the values, as JSON text.
        n: Number of cases by bin of the observed share.
        k: Completions taken of each case; several where rows differ.
        temperatures: By sampler.
        level: Of the intervals.
        seed: Of cases and draws.
        manifest: Hash of the list of cases.
    """

    metric: str
    title: str
    unit: str
    definition: str
    made_up: str
    proper: bool
    computed_from: str
    extractor_sha256: str | None
    resizer: str | None
    settings: list[str]
    n: dict[str, list[int]]
    k: list[int]
    temperatures: dict[str, float]
    level: list[float]
    seed: list[int]
    manifest: list[str]


def make_card(metric: str, rows: pd.DataFrame, run_facts: Mapping[str, Any]) -> MetricCard:
    """Make the card of a metric.

    Args:
        metric: Key of the metric.
        rows: Its rows of the tidy table.
        run_facts: ``extractor`` describes the run's own feature network by ``extractor`` (its name)
            and ``sha256``; ``resizers`` and ``extractor_hashes`` map names of extractors to resizers
            and to hashes of their weights.
    """
    label = metric_label(metric)
    names = [str(name) for name in _distinct(rows, "extractor", str) if name]
    facts, resizers, hashes = (
        _mapping(run_facts.get(key)) for key in ("extractor", "resizers", "extractor_hashes")
    )
    sha256 = str(facts.get("sha256", ""))
    # Tables name the network for features with, and as a classifier without, digits of its hash.
    own = {str(facts.get("extractor")), f"{facts.get('extractor')}_{sha256[:8]}"}
    used = own if own & set(names) else set(names)
    heats = rows[rows["temperature"].notna()] if "temperature" in rows else rows[:0]
    return MetricCard(
        metric=metric,
        title=label.title,
        unit=label.unit,
        definition=label.definition,
        made_up=_KINDS[label.kind] if label.definition else "",
        proper=label.proper,
        computed_from=_computed_from(label, names),
        extractor_sha256=(sha256 if own & set(names) else "")
        or next((str(hashes[name]) for name in sorted(used) if hashes.get(name)), None),
        resizer=next((str(resizers[name]) for name in sorted(used) if name in resizers), None),
        settings=[text for text in _distinct(rows, "settings", str) if text],
        n={
            name: _distinct(rows[rows["bin"] == name], "n", int)
            for name in (*BINS, POOLED)
            if name in set(rows["bin"])
        },
        k=_distinct(rows, "k", int),
        temperatures={
            str(row["sampler"]): float(row["temperature"]) for _, row in heats.iterrows()
        },
        level=_distinct(rows, "level", float),
        seed=_distinct(rows, "seed", int),
        manifest=_distinct(rows, "manifest", str),
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _computed_from(label: MetricDefinition, names: list[str]) -> str:
    if label.definition and label.source in _SOURCES:
        return _SOURCES[label.source]
    return ", ".join(names) or "not stated"


def _distinct(rows: pd.DataFrame, column: str, kind: type) -> list[Any]:
    if column not in rows:
        return []
    return [kind(value) for value in rows[column].dropna().drop_duplicates()]
