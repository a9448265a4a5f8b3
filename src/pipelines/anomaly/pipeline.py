"""Wiring of the anomaly scores."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node, pipeline

from pipelines.anomaly.nodes import report_auroc, score_foreign_images

__all__ = ["create_pipeline"]


def create_pipeline() -> Pipeline:
    """Score test images and foreign ones behind the same masks, then compare them."""
    return pipeline(
        [
            node(
                score_foreign_images,
                [
                    "image_store",
                    "posterior",
                    "params:anomaly",
                    "params:masks",
                    "params:task",
                    "params:sampling",
                    "params:device",
                ],
                "anomaly_scores",
                name="score_foreign_images_node",
            ),
            node(
                report_auroc,
                ["anomaly_scores", "posterior", "params:anomaly", "params:folders"],
                ["anomaly_auroc", "anomaly_auroc_csv", "anomaly_files"],
                name="report_auroc_node",
            ),
        ]
    )
