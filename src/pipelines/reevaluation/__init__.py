"""Is the registered champion still what it was, and are new pictures still what it was made for?"""

from pipelines.reevaluation.pipeline import create_pipeline

__all__ = ["create_pipeline"]
