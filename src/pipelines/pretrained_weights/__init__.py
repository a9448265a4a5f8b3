"""Find the frozen VAE."""

from pipelines.pretrained_weights.pipeline import create_pipeline

__all__ = ["create_pipeline"]
