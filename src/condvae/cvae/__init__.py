"""The flat sigma-CVAE: attributes in, images out."""

from __future__ import annotations

from condvae.cvae.classification import classify, value_shares
from condvae.cvae.conditions import ConditionEncoder, drop
from condvae.cvae.config import CvaeConfig
from condvae.cvae.folder import load_cvae, save_cvae
from condvae.cvae.generation import edit, interpolate, sample, sweep, sweep_values
from condvae.cvae.model import FlatVAE, new_cvae
from condvae.cvae.training import CvaeRun, TrainingImages, train_cvae

__all__ = [
    "ConditionEncoder",
    "CvaeConfig",
    "CvaeRun",
    "FlatVAE",
    "TrainingImages",
    "classify",
    "drop",
    "edit",
    "interpolate",
    "load_cvae",
    "new_cvae",
    "sample",
    "save_cvae",
    "sweep",
    "sweep_values",
    "train_cvae",
    "value_shares",
]
