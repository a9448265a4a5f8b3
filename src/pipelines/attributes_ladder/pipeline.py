"""Wiring of `attributes_ladder`."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node, pipeline

from pipelines.attributes.pipeline import KNOWN, create_preparation_pipeline
from pipelines.attributes_ladder.nodes import compare_rungs, run_ladder
from pipelines.attributes_ladder.report import write_ladder_report

__all__ = ["create_pipeline"]


def create_pipeline() -> Pipeline:
    """Train and judge all rungs with all seeds, compare them, write the report."""
    own = [
        node(
            run_ladder,
            [
                *KNOWN,
                "attribute_classifier",
                "params:cvae",
                "params:cvae_training",
                "params:prior_training",
                "params:ladder",
                "params:folders",
                "params:device",
                "params:seed",
            ],
            ["ladder_results", "ladder_samples"],
            name="run_ladder_node",
        ),
        node(
            compare_rungs,
            ["ladder_results", "params:ladder"],
            ["ladder_table", "ladder_table_csv", "ladder_contributions"],
            name="compare_rungs_node",
        ),
        node(
            write_ladder_report,
            [
                *KNOWN,
                "ladder_table",
                "ladder_contributions",
                "ladder_samples",
                "params:ladder",
                "params:folders",
                "params:seed",
            ],
            "ladder_files",
            name="write_ladder_report_node",
        ),
    ]
    return create_preparation_pipeline() + pipeline(own)
