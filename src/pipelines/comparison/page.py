"""The page of a comparison: differences, pictures, scores side by side, what the runs are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from condvae.plots import metric_label
from pipelines.pages.rendering import data_address, render
from pipelines.reporting.tables import (
    GROUPS,
    Comparison,
    check_metrics,
    describe_comparisons,
    tabulate_metrics,
)

__all__ = ["render_page"]

_LISTED = ("started", "status", "recipe", "trigger", "sampler", "data", "git_commit", "command")


def render_page(
    figures: Mapping[str, bytes],
    compared_runs: Mapping[str, Any],
    metrics: pd.DataFrame,
    differences: pd.DataFrame,
    command: str,
) -> str:
    """Return the page as HTML that refers to no other file and runs no script.

    Args:
        figures: File name -> PNG bytes.
        compared_runs: See `pipelines.comparison.matching.describe_runs`.
        metrics: Tidy scores, `sampler` being the label of a run; may be empty.
        differences: Rows of `condvae.evaluation.compare_case_tables`, a minus the reference.
        command: That writes the page.
    """
    if len(metrics):
        check_metrics(metrics, {})
    runs = compared_runs["runs"]
    sections = []
    for run in runs[1:]:
        own = describe_comparisons(differences[differences["run_a"] == run["run_id"]])
        sections.append((run["label"], _summarise(own, run["label"]), own))
    return render(
        "comparison",
        facts=compared_runs,
        runs=runs,
        rows=[(name, [_text(run.get(name)) for run in runs]) for name in _LISTED],
        parameters=[
            (name, [_text(run["parameters"][name]) for run in runs])
            for name in runs[0]["parameters"]
        ],
        sections=sections,
        tables=tabulate_metrics(metrics, {}) if len(metrics) else [],
        groups=GROUPS,
        left_out=[(metric_label(m).title, why) for m, why in compared_runs["left_out"].items()],
        figures={name: data_address(content) for name, content in figures.items()},
        curves=[name for name in figures if name.startswith("metric_")],
        command=command,
    )


def _summarise(comparisons: Sequence[Comparison], label: str) -> str:
    """How many proper scores over all cases are better, worse and not clear."""
    proper = [c for c in comparisons if c.pooled and c.verdict and metric_label(c.metric).proper]
    count = Counter(
        {f"{label} better": "better", "not clear": "not clear"}.get(c.verdict, "worse")
        for c in proper
    )
    words = ", ".join(f"{count[word]} {word}" for word in ("better", "worse", "not clear"))
    return f"Proper scores over all cases: {words}."


def _text(value: Any) -> str:
    return "–" if value is None else str(value)
