"""Every parameter of the project as frozen dataclasses, one per section."""

from pipelines.parameters.anomaly import AnomalyConfig
from pipelines.parameters.check import check_parameters
from pipelines.parameters.completion import CompleteConfig
from pipelines.parameters.evaluation import (
    EvaluationConfig,
    ExtractorConfig,
    FeatureConfig,
    ManifestConfig,
    ScoreConfig,
)
from pipelines.parameters.model import (
    ModelConfig,
    SamplingConfig,
    TaskConfig,
    VerifyConfig,
    WeightsConfig,
)

__all__ = [
    "AnomalyConfig",
    "CompleteConfig",
    "EvaluationConfig",
    "ExtractorConfig",
    "FeatureConfig",
    "ManifestConfig",
    "ModelConfig",
    "SamplingConfig",
    "ScoreConfig",
    "TaskConfig",
    "VerifyConfig",
    "WeightsConfig",
    "check_parameters",
]
