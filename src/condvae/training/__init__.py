"""Training: configuration, the loop, resumable state, averages of weights."""

from condvae.training.config import ObjectiveConfig, TrainingConfig
from condvae.training.guard import TrainingDivergedError
from condvae.training.loop import FitResult, Objective, fit

__all__ = [
    "FitResult",
    "Objective",
    "ObjectiveConfig",
    "TrainingConfig",
    "TrainingDivergedError",
    "fit",
]
