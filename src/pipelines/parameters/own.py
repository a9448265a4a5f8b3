"""Parameters and folders that a pipeline of a task has to itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from kedro.config import AbstractConfigLoader

from condvae.ground.configuration import ConfigurationError
from condvae.models import find_model
from condvae.models.folder import read_card
from pipelines.parameters.overlay import TASK_PIPELINES, name_of_task, override_sections
from pipelines.parameters.shape_file import read_shape_files

__all__ = ["SHARED_FOLDER", "check_folder", "own_folder", "read_parameters"]

SHARED_FOLDER = "inpaint"
# They take a posterior that exists, and with it the task it was trained for.
OF_STORED_POSTERIORS = ("evaluate", "score", "anomaly", "complete")

_folder: ContextVar[str] = ContextVar("own_folder", default=SHARED_FOLDER)


def own_folder() -> str:
    """Name of the folder where models and reports of the pipeline lie: ``${own_folder:}``."""
    return _folder.get()


def read_parameters(
    loader: AbstractConfigLoader, requested: Sequence[str], project: Path
) -> tuple[dict[str, Any], str]:
    """Read the parameters of a run, and let ``${own_folder:}`` be the folder of its pipeline.

    In rising order of precedence: the parameter files (of `conf/base`, then of the environment);
    what the section `tasks` has for the pipeline; the task on the card of `weights.posterior`, where
    the pipeline takes a stored posterior; the command line.

    Args:
        loader: Of the configuration.
        requested: Names of the pipelines that are run.
        project: Folder that relative paths start at.

    Returns:
        The parameters, not checked, and the name of the folder.

    Raises:
        ConfigurationError: Pipelines of several tasks in one run.
    """
    folder, task = _find_folder(loader["parameters"], requested, project)
    _folder.set(folder)
    parameters = dict(loader["parameters"])
    overlay = _tasks(parameters).get(folder)
    if isinstance(overlay, Mapping):
        parameters = override_sections(parameters, overlay)
    if task is not None:
        parameters["task"] = task
    parameters = override_sections(parameters, loader.runtime_params or {})
    return read_shape_files(parameters, project), folder


def check_folder(folder: str, requested: Sequence[str]) -> None:
    """Refuse a run whose session did not say, before parameters were read, what it runs.

    Args:
        folder: That parameters and catalog were made with.
        requested: Names of the pipelines that are run.

    Raises:
        ConfigurationError: They are not those of the pipeline.
    """
    for name in requested:
        if name in TASK_PIPELINES and name != folder:
            raise ConfigurationError(
                f"pipeline {name} has parameters of its own, which were not read: expected a run by "
                "`kedro run`, or a session made by pipelines.app.session.Session.create"
            )


def _find_folder(
    parameters: Mapping[str, Any], requested: Sequence[str], project: Path
) -> tuple[str, dict[str, Any] | None]:
    """Name of the pipeline's folder, and the task on the card of a stored posterior."""
    own = [name for name in requested if name in TASK_PIPELINES]
    if len({*own, *({SHARED_FOLDER} & set(requested))}) > 1:
        raise ConfigurationError(
            f"pipelines {', '.join(requested)}: expected those of one task; run one after another"
        )
    if own:
        return own[0], None
    task = None
    if set(OF_STORED_POSTERIORS) & set(requested):
        task = _read_task(parameters, project)
    if task is not None:
        for name in TASK_PIPELINES:
            overlay = _tasks(parameters).get(name)
            if isinstance(overlay, Mapping) and name_of_task(overlay) == task["name"]:
                return name, task
    return SHARED_FOLDER, task


def _read_task(parameters: Mapping[str, Any], project: Path) -> dict[str, Any] | None:
    """The task that `weights.posterior` was trained for; None where no card is found that says it."""
    weights = parameters.get("weights")
    name = weights.get("posterior") if isinstance(weights, Mapping) else None
    if not isinstance(name, str) or name.endswith(".th"):
        return None
    folder = project / name
    if not folder.exists():
        try:
            folder = find_model(name)
        except ConfigurationError:
            return None
    card = read_card(folder, "posterior")
    if "task" not in card:
        return None
    return {"name": card["task"], "options": dict(card.get("task_options", {}))}


def _tasks(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    tasks = parameters.get("tasks")
    return tasks if isinstance(tasks, Mapping) else {}
