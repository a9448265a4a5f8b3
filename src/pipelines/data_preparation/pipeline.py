"""Wiring of the data preparation."""

from __future__ import annotations

from typing import Any

from kedro.pipeline import Node, Pipeline

from pipelines.data_preparation.nodes import document_manifest_node, prepare_images_node

__all__ = ["create_pipeline"]


def create_pipeline(**kwargs: Any) -> Pipeline:
    """Prepare the images, then document their manifest."""
    return Pipeline(
        [
            Node(
                prepare_images_node,
                inputs=["params:data", "params:folders"],
                outputs=["image_store", "manifest"],
                name="prepare_images_node",
            ),
            Node(
                document_manifest_node,
                inputs=["manifest", "params:folders"],
                outputs="data_docs",
                name="document_manifest_node",
            ),
        ]
    )
