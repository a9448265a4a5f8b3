"""Register the trained posterior in MLflow's model registry."""

from pipelines.registration.pipeline import create_pipeline

__all__ = ["create_pipeline"]
