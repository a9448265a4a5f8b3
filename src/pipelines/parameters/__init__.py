"""Every parameter of the project as frozen dataclasses, one per section."""

from pipelines.parameters.anomaly import AnomalyConfig
from pipelines.parameters.attributes import AttributesConfig, LadderConfig, Rung
from pipelines.parameters.check import check_parameters
from pipelines.parameters.comparison import CompareConfig
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
from pipelines.parameters.reevaluation import ReevaluationConfig
from pipelines.parameters.registry import RegistryConfig

__all__ = [
    "AnomalyConfig",
    "AttributesConfig",
    "CompareConfig",
    "CompleteConfig",
    "EvaluationConfig",
    "ExtractorConfig",
    "FeatureConfig",
    "LadderConfig",
    "ManifestConfig",
    "ModelConfig",
    "ReevaluationConfig",
    "RegistryConfig",
    "Rung",
    "SamplingConfig",
    "ScoreConfig",
    "TaskConfig",
    "VerifyConfig",
    "WeightsConfig",
    "check_parameters",
]
