"""Pretraining: from images to an unconditional VAE."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node, pipeline

from pipelines.pretraining.nodes import train_vae


def create_pipeline(**kwargs: object) -> Pipeline:
    """One node: train, score on the test split, save."""
    del kwargs
    return pipeline(
        [
            node(
                train_vae,
                [
                    "image_store",
                    "params:model",
                    "params:pretraining",
                    "params:start",
                    "params:folders",
                    "params:device",
                    "params:seed",
                ],
                "trained_vae",
                name="train_vae_node",
            )
        ]
    )
