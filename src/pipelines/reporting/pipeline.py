"""Wiring of the report."""

from __future__ import annotations

from typing import Any

from kedro.pipeline import Node, Pipeline

from pipelines.reporting.nodes import draw_figures_node, write_report_node

__all__ = ["create_pipeline"]


def create_pipeline(**kwargs: Any) -> Pipeline:
    """Draw the figures, then write them and the page."""
    return Pipeline(
        [
            Node(
                draw_figures_node,
                inputs=[
                    "metrics",
                    "examples",
                    "extremes",
                    "calibration",
                    "training_history",
                    "run_facts",
                ],
                outputs="report_figures",
                name="draw_figures_node",
            ),
            Node(
                write_report_node,
                inputs=[
                    "report_figures",
                    "metrics",
                    "comparisons",
                    "calibration",
                    "run_facts",
                    "params:folders",
                ],
                outputs="report_files",
                name="write_report_node",
            ),
        ]
    )
