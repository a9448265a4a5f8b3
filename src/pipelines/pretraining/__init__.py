"""Train an unconditional VAE."""

from pipelines.pretraining.pipeline import create_pipeline

__all__ = ["create_pipeline"]
