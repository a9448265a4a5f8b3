"""Train, judge and show a flat conditional VAE: attributes in, images out."""

from pipelines.attributes.pipeline import create_pipeline

__all__ = ["create_pipeline"]
