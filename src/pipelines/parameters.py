"""Every parameter of the project, checked before any work starts."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from condvae.completion.config import CompletionSettings
from condvae.conditional.partial_encoder import INITIALISATIONS
from condvae.configuration import ConfigurationError, check_choice, check_positive, read_config
from condvae.data.config import DataConfig
from condvae.images import DataContract
from condvae.pretrained import find_model, read_cards, resolve_posterior
from condvae.tasks import TASKS
from condvae.tasks.mask_sampling import MaskConfig
from condvae.training.acceleration import resolve_device
from condvae.training.config import TrainingConfig
from condvae.training.start import StartConfig, was_started_from
from condvae.vdvae.architecture import architecture_named
from condvae.vdvae.presets import PRESETS, preset_named

__all__ = [
    "CompleteConfig",
    "EvaluationConfig",
    "FeatureConfig",
    "ManifestConfig",
    "ModelConfig",
    "SamplingConfig",
    "VerifyConfig",
    "WeightsConfig",
    "check_parameters",
]

SAMPLERS = ("ipa", "untrained", "prior")
RECIPES = ("tuned", "published")


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
        vae: Registered name, model folder, official checkpoint (``.th``), or ``random``. The name of a
            published checkpoint has it fetched.
        allow_untrained: Accept a VAE that was never trained.
        posterior: What `evaluate` scores: a name, a folder or an official conditional checkpoint;
            None = the last trained posterior, else the bundled one.
        preset: The published model that official checkpoints belong to; None for everything else.
        allow_unpinned: Accept a published file whose sha256 nobody has stated yet, and pin it.
        cache: Folder of fetched files; None = ``$CONDVAE_CACHE``, else ``~/.cache/condvae``.
    """

    vae: str = "digits"
    allow_untrained: bool = False
    posterior: str | None = None
    preset: str | None = None
    allow_unpinned: bool = False
    cache: str | None = None

    def __post_init__(self) -> None:
        if self.preset is not None:
            preset_named(self.preset)
        official = {
            name: value
            for name, value in (("vae", self.vae), ("posterior", self.posterior))
            if value is not None and value.endswith(".th")
        }
        if self.preset is None:
            for name, value in official.items():
                raise ConfigurationError(
                    f"preset = None: weights.{name} = {value!r} is an official checkpoint, which "
                    f"does not say what model it is; expected one of {', '.join(PRESETS)}"
                )
        elif not official:
            raise ConfigurationError(
                f"preset = {self.preset!r}: only for official checkpoints (.th), but weights.vae = "
                f"{self.vae!r} and weights.posterior = {self.posterior!r}"
            )


@dataclass(frozen=True)
class ModelConfig:
    """Shape and data contract of a new VAE, and start of the partial encoder.

    Attributes:
        architecture: Registered name.
        initialisation: How the partial encoder starts.
        bits: Bits per channel of a new VAE's likelihood, 8 or 5.
        mean: What a new VAE subtracts from pixels on the 0-255 scale; None = the mean of the training
            images.
        std: What it divides by afterwards; None = theirs.
    """

    architecture: str = "digits16"
    initialisation: str = "copy"
    bits: int = 8
    mean: float | None = None
    std: float | None = None

    def __post_init__(self) -> None:
        architecture_named(self.architecture)
        check_choice("bits", self.bits, (5, 8))
        if self.std is not None:
            check_positive("std", self.std)
        if self.mean is not None and not 0.0 <= self.mean <= 255.0:
            raise ConfigurationError(f"mean = {self.mean!r}: expected in [0, 255]")
        check_choice("initialisation", self.initialisation, INITIALISATIONS)

    def contract(self, training_mean: float, training_std: float) -> DataContract:
        """What a new VAE expects of its images, given mean and deviation of the training images."""
        shape = architecture_named(self.architecture)
        return DataContract(
            shape.channels,
            shape.image_size,
            training_mean if self.mean is None else self.mean,
            training_std if self.std is None else self.std,
            self.bits,
        )


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
class CompleteConfig:
    """Which of one's own pictures `complete` takes, and how; see also `CompletionSettings`.

    Attributes:
        output: Folder of the results.
        images: Folder of pictures or one picture.
        masks: One mask for all, or a folder with one per picture by name.
        n: Completions per picture.
        polarity: What white means in mask files.
        small: What happens to pictures smaller than the model.
        unreadable: What pictures and masks do that cannot be used.
        quantiles: Levels of the quantile maps.
        replay: Manifest of a run to repeat, with its pictures and settings in place of the above.
    """

    output: str
    images: str | None = None
    masks: str | None = None
    n: int = 16
    polarity: str = "white_is_hole"
    small: str = "refuse"
    unreadable: str = "stop"
    quantiles: tuple[float, ...] = (0.05, 0.95)
    replay: str | None = None

    def __post_init__(self) -> None:
        self.settings(SamplingConfig(), seed=0)

    def settings(self, sampling: SamplingConfig, seed: int) -> CompletionSettings:
        """Everything that decides the results beside pictures, masks and model."""
        own = ("n", "polarity", "small", "unreadable", "quantiles")
        return CompletionSettings(
            **{name: getattr(self, name) for name in own}, seed=seed, **asdict(sampling)
        )

    def check_inputs(self, project: Path = Path()) -> None:
        """Refuse a run of `complete` that is not told what to complete.

        Args:
            project: Folder that relative paths start at.

        Raises:
            ConfigurationError: Images or masks are not named, or what is named is not there.
        """
        needed = ("images", "masks") if self.replay is None else ("replay",)
        for name in needed:
            path = getattr(self, name)
            if path is None:
                raise ConfigurationError(
                    f"complete.{name} = None: expected a file or folder, as in --params="
                    "complete.images=DIR,complete.masks=DIR_OR_FILE"
                )
            if not (project / path).exists():
                raise ConfigurationError(f"complete.{name} = {path!r}: no such file or folder")


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


@dataclass(frozen=True)
class VerifyConfig:
    """How `verify` scores a VAE: on so many test images (all if there are fewer), so many at a time."""

    images: int = 1000
    batch_size: int = 64

    def __post_init__(self) -> None:
        if self.images < 2:
            raise ConfigurationError(f"images = {self.images!r}: a standard error needs at least 2")
        check_positive("batch_size", self.batch_size)


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
    "complete": CompleteConfig,
    "start": StartConfig,
    "verify": VerifyConfig,
}
# Values that are no sections; mlflow_run_id continues an existing MLflow run.
_VALUES: dict[str, type | tuple[type, ...]] = {
    "device": str,
    "seed": int,
    "recipe": str,
    "mlflow_run_id": (str, type(None)),
}
_NAMES = {
    "device": "text",
    "seed": "an integer",
    "recipe": "text",
    "mlflow_run_id": "text or nothing",
}


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
    check_choice("recipe", parameters["recipe"], RECIPES)
    resolve_device(parameters["device"])
    if project is not None:
        _check_sources(parameters, project)


def _check_sources(parameters: Mapping[str, Any], project: Path) -> None:
    """Refuse images and weights that are not there, before anything is made."""
    path = parameters["data"].get("path")
    if path is not None and not (project / path).exists():
        raise ConfigurationError(f"data.path = {path!r}: no such file or folder")
    weights = read_config(WeightsConfig, parameters["weights"], "weights")
    published = [name for name, card in read_cards().items() if card.folder is None]
    for key, name in (("vae", weights.vae), ("posterior", weights.posterior)):
        if name is None or (key == "vae" and name in ("random", *published)):
            continue
        # Official checkpoints are files; everything else is a folder or a name of the package.
        if not (project / name).exists():
            if name.endswith(".th"):
                raise ConfigurationError(f"weights.{key} = {name!r}: no such file")
            (find_model if key == "vae" else resolve_posterior)(name)
    _check_start(parameters, project)
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


def _check_start(parameters: Mapping[str, Any], project: Path) -> None:
    """Refuse a start that is not there, unless a run has begun from it and can go on without it."""
    rung, name = read_config(StartConfig, parameters.get("start"), "start").chosen
    if name is None or (project / name).exists():
        return
    folders = read_config(FoldersConfig, parameters["folders"], "folders")
    runs = (f"{folders.inpaint}/training", f"{folders.vae}_training")
    if any(was_started_from(project / folder, name) for folder in runs):
        return
    if rung == "resume":
        raise ConfigurationError(f"start.resume = {name!r}: no such folder")
    try:
        find_model(name)
    except ConfigurationError as error:
        raise ConfigurationError(f"start.{rung} = {name!r}: {error}") from None
