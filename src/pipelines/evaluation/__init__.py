"""Evaluate samplers on a hashed manifest."""

from pipelines.evaluation.pipeline import create_pipeline, create_stored_posterior_pipeline

__all__ = ["create_pipeline", "create_stored_posterior_pipeline"]
