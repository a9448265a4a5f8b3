"""Does the frozen VAE score what its card says?"""

from pipelines.verification.pipeline import create_pipeline

__all__ = ["create_pipeline"]
