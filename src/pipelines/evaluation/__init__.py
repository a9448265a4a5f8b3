"""Evaluate samplers on a hashed manifest, and completions of other systems."""

from pipelines.evaluation.pipeline import (
    create_export_pipeline,
    create_pipeline,
    create_score_pipeline,
    create_stored_posterior_pipeline,
)

__all__ = [
    "create_export_pipeline",
    "create_pipeline",
    "create_score_pipeline",
    "create_stored_posterior_pipeline",
]
