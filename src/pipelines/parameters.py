"""Every parameter of the project, checked before any work starts."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from condvae.conditional.partial_encoder import INITIALISATIONS
from condvae.configuration import ConfigurationError, check_choice, check_positive, read_config
from condvae.data.config import DataConfig
from condvae.pretrained import find_model
from condvae.tasks import TASKS
from condvae.tasks.mask_sampling import MaskConfig
from condvae.training.acceleration import resolve_device
from condvae.training.config import TrainingConfig
from condvae.vdvae.architecture import architecture_named
from condvae.vdvae.presets import PRESETS, preset_named

__all__ = [
    "EvaluationConfig",
    "FeatureConfig",
    "ManifestConfig",
    "ModelConfig",
    "SamplingConfig",
    "WeightsConfig",
    "check_parameters",
]

SAMPLERS = ("ipa", "untrained", "prior")


@dataclass(frozen=True)
class FoldersConfig:
    """Where results lie."""

    images: str
    features: str
    evaluation: str
    vae: str
    inpaint: str
    reporting: str
    data_docs: str


@dataclass(frozen=True)
class WeightsConfig:
    """Which weights are used.

    Attributes:
        vae: Registered name, model folder, official checkpoint (``.th``), or ``random``.
        allow_untrained: Accept a VAE that was never trained.
        posterior: What `evaluate` scores; None = the last trained posterior, else the bundled one.
        preset: The published model an official checkpoint belongs to; None for everything else.
    """

    vae: str = "digits"
    allow_untrained: bool = False
    posterior: str | None = None
    preset: str | None = None

    def __post_init__(self) -> None:
        if self.preset is not None:
            preset_named(self.preset)
        if self.is_official_file and self.preset is None:
            raise ConfigurationError(
                f"preset = None: weights.vae = {self.vae!r} is an official checkpoint, which does "
                f"not say what model it is; expected one of {', '.join(PRESETS)}"
            )
        if self.preset is not None and not self.is_official_file:
            raise ConfigurationError(
                f"preset = {self.preset!r}: only for official checkpoints (.th), but weights.vae = "
                f"{self.vae!r}"
            )

    @property
    def is_official_file(self) -> bool:
        """Whether `vae` is a checkpoint in the official layout."""
        return self.vae.endswith(".th")


@dataclass(frozen=True)
class ModelConfig:
    """Shape of a new VAE and start of the partial encoder."""

    architecture: str = "digits16"
    initialisation: str = "copy"

    def __post_init__(self) -> None:
        architecture_named(self.architecture)
        check_choice("initialisation", self.initialisation, INITIALISATIONS)


@dataclass(frozen=True)
class TaskConfig:
    """Which conditional task."""

    name: str = "inpainting"

    def __post_init__(self) -> None:
        check_choice("name", self.name, TASKS)


@dataclass(frozen=True)
class SamplingConfig:
    """How completions are drawn."""

    temperature: float = 1.0
    batch_size: int = 256
    paste_observed: bool = True

    def __post_init__(self) -> None:
        check_positive("temperature", self.temperature, zero=True)
        check_positive("batch_size", self.batch_size)


@dataclass(frozen=True)
class ManifestConfig:
    """Size of an evaluation: cases per bin of observed share and completions per case."""

    cases_per_bin: int
    completions: int

    def __post_init__(self) -> None:
        check_positive("cases_per_bin", self.cases_per_bin)
        if self.completions < 2:
            raise ConfigurationError(
                f"completions = {self.completions!r}: diversity needs at least 2"
            )


@dataclass(frozen=True)
class FeatureConfig:
    """The small network whose features the scores use; trained by the evaluation."""

    features: int = 32
    epochs: int = 30

    def __post_init__(self) -> None:
        check_positive("features", self.features)
        if self.features > 32:
            raise ConfigurationError(f"features = {self.features!r}: expected at most 32")
        check_positive("epochs", self.epochs)


@dataclass(frozen=True)
class EvaluationConfig:
    """What is evaluated: `quick` by `inpaint`, `full` by `evaluate`.

    Attributes:
        quick: Size of the manifest of `inpaint`.
        full: Size of the manifest of `evaluate`.
        feature_network: The extractor.
        samplers: Which samplers are scored.
        level: Of intervals.
        seed: Of cases, masks, feature network and all draws. Not the run's seed: runs that differ in
            their training seed are judged on the same cases by the same features.
    """

    quick: ManifestConfig
    full: ManifestConfig
    feature_network: FeatureConfig = field(default_factory=FeatureConfig)
    samplers: tuple[str, ...] = SAMPLERS
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        for sampler in self.samplers:
            check_choice("samplers", sampler, SAMPLERS)
        if "ipa" not in self.samplers:
            raise ConfigurationError(
                "samplers: expected 'ipa' among them, others are compared to it"
            )
        if not 0.0 < self.level < 1.0:
            raise ConfigurationError(f"level = {self.level!r}: expected in (0, 1)")


_SECTIONS: dict[str, type] = {
    "data": DataConfig,
    "folders": FoldersConfig,
    "weights": WeightsConfig,
    "model": ModelConfig,
    "task": TaskConfig,
    "masks": MaskConfig,
    "pretraining": TrainingConfig,
    "training": TrainingConfig,
    "sampling": SamplingConfig,
    "evaluation": EvaluationConfig,
}
# Values that are no sections; mlflow_run_id continues an existing MLflow run.
_VALUES: dict[str, type | tuple[type, ...]] = {
    "device": str,
    "seed": int,
    "mlflow_run_id": (str, type(None)),
}
_NAMES = {"device": "text", "seed": "an integer", "mlflow_run_id": "text or nothing"}


def check_parameters(parameters: Mapping[str, Any], project: Path | None = None) -> None:
    """Check all parameters of a run.

    Args:
        parameters: All of them.
        project: Folder that relative paths start at; None leaves files and weights unchecked.

    Raises:
        ConfigurationError: A section or key is unknown, a value has the wrong type or range, or
            sections contradict each other; the message names the parameter.
    """
    known = [*_SECTIONS, *_VALUES]
    for name, value in parameters.items():
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
            raise ConfigurationError(f"unknown parameter {name} ({hint})")
        if name in _VALUES and (not isinstance(value, _VALUES[name]) or isinstance(value, bool)):
            raise ConfigurationError(f"{name} = {value!r}: expected {_NAMES[name]}")
    for name, section in _SECTIONS.items():
        read_config(section, parameters.get(name), name)
    if parameters["seed"] < 0:
        raise ConfigurationError(f"seed = {parameters['seed']!r}: expected >= 0")
    resolve_device(parameters["device"])
    if project is not None:
        _check_sources(parameters, project)


def _check_sources(parameters: Mapping[str, Any], project: Path) -> None:
    """Refuse images and weights that are not there, before anything is made."""
    path = parameters["data"].get("path")
    if path is not None and not (project / path).exists():
        raise ConfigurationError(f"data.path = {path!r}: no such file or folder")
    weights = read_config(WeightsConfig, parameters["weights"], "weights")
    for name in (weights.vae, weights.posterior):
        # Official checkpoints are files; everything else is a folder or a registered name.
        if name not in (None, "random") and not (project / name).exists():
            find_model(name)
    if weights.vae == "random":
        model = read_config(ModelConfig, parameters["model"], "model")
        shape = architecture_named(model.architecture)
        data = read_config(DataConfig, parameters["data"], "data")
        if (shape.channels, shape.image_size) != (data.channels, data.image_size):
            raise ConfigurationError(
                f"model.architecture = {model.architecture!r} is for {shape.channels} x "
                f"{shape.image_size}² images; data.channels = {data.channels}, data.image_size = "
                f"{data.image_size}"
            )
