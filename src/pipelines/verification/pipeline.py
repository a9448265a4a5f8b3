"""Verification: from a VAE's name to pass or fail."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node, pipeline

from pipelines.verification.nodes import refuse_failed_score, verify_score


def create_pipeline(**kwargs: object) -> Pipeline:
    """Two nodes: score and write the verdict, then refuse a failed one."""
    del kwargs
    return pipeline(
        [
            node(
                verify_score,
                [
                    "image_store",
                    "pretrained_vae",
                    "params:verify",
                    "params:device",
                    "params:seed",
                ],
                "verification",
                name="verify_score_node",
            ),
            node(
                refuse_failed_score,
                "verification",
                None,
                name="refuse_failed_score_node",
            ),
        ]
    )
