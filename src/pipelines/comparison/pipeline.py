"""Wiring of the comparison of runs."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node, pipeline

from pipelines.comparison.nodes import gather_runs, list_differences, write_comparison

__all__ = ["create_pipeline"]


def create_pipeline() -> Pipeline:
    """Fetch what runs have kept, take differences case by case, write the page."""
    return pipeline(
        [
            node(
                gather_runs,
                ["params:compare"],
                ["compared_runs", "compared_metrics", "compared_cases", "compared_examples"],
                name="gather_runs_node",
            ),
            node(
                list_differences,
                ["compared_runs", "compared_cases", "params:compare"],
                ["run_differences", "run_differences_csv"],
                name="list_differences_node",
            ),
            node(
                write_comparison,
                [
                    "compared_runs",
                    "compared_metrics",
                    "run_differences",
                    "compared_examples",
                    "params:folders",
                ],
                "comparison_files",
                name="write_comparison_node",
            ),
        ]
    )
