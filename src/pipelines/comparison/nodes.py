"""Nodes that compare runs of MLflow case by case."""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow import MlflowClient

from condvae import evaluation as ev
from condvae.evaluation.bins import POOLED
from condvae.ground.configuration import read_config
from condvae.ground.files import open_atomic
from condvae.plots import plot_differences, plot_samplers, png_bytes, style_samplers
from pipelines.comparison.finding import RunRecord, find_runs, read_run
from pipelines.comparison.matching import (
    check_runs,
    describe_runs,
    join_examples,
    keep_common_cases,
    label_runs,
    list_incomparable,
)
from pipelines.comparison.page import render_page
from pipelines.parameters import CompareConfig
from pipelines.reporting.examples import read_examples
from pipelines.reporting.metric_figures import draw_metrics
from pipelines.runs import tracking

__all__ = ["gather_runs", "list_differences", "write_comparison"]

PAGE = "comparison.html"
LABEL_WIDTH = 12  # characters

log = logging.getLogger(__name__)


def gather_runs(
    compare: dict[str, Any],
) -> tuple[dict[str, Any], pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Fetch what the runs have kept; in every table `sampler` is the label of a run.

    Returns:
        Facts, the tidy scores of the first sampler of each run (none where the runs have scored
        different manifests), its scores of the cases that are compared, and examples.
    """
    config = read_config(CompareConfig, compare, "compare")
    client = MlflowClient()
    records = [read_run(client, run) for run in find_runs(client, config.named)]
    check_runs(records, config.cases)
    labels = label_runs([record.run for record in records])
    left_out = list_incomparable(records)
    cases = keep_common_cases([_first_sampler(record.cases, record) for record in records])
    kept = pd.concat(
        [table.assign(sampler=label) for label, table in zip(labels, cases, strict=True)],
        ignore_index=True,
    )
    kept = kept[~kept["metric"].isin(list(left_out))]
    facts = describe_runs(records, labels) | {
        "cases": int(cases[0]["case_id"].nunique()),
        "left_out": left_out,
    }
    examples = join_examples(records, labels)
    return facts, _join_metrics(records, labels), kept, examples


def list_differences(
    compared_runs: dict[str, Any], compared_cases: pd.DataFrame, compare: dict[str, Any]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Take paired differences of every run from the first; log those over all cases to MLflow."""
    config = read_config(CompareConfig, compare, "compare")
    table = {str(name): compared_cases[name].to_numpy() for name in compared_cases}
    reference, *others = compared_runs["runs"]
    rows: list[dict[str, Any]] = []
    for other in others:
        found = ev.compare_case_tables(
            table,
            table,
            sampler_a=other["label"],
            sampler_b=reference["label"],
            level=config.level,
            seed=config.seed,
        )
        rows += [{**row, "run_a": other["run_id"], "run_b": reference["run_id"]} for row in found]
    tracking.log_metrics(
        {
            f"difference/{row['bin']}/{row['metric']}/{row['run_a'][:8]}": row["difference"]
            for row in rows
            if np.isfinite(row["difference"])
        }
    )
    differences = pd.DataFrame.from_records(rows)
    return differences, differences


def write_comparison(
    compared_runs: dict[str, Any],
    compared_metrics: pd.DataFrame,
    run_differences: pd.DataFrame,
    compared_examples: dict[str, Any],
    folders: dict[str, str],
) -> dict[str, Any]:
    """Draw the figures and write them beside `comparison.html`, which needs no other file."""
    labels = [run["label"] for run in compared_runs["runs"]]
    figures = _draw_figures(labels, compared_metrics, run_differences, compared_examples)
    page = render_page(
        figures, compared_runs, compared_metrics, run_differences, tracking.command()
    )
    folder = Path(folders["comparison"])
    for name, content in {**figures, PAGE: page.encode()}.items():
        with open_atomic(folder / name) as file:
            file.write(content)
    log.info("the comparison of %s is in %s", ", ".join(labels), folder / PAGE)
    tables = ("runs.json", "differences.json", "differences.csv", "metrics.json")
    return {"folder": folder.as_posix(), "page": PAGE, "files": [PAGE, *figures, *tables]}


def _first_sampler(table: pd.DataFrame, record: RunRecord) -> pd.DataFrame:
    return table[table["sampler"] == record.sampler]


def _join_metrics(records: Sequence[RunRecord], labels: Sequence[str]) -> pd.DataFrame:
    """Scores side by side; no rows where they are of different cases."""
    joined = pd.concat(
        [
            _first_sampler(record.metrics, record).assign(sampler=label)
            for record, label in zip(records, labels, strict=True)
        ],
        ignore_index=True,
    )
    return joined if joined["manifest"].nunique() == 1 else joined[:0]


def _draw_figures(
    labels: Sequence[str],
    metrics: pd.DataFrame,
    differences: pd.DataFrame,
    examples: Mapping[str, Any],
) -> dict[str, bytes]:
    """File name -> PNG bytes."""
    styles = style_samplers(labels)
    rows = [{str(k): v for k, v in row.items()} for row in differences.to_dict("records")]
    title = f"Differences from {labels[0]}"
    figures = {"differences.png": plot_differences(rows, title=title, styles=styles)}
    if examples:
        title = "The same cases, completed by each run"
        # Labels stand left of the rows, in a column no wider than a picture.
        wrapped = {label: textwrap.fill(label, LABEL_WIDTH) for label in labels}
        figures["pictures.png"] = plot_samplers(
            {wrapped[run]: own for run, own in read_examples(examples, 1, labels).items()},
            title=title,
            styles={text: styles[label] for label, text in wrapped.items()},
        )
    if len(metrics) and set(metrics["bin"]) != {POOLED}:
        compared = metrics[metrics["metric"].isin(set(differences["metric"]))]
        figures |= draw_metrics(compared, None, styles)
    return {name: png_bytes(figure) for name, figure in figures.items()}
