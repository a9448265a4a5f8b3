"""Complete one's own pictures with a trained posterior."""

from pipelines.completion.pipeline import create_pipeline

__all__ = ["create_pipeline"]
