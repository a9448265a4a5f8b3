"""What each ingredient of the flat conditional VAE is worth: a ladder of models, several seeds each."""

from pipelines.attributes_ladder.pipeline import create_pipeline

__all__ = ["create_pipeline"]
