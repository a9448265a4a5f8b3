"""Wiring of `attributes`."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node, pipeline

from pipelines.attributes.nodes import (
    evaluate_flat_vae,
    gather_image_attributes,
    train_flat_vae,
    train_judge,
)
from pipelines.attributes.report import write_attribute_report

__all__ = ["KNOWN", "create_pipeline", "create_preparation_pipeline"]

KNOWN = ["image_store", "attribute_table", "attribute_facts"]
"""Images and what is known of them."""


def create_preparation_pipeline() -> Pipeline:
    """Gather attributes and train the network that reads them off images."""
    return pipeline(
        [
            node(
                gather_image_attributes,
                ["image_store", "params:attributes"],
                ["attribute_table", "attribute_facts"],
                name="gather_image_attributes_node",
            ),
            node(
                train_judge,
                [*KNOWN, "params:attributes", "params:folders", "params:device"],
                "attribute_classifier",
                name="train_judge_node",
            ),
        ]
    )


def create_pipeline() -> Pipeline:
    """From prepared images to a model of p(x | y), its scores, pictures and report."""
    own = [
        node(
            train_flat_vae,
            [
                *KNOWN,
                "params:cvae",
                "params:cvae_training",
                "params:prior_training",
                "params:folders",
                "params:device",
                "params:seed",
            ],
            ["flat_vae", "flat_vae_history"],
            name="train_flat_vae_node",
        ),
        node(
            evaluate_flat_vae,
            [*KNOWN, "attribute_classifier", "flat_vae", "params:attributes", "params:device"],
            ["attribute_metrics", "attribute_metrics_csv", "attribute_probabilities"],
            name="evaluate_flat_vae_node",
        ),
        node(
            write_attribute_report,
            [
                *KNOWN,
                "flat_vae",
                "flat_vae_history",
                "attribute_metrics",
                "attribute_probabilities",
                "params:attributes",
                "params:folders",
                "params:device",
            ],
            "attribute_files",
            name="write_attribute_report_node",
        ),
    ]
    return create_preparation_pipeline() + pipeline(own)
