"""Check every parameter before any work starts."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from condvae.cvae.config import CvaeConfig
from condvae.data.config import SIDE_INFORMATION_SOURCES, DataConfig
from condvae.data.fetching import check_obtainable
from condvae.ground.configuration import ConfigurationError, check_choice, check_seed, read_config
from condvae.ground.devices import resolve_device
from condvae.ground.images import DataContract
from condvae.masks.sampling import MaskConfig
from condvae.models import find_model, read_cards, resolve_posterior
from condvae.tasks import Colourisation
from condvae.training.config import ObjectiveConfig, TrainingConfig
from condvae.training.objectives import check_objective
from condvae.training.start import StartConfig, was_started_from
from condvae.transport.hub_address import check_hub_address, is_hub_address
from pipelines.parameters.anomaly import AnomalyConfig
from pipelines.parameters.attributes import AttributesConfig, LadderConfig
from pipelines.parameters.comparison import CompareConfig
from pipelines.parameters.completion import CompleteConfig
from pipelines.parameters.evaluation import EvaluationConfig, ScoreConfig
from pipelines.parameters.model import (
    FoldersConfig,
    ModelConfig,
    SamplingConfig,
    TaskConfig,
    VerifyConfig,
    WeightsConfig,
)
from pipelines.parameters.overlay import TASK_PIPELINES, override_sections
from pipelines.parameters.reevaluation import ReevaluationConfig
from pipelines.parameters.registry import RegistryConfig

__all__ = ["SECTIONS", "VALUES", "check_parameters"]

RECIPES = ("tuned", "published")

SECTIONS: dict[str, type] = {
    "data": DataConfig,
    "folders": FoldersConfig,
    "weights": WeightsConfig,
    "model": ModelConfig,
    "task": TaskConfig,
    "masks": MaskConfig,
    "pretraining": TrainingConfig,
    "training": TrainingConfig,
    "objective": ObjectiveConfig,
    "sampling": SamplingConfig,
    "evaluation": EvaluationConfig,
    "score": ScoreConfig,
    "compare": CompareConfig,
    "complete": CompleteConfig,
    "anomaly": AnomalyConfig,
    "attributes": AttributesConfig,
    "cvae": CvaeConfig,
    "cvae_training": TrainingConfig,
    "prior_training": TrainingConfig,
    "ladder": LadderConfig,
    "start": StartConfig,
    "verify": VerifyConfig,
    "reevaluate": ReevaluationConfig,
    "registry": RegistryConfig,
}
# Values that are no sections; mlflow_run_id continues an existing MLflow run, mlflow_run_name names a
# new one.
VALUES: dict[str, type | tuple[type, ...]] = {
    "device": str,
    "seed": int,
    "recipe": str,
    "mlflow_run_id": (str, type(None)),
    "mlflow_run_name": (str, type(None)),
    "tasks": dict,
}
_NAMES = {
    "device": "text",
    "seed": "an integer",
    "recipe": "text",
    "mlflow_run_id": "text or nothing",
    "mlflow_run_name": "text or nothing",
    "tasks": "parameters by pipeline",
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
    known = [*SECTIONS, *VALUES]
    for name, value in parameters.items():
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
            raise ConfigurationError(f"unknown parameter {name} ({hint})")
        if name in VALUES and (not isinstance(value, VALUES[name]) or isinstance(value, bool)):
            raise ConfigurationError(f"{name} = {value!r}: expected {_NAMES[name]}")
    for name, section in SECTIONS.items():
        read_config(section, parameters.get(name), name)
    check_seed("seed", parameters["seed"])
    check_choice("recipe", parameters["recipe"], RECIPES)
    resolve_device(parameters["device"])
    _check_overlays(parameters)
    _check_task(parameters)
    _check_objective(parameters)
    read_config(LadderConfig, parameters["ladder"], "ladder").list_rungs(parameters["cvae"])
    if project is not None:
        _check_sources(parameters, project)


def _check_overlays(parameters: Mapping[str, Any]) -> None:
    """Refuse wrong parameters of pipelines of tasks, also of those that are not run."""
    for name, overlay in parameters.get("tasks", {}).items():
        check_choice("tasks", name, TASK_PIPELINES)
        if not isinstance(overlay, Mapping):
            raise ConfigurationError(f"tasks.{name} = {overlay!r}: expected sections of parameters")
        overlaid = override_sections(parameters, overlay)
        for section in overlay:
            if section not in SECTIONS:
                known = ", ".join(SECTIONS)
                raise ConfigurationError(
                    f"unknown parameter tasks.{name}.{section} (known: {known})"
                )
            read_config(SECTIONS[section], overlaid[section], f"tasks.{name}.{section}")


def _check_task(parameters: Mapping[str, Any]) -> None:
    """Refuse a task that the images are not made for."""
    task = read_config(TaskConfig, parameters.get("task"), "task").make()
    data = read_config(DataConfig, parameters["data"], "data")
    try:
        task.condition_channels(DataContract(data.channels, data.image_size, 127.5, 127.5))
    except ConfigurationError as error:
        hint = "; --env=photos has colour images" if task.name == Colourisation.name else ""
        raise ConfigurationError(f"task.name = {task.name!r}: {error}{hint}") from None
    for name, sources in SIDE_INFORMATION_SOURCES.items():
        if name in task.needs and data.source not in sources:
            raise ConfigurationError(
                f"task.name = {task.name!r} needs {name}, and data.source = {data.source!r} has none; "
                f"expected one of {', '.join(sources)}"
            )


def _check_objective(parameters: Mapping[str, Any]) -> None:
    """Refuse an objective that the task or the weights do not allow."""
    objective = read_config(ObjectiveConfig, parameters.get("objective"), "objective")
    check_objective(objective, read_config(TaskConfig, parameters.get("task"), "task").make())
    vae = read_config(WeightsConfig, parameters["weights"], "weights").vae
    if objective.name == "joint" and vae != "random":
        raise ConfigurationError(
            f"objective.name = 'joint' trains a VAE from random weights, but weights.vae = {vae!r}: "
            "expected weights.vae = random; to train a pretrained VAE on, objective.trainable = all"
        )


def _check_sources(parameters: Mapping[str, Any], project: Path) -> None:
    """Refuse images and weights that are not there, before anything is made."""
    check_obtainable(read_config(DataConfig, parameters["data"], "data"), project)
    weights = read_config(WeightsConfig, parameters["weights"], "weights")
    published = [name for name, card in read_cards().items() if card.folder is None]
    for key, name in (("vae", weights.vae), ("posterior", weights.posterior)):
        if name is None or (key == "vae" and name in ("random", *published)):
            continue
        if is_hub_address(name):  # fetched by the nodes that need it
            check_hub_address(name, "models")
            continue
        # Official checkpoints are files; everything else is a folder or a name of the package.
        if not (project / name).exists():
            if name.endswith(".th"):
                raise ConfigurationError(f"weights.{key} = {name!r}: no such file")
            (find_model if key == "vae" else resolve_posterior)(name)
    _check_start(parameters, project)
    if weights.vae == "random":
        model = read_config(ModelConfig, parameters["model"], "model")
        shape = model.vae_architecture
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
