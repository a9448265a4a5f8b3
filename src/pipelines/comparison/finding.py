"""Runs of MLflow by id or name, and the tables that their evaluations have kept."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run

from condvae.ground.configuration import ConfigurationError

__all__ = ["CASES", "RunRecord", "find_runs", "read_run"]

FOLDER = "report"
CASES = f"{FOLDER}/cases.parquet"
LAST = "last"
# What an unknown name is answered with.
SHOWN = 5
_COLUMNS = (
    *("case_id", "image_id", "image_sha256", "bin", "observed_share"),
    *("sampler", "metric", "value", "weight"),
)


@dataclass(frozen=True)
class RunRecord:
    """What a run has kept of its evaluation.

    Attributes:
        run: Of MLflow.
        facts: ``run_facts.json``.
        metrics: The tidy table of scores.
        cases: Scores by case, sampler and metric.
        examples: Arrays of example cases, see `pipelines.reporting.examples.read_examples`; None
            where the run has kept none.
    """

    run: Run
    facts: dict[str, Any]
    metrics: pd.DataFrame
    cases: pd.DataFrame
    examples: dict[str, Any] | None

    @property
    def sampler(self) -> str:
        """The run's first sampler, the one it is compared by."""
        return str(self.cases["sampler"].iloc[0])


def find_runs(client: MlflowClient, named: Sequence[str]) -> list[Run]:
    """Find runs that have scores by case.

    Args:
        client: Of MLflow; every experiment is looked through.
        named: For each run its id, the first characters of it (six at least), its name, or ``last``.

    Returns:
        The runs in the order given.

    Raises:
        ConfigurationError: No such run, an ambiguous id, a run without scores, or one named twice.
    """
    found: list[Run] = []
    for name in named:
        run = _find_run(client, name)
        if not _has_cases(client, run):
            raise ConfigurationError(
                f"compare.runs: run {_describe(run)} {_say_missing(run)}; {_list_last(client)}"
            )
        if run.info.run_id in {other.info.run_id for other in found}:
            raise ConfigurationError(
                f"compare.runs: {name!r} is run {_describe(run)}, which is named before; expected "
                "different runs"
            )
        found.append(run)
    return found


def read_run(client: MlflowClient, run: Run) -> RunRecord:
    """Read what a run has kept.

    Raises:
        ConfigurationError: A table is missing or is none.
    """
    run_id = run.info.run_id
    present = {file.path for file in client.list_artifacts(run_id, FOLDER)}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:

        def fetch(name: str) -> Path:
            path = f"{FOLDER}/{name}"
            if path not in present:
                raise ConfigurationError(f"run {_describe(run)} has no artifact {path}")
            return Path(
                mlflow.artifacts.download_artifacts(
                    run_id=run_id,
                    artifact_path=path,
                    dst_path=temporary,
                    tracking_uri=client.tracking_uri,
                )
            )

        cases = pd.read_parquet(fetch("cases.parquet"))
        lacking = [name for name in _COLUMNS if name not in cases]
        if lacking or cases.empty:
            raise ConfigurationError(
                f"{CASES} of run {_describe(run)}: no {', '.join(lacking) or 'rows'}; expected the "
                "table of an evaluation"
            )
        examples = None
        if f"{FOLDER}/examples.npz" in present:
            with np.load(fetch("examples.npz"), allow_pickle=False) as arrays:
                examples = dict(arrays)
        metrics = pd.DataFrame.from_records(json.loads(fetch("metrics.json").read_text()))
        facts = json.loads(fetch("run_facts.json").read_text())
        return RunRecord(run, facts, metrics, cases, examples)


def _find_run(client: MlflowClient, name: str) -> Run:
    if name == LAST:
        newest = _search(client, "", 100)
        for run in newest:
            if _has_cases(client, run):
                return run
        lost = [f"; {_describe(run)} {_say_missing(run)}" for run in newest if _was_evaluated(run)]
        raise ConfigurationError(
            f"compare.runs: 'last' is no run, as none has scores by case{''.join(lost[:1])}"
        )
    if '"' not in name:
        found = []
        if re.fullmatch(r"[0-9a-f]{6,32}", name):
            found = _search(client, f'attributes.run_id LIKE "{name}%"', 2)
        if len(found) > 1:
            both = " and ".join(_describe(run) for run in found)
            raise ConfigurationError(f"compare.runs: {name!r} begins the ids of {both}")
        found = found or _search(client, f'attributes.run_name = "{name}"', 1)
        if found:
            return found[0]
    raise ConfigurationError(f"compare.runs: no run {name!r}; {_list_last(client)}")


def _search(client: MlflowClient, where: str, most: int) -> list[Run]:
    """Newest first."""
    experiments = [found.experiment_id for found in client.search_experiments()]
    order = ["attributes.start_time DESC"]
    return list(client.search_runs(experiments, where, max_results=most, order_by=order))


def _has_cases(client: MlflowClient, run: Run) -> bool:
    return any(file.path == CASES for file in client.list_artifacts(run.info.run_id, FOLDER))


def _was_evaluated(run: Run) -> bool:
    return any(name.startswith("eval/") for name in run.data.metrics)


def _say_missing(run: Run) -> str:
    if _was_evaluated(run):
        return f"was evaluated, but its artifact {CASES} is not in {run.info.artifact_uri}"
    return f"has no artifact {CASES}, the scores by case of an evaluation"


def _describe(run: Run) -> str:
    return f"{run.info.run_id[:8]} ({run.info.run_name})"


def _list_last(client: MlflowClient) -> str:
    known = [_describe(run) for run in _search(client, "", SHOWN)]
    return f"the newest runs are {', '.join(known)}" if known else "there are no runs"
