"""Do scores of what is seen tell foreign images from those of the data set?"""

from pipelines.anomaly.pipeline import create_pipeline

__all__ = ["create_pipeline"]
