"""Pretrained weights: from a name to a verified folder."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node, pipeline

from pipelines.pretrained_weights.nodes import fetch_weights


def create_pipeline(**kwargs: object) -> Pipeline:
    """One node: find, verify, compare with the data."""
    del kwargs
    return pipeline(
        [
            node(
                fetch_weights,
                [
                    "image_store",
                    "params:weights",
                    "params:model",
                    "params:folders",
                    "params:seed",
                    "params:objective",
                ],
                "pretrained_vae",
                name="fetch_weights_node",
            )
        ]
    )
