"""Compare MLflow runs case by case."""

from pipelines.comparison.pipeline import create_pipeline

__all__ = ["create_pipeline"]
