"""Nodes of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from condvae.ground.files import open_atomic, write_json
from condvae.plots import (
    plot_completions,
    plot_extremes,
    plot_samplers,
    plot_training,
    png_bytes,
    style_samplers,
)
from pipelines.reporting.calibration_figures import draw_calibration
from pipelines.reporting.examples import read_examples, read_extremes
from pipelines.reporting.facts import check_facts
from pipelines.reporting.metric_figures import draw_metrics
from pipelines.reporting.page import render_page
from pipelines.reporting.tables import check_metrics, tabulate_metrics

__all__ = ["draw_figures_node", "write_report_node"]

Calibration = Mapping[str, Mapping[str, Any]]


def draw_figures_node(
    metrics: pd.DataFrame,
    examples: Mapping[str, np.ndarray],
    extremes: Mapping[str, np.ndarray],
    calibration: Calibration,
    training_history: Sequence[Mapping[str, Any]],
    run_facts: Mapping[str, Any],
) -> dict[str, bytes]:
    """Draw every figure of the report, under the same names in each run.

    The first sampler of the table is the one whose completions and ranks are shown.

    Args:
        metrics: The tidy table, see `check_metrics`.
        examples: Arrays, see `pipelines.reporting.examples.read_examples`.
        extremes: Arrays, see `pipelines.reporting.examples.read_extremes`; may be empty.
        calibration: Sampler -> what `condvae.evaluation.assess_calibration` returns; may be empty.
        training_history: Rows with `step`, `images_seen`, `loss` and so on; empty where nothing
            was trained.
        run_facts: Facts, see `check_facts`; `classifier_accuracy` is drawn beside the class
            agreement, `loss_unit` names the unit of the loss.

    Returns:
        File name -> PNG bytes: `completions.png`, `extremes.png`, `samplers.png`, those of
        `draw_calibration`, `training.png` unless the history is empty, and `metric_<name>.png` for
        each metric with finite values.
    """
    check_metrics(metrics, run_facts)
    order = [str(name) for name in metrics["sampler"].drop_duplicates()]
    cases = read_examples(examples, 2, order)
    styles = style_samplers([*order, *cases, *calibration])
    sampler = next(iter(cases))
    figures = {
        "completions.png": plot_completions(
            cases[sampler], title=f"Completions by the sampler “{sampler}”"
        ),
        "samplers.png": plot_samplers(read_examples(examples, 1, order), styles=styles),
    }
    if extremes:
        name, extreme_cases, scores = read_extremes(extremes)
        title = f"Best and worst cases of “{name}” by CRPS, grey levels"
        figures["extremes.png"] = plot_extremes(extreme_cases, scores, title=title)
    figures |= draw_calibration(calibration, order[0], styles)
    if training_history:
        unit = run_facts.get("loss_unit")
        figures["training.png"] = plot_training(training_history, loss_unit=unit)
    figures |= draw_metrics(metrics, run_facts.get("classifier_accuracy"), styles)
    return {name: png_bytes(figure) for name, figure in figures.items()}


def write_report_node(
    figures: Mapping[str, bytes],
    metrics: pd.DataFrame,
    comparisons: pd.DataFrame,
    calibration: Calibration,
    run_facts: Mapping[str, Any],
    folders: Mapping[str, str],
) -> dict[str, Any]:
    """Write the figures, the metric cards and `report.html`, which needs no other file.

    Args:
        figures: File name -> PNG bytes.
        metrics: The tidy table, see `check_metrics`.
        comparisons: Paired differences, see `pipelines.reporting.tables.describe_comparisons`.
        calibration: As for `draw_figures_node`.
        run_facts: Facts, see `check_facts`.
        folders: `reporting` is the folder to write to.

    Returns:
        `folder` as given, and the names in it: `report`, `cards` and the list `figures`.
    """
    check_facts(run_facts)
    check_metrics(metrics, run_facts)
    folder = Path(folders["reporting"])
    page = render_page(figures, metrics, comparisons, calibration, run_facts)
    cards = {t.metric: asdict(t.card) for t in tabulate_metrics(metrics, run_facts)}
    files = {**figures, "report.html": page.encode()}
    for name, content in files.items():
        with open_atomic(folder / name) as file:
            file.write(content)
    write_json(folder / "metric_cards.json", cards)
    return {
        "folder": folder.as_posix(),
        "report": "report.html",
        "cards": "metric_cards.json",
        "figures": list(figures),
    }
