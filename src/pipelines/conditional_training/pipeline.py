"""Conditional training: from a frozen VAE to a posterior."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node, pipeline

from pipelines.conditional_training.nodes import train_partial_encoder


def create_pipeline(**kwargs: object) -> Pipeline:
    """One node: train the partial encoder, save the posterior."""
    del kwargs
    return pipeline(
        [
            node(
                train_partial_encoder,
                [
                    "image_store",
                    "pretrained_vae",
                    "params:model",
                    "params:task",
                    "params:masks",
                    "params:training",
                    "params:start",
                    "params:folders",
                    "params:device",
                    "params:seed",
                    "params:objective",
                    "params:recipe",
                ],
                ["posterior", "training_history"],
                name="train_partial_encoder_node",
            )
        ]
    )
