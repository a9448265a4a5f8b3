"""Nodes of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from condvae.files import open_atomic
from condvae.plots import plot_completions, plot_samplers, plot_training, png_bytes
from pipelines.reporting.examples import read_examples
from pipelines.reporting.facts import check_facts
from pipelines.reporting.metric_figures import draw_metrics
from pipelines.reporting.page import render_page
from pipelines.reporting.tables import check_metrics

__all__ = ["draw_figures_node", "write_report_node"]


def draw_figures_node(
    metrics: pd.DataFrame,
    examples: Mapping[str, np.ndarray],
    training_history: Sequence[Mapping[str, Any]],
    run_facts: Mapping[str, Any],
) -> dict[str, bytes]:
    """Draw every figure of the report, under the same names in each run.

    Args:
        metrics: The tidy table, see `check_metrics`.
        examples: Arrays, see `pipelines.reporting.examples.read_examples`.
        training_history: Rows with `step`, `images_seen`, `loss` and so on; empty where nothing
            was trained.
        run_facts: Facts, see `check_facts`; `classifier_accuracy` is drawn beside the class
            agreement, `loss_unit` names the unit of the loss.

    Returns:
        File name -> PNG bytes: `completions.png`, `samplers.png`, `training.png` unless the
        history is empty, and `metric_<name>.png` for each metric with finite values.
    """
    check_metrics(metrics, run_facts)
    cases = read_examples(examples, per_bin=2)
    sampler = next(iter(cases))
    one_per_bin = read_examples(examples, per_bin=1)
    figures = {
        "completions.png": plot_completions(
            cases[sampler], title=f"Completions by the sampler “{sampler}”"
        ),
        "samplers.png": plot_samplers(one_per_bin),
    }
    if training_history:
        unit = run_facts.get("loss_unit")
        figures["training.png"] = plot_training(training_history, loss_unit=unit)
    figures |= draw_metrics(metrics, run_facts.get("classifier_accuracy"))
    return {name: png_bytes(figure) for name, figure in figures.items()}


def write_report_node(
    figures: Mapping[str, bytes],
    metrics: pd.DataFrame,
    comparisons: pd.DataFrame,
    run_facts: Mapping[str, Any],
    folders: Mapping[str, str],
) -> dict[str, Any]:
    """Write the figures and `report.html`, which holds copies of them and needs no other file.

    Args:
        figures: File name -> PNG bytes.
        metrics: The tidy table, see `check_metrics`.
        comparisons: Paired differences, see `pipelines.reporting.tables.describe_comparisons`.
        run_facts: Facts, see `check_facts`.
        folders: `reporting` is the folder to write to.

    Returns:
        `folder` as given, and the names in it: `report` and the list `figures`.
    """
    check_facts(run_facts)
    check_metrics(metrics, run_facts)
    folder = Path(folders["reporting"])
    page = render_page(figures, metrics, comparisons, run_facts)
    files = {**figures, "report.html": page.encode()}
    for name, content in files.items():
        with open_atomic(folder / name) as file:
            file.write(content)
    return {"folder": folder.as_posix(), "report": "report.html", "figures": list(figures)}
