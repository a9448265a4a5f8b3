"""Wiring of the registration."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node, pipeline

from pipelines.registration.nodes import register_posterior

__all__ = ["create_pipeline"]


def create_pipeline() -> Pipeline:
    """One node, after the scores are on the posterior's card and the report is written."""
    return pipeline(
        [
            node(
                register_posterior,
                [
                    "posterior",
                    "evaluation_manifest",
                    "cases",
                    "calibration",
                    "evaluation_facts",
                    "model_card",
                    "report_files",
                    "params:registry",
                ],
                "registration",
                name="register_posterior_node",
            )
        ]
    )
