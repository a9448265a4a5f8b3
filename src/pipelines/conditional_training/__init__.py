"""Train the partial encoder."""

from pipelines.conditional_training.pipeline import create_pipeline

__all__ = ["create_pipeline"]
