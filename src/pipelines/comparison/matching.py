"""What runs have in common, and so what of them can be compared."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from mlflow.entities import Run

from condvae.ground.configuration import ConfigurationError
from pipelines.comparison.finding import RunRecord
from pipelines.runs.summary import PLACE

__all__ = [
    "check_runs",
    "describe_runs",
    "join_examples",
    "keep_common_cases",
    "label_runs",
    "list_incomparable",
]

LONGEST_LABEL = 32
# A case that two runs have scored agrees in these.
_SAME = ("case_id", "image_sha256", "bin", "observed_share")
# How the numbers of a metric were made: where that differs they mean something else.
_MADE_BY = ("extractor", "k", "settings")
_TAGS = ("data", "recipe", "trigger", "git_commit", "git_dirty", "posterior_sha256", "command")


def check_runs(records: Sequence[RunRecord], cases: str) -> None:
    """Refuse runs that have nothing in common.

    Args:
        records: Of the runs; the first is the reference.
        cases: ``all`` demands one manifest, ``common`` does not.

    Raises:
        ConfigurationError: Different tasks or manifests; the message has those of every run.
    """
    tasks = {_name(record): record.facts.get("task") for record in records}
    if len(set(tasks.values())) > 1:
        raise ConfigurationError(
            f"compare.runs are of different tasks, {_list(tasks)}: expected runs of one task"
        )
    manifests = {_name(record): record.facts.get("manifest") for record in records}
    if cases == "all" and len(set(manifests.values())) > 1:
        raise ConfigurationError(
            f"compare.runs were scored on different manifests, sha256 {_list(manifests)}: expected "
            "one, that is the same evaluation.seed, masks, data and number of cases; "
            "compare.cases=common takes the cases in common"
        )


def label_runs(runs: Sequence[Run]) -> list[str]:
    """The names of the runs; the first word and the id's first characters where a name will not do.

    It will not where another run has it, or where figures have no room for it.
    """
    names = [str(run.info.run_name) for run in runs]
    return [
        name
        if names.count(name) == 1 and len(name) <= LONGEST_LABEL
        else f"{name.split()[0][: LONGEST_LABEL - 9]} {run.info.run_id[:8]}"
        for name, run in zip(names, runs, strict=True)
    ]


def keep_common_cases(tables: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """The rows of each table whose cases are in all of them.

    Raises:
        ConfigurationError: There are no such cases.
    """
    keys = [pd.MultiIndex.from_frame(table[list(_SAME)]) for table in tables]
    common = keys[0]
    for other in keys[1:]:
        common = common[common.isin(other)]
    if common.empty:
        raise ConfigurationError(
            "compare.runs have no case in common: none agrees in case_id, image, bin and observed "
            "share"
        )
    return [table[key.isin(common)] for table, key in zip(tables, keys, strict=True)]


def list_incomparable(records: Sequence[RunRecord]) -> dict[str, str]:
    """Metrics that the runs have computed in different ways -> what differs."""
    reasons: dict[str, str] = {}
    rows = [
        record.metrics[record.metrics["sampler"] == record.sampler].drop_duplicates("metric")
        for record in records
    ]
    joined = pd.concat(rows, ignore_index=True)
    for metric, own in joined.groupby("metric", sort=False):
        for name in _MADE_BY:
            values = [] if name not in own else own[name].dropna().drop_duplicates().tolist()
            if len(values) > 1:
                reasons[str(metric)] = f"{name}: {', '.join(map(str, values))}"
    return reasons


def describe_runs(records: Sequence[RunRecord], labels: Sequence[str]) -> dict[str, Any]:
    """Facts of the comparison, as a JSON value.

    Returns:
        ``task``, ``data`` and ``manifest`` where all agree; ``reference_run`` and ``compared_runs``,
        ids for tags; ``runs``, a description of each; ``notes``, what to know before reading.
    """
    first = records[0]
    facts: dict[str, Any] = {"task": first.facts["task"]}
    for key, values in (
        ("data", [(r.facts.get("data") or {}).get("name") for r in records]),
        ("manifest", [r.facts.get("manifest") for r in records]),
    ):
        if len(set(values)) == 1:
            facts[key] = values[0]
    differing = _differing_parameters([record.run for record in records])
    return {
        **facts,
        "reference_run": first.run.info.run_id,
        "compared_runs": "+".join(record.run.info.run_id for record in records[1:]),
        "runs": [
            _describe_run(record, label, differing)
            for record, label in zip(records, labels, strict=True)
        ],
        "notes": _list_notes(records),
    }


def join_examples(records: Sequence[RunRecord], labels: Sequence[str]) -> dict[str, np.ndarray]:
    """Arrays of the cases that all runs have kept, as `read_examples` takes them; {} without any."""
    arrays = [record.examples for record in records]
    if any(own is None for own in arrays):
        return {}
    known = [own for own in arrays if own is not None]
    ids = [own["case_ids"].tolist() for own in known]
    shared = [name for name in ids[0] if _shows_same(known, ids, name)]
    if not shared:
        return {}
    result: dict[str, np.ndarray] = {}
    for own, order, record, label in zip(known, ids, records, labels, strict=True):
        rows = [order.index(name) for name in shared]
        for key, values in own.items():
            kind, slash, sampler = key.partition("/")
            if not slash:
                result.setdefault(key, values[rows])
            elif sampler == record.sampler:
                chosen = values[:, rows] if kind == "completions" else values[rows]
                result[f"{kind}/{label}"] = chosen
    return result


def _shows_same(arrays: Sequence[dict[str, Any]], ids: Sequence[list[str]], name: str) -> bool:
    """Whether the case `name` is the same picture behind the same mask in all arrays."""
    if any(name not in order for order in ids):
        return False
    found = [(own, order.index(name)) for own, order in zip(arrays, ids, strict=True)]
    first, row = found[0]
    return all(
        np.array_equal(own[key][place], first[key][row])
        for own, place in found[1:]
        for key in ("masks", "truths")
    )


def _describe_run(record: RunRecord, label: str, differing: Sequence[str]) -> dict[str, Any]:
    run = record.run
    started = datetime.datetime.fromtimestamp(run.info.start_time / 1000, datetime.UTC)
    return {
        "run_id": run.info.run_id,
        "label": label,
        "name": run.info.run_name,
        "status": run.info.status,
        "started": started.isoformat(timespec="seconds"),
        "sampler": record.sampler,
        "manifest": record.facts.get("manifest"),
        **{name: run.data.tags[name] for name in _TAGS if name in run.data.tags},
        "parameters": {name: run.data.params.get(name) for name in differing},
    }


def _differing_parameters(runs: Sequence[Run]) -> list[str]:
    """Names of parameters that the runs do not share, in alphabetical order."""
    names = sorted({name for run in runs for name in run.data.params})
    # Those are among the others already.
    names = [name for name in names if not name.startswith(f"{PLACE}.")]
    return [name for name in names if len({run.data.params.get(name) for run in runs}) > 1]


def _list_notes(records: Sequence[RunRecord]) -> list[str]:
    notes = []
    networks = {(r.facts.get("extractor") or {}).get("sha256") for r in records}
    if len(networks) > 1:
        notes.append(
            "The runs have trained feature networks of their own, with different weights: differences "
            "of metrics of features and classes are also differences between the networks."
        )
    if any(record.examples is None for record in records):
        notes.append("Not every run has kept its examples, so that there are no pictures.")
    return notes


def _name(record: RunRecord) -> str:
    return f"{record.run.info.run_id[:8]} ({record.run.info.run_name})"


def _list(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in values.items())
