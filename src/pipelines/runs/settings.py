"""Where the runs of a session go: `mlflow.yml`, and over it what MLflow's environment variables say.

kedro-mlflow does as `mlflow.yml` says. It sets the same variables for processes that it starts; in the
next session of this process they would pass for the user's.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import urlsplit

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from mlflow.store.db.db_types import DATABASE_ENGINES

from condvae.ground.configuration import ConfigurationError
from pipelines.runs.database import (
    ARTIFACTS,
    SQLITE,
    path_of_database,
    prepare_database,
    variable,
)

__all__ = ["keep_variables", "settle_tracking"]

URI, NAME, ID, RUN = (
    f"MLFLOW_{name}" for name in ("TRACKING_URI", "EXPERIMENT_NAME", "EXPERIMENT_ID", "RUN_ID")
)
RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"

log = logging.getLogger(__name__)

_given: dict[str, str | None] = {}


def settle_tracking(
    settings: Mapping[str, Any], credentials: Mapping[str, Any], project: Path
) -> dict[str, Any]:
    """Say where runs go, and see whether they can: what kedro-mlflow then does must not fail.

    Inside a run that the caller has opened nothing is settled: that says it all.

    Args:
        settings: `mlflow.yml`.
        credentials: `credentials.yml`.
        project: Folder that relative addresses in `mlflow.yml` start at.

    Returns:
        The settings: with address and experiment as they are meant, and the artifacts beside a
        database. A server has a place of its own for them.

    Raises:
        ConfigurationError: The address cannot be used, or there is no such run or experiment.
    """
    _given.update({name: os.environ.get(name) or None for name in (URI, NAME, ID, RUN)})
    server, tracking = dict(settings.get("server") or {}), dict(settings.get("tracking") or {})
    run, experiment = dict(tracking.get("run") or {}), dict(tracking.get("experiment") or {})
    if mlflow.active_run() is not None:
        prepare_database(None)
        return dict(settings)
    configured = server.get("mlflow_tracking_uri") or "mlruns"
    uri = _absolute(_given[URI] or configured, Path.cwd() if _given[URI] else project)
    prepare_database(uri)
    for name, value in (credentials.get(server.get("credentials") or "") or {}).items():
        os.environ[name] = str(value)
    with _one_line(f"MLflow's address {uri}"):
        client = MlflowClient(uri, server.get("mlflow_registry_uri"))
        # Before experiments: MLflow's first request would be tried again for minutes.
        with variable(RETRIES, os.environ.get(RETRIES, "1")):
            client.search_experiments(max_results=1)
    given_experiment = _find_experiment(client)
    run["id"] = run.get("id") or _given[RUN]
    if run["id"]:
        continued = _find_run(client, str(run["id"]))
        run["name"] = run.get("name") or continued.info.run_name
        of_run = client.get_experiment(continued.info.experiment_id)
        if given_experiment not in (None, of_run.name):
            raise ConfigurationError(
                f"run {run['id']} is of experiment {of_run.name!r}, and not of {given_experiment!r}, "
                f"which {NAME if _given[NAME] else ID} names"
            )
        given_experiment = of_run.name
    experiment["name"] = given_experiment or experiment.get("name")
    place = dict(experiment.get("create_experiment_kwargs") or {})
    place["artifact_location"] = place.get("artifact_location") or _beside(uri, project)
    found = _make_experiment(client, experiment["name"], place)
    if any(_given.values()):
        obeyed = ", ".join(f"{name}={value}" for name, value in _given.items() if value)
        log.info(
            "MLflow runs go to %s, experiment %s, artifacts to %s (%s)",
            *(uri, found.name, found.artifact_location, obeyed),
        )
    server["mlflow_tracking_uri"] = uri
    experiment["create_experiment_kwargs"] = place
    tracking.update(run=run, experiment=experiment)
    return {**settings, "server": server, "tracking": tracking}


def keep_variables() -> None:
    """Put MLflow's environment variables back after kedro-mlflow has set them."""
    for name, value in _given.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _absolute(uri: str, start: Path) -> str:
    path = path_of_database(uri)
    if path is not None:
        _, mark, options = uri.partition("?")
        return f"{SQLITE}{(start / path).as_posix()}{mark}{options}"
    named = uri in ("databricks", "databricks-uc")
    if named or (urlsplit(uri).scheme and not PurePath(uri).is_absolute()):
        return uri
    return (start / uri).as_uri()


def _beside(uri: str, project: Path) -> str | None:
    """Where artifacts go with an address whose keeper has no place for them; None for others."""
    path = path_of_database(uri)
    if path is not None:
        return (path.resolve().parent / ARTIFACTS).as_uri()
    if urlsplit(uri).scheme.partition("+")[0] in DATABASE_ENGINES:
        return (project / "mlruns" / ARTIFACTS).as_uri()
    return None


def _find_experiment(client: MlflowClient) -> str | None:
    """Name of the experiment that the environment asks for; a name may be of a new one."""
    name, number = _given[NAME], _given[ID]
    if number is None:
        return name
    with _one_line(f"{ID} = {number}"):
        found: str = client.get_experiment(number).name
    if name not in (None, found):
        raise ConfigurationError(
            f"{ID} = {number} is experiment {found!r}, and {NAME} = {name}: expected one of the two"
        )
    return found


def _find_run(client: MlflowClient, number: str) -> Any:
    asked = f"{RUN} = {number}" if number == _given[RUN] else f"mlflow_run_id = {number}"
    with _one_line(asked):
        found = client.get_run(number)
    if found.info.lifecycle_stage != "active":
        raise ConfigurationError(f"{asked}: that run was deleted; expected one that is there")
    return found


def _make_experiment(client: MlflowClient, name: str, place: Mapping[str, Any]) -> Experiment:
    """Find or make it; another command may be making it too."""
    with _one_line(f"MLflow's experiment {name}"):
        found = client.get_experiment_by_name(name)
        if found is None:
            try:
                client.create_experiment(name, place["artifact_location"], place.get("tags"))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            found = client.get_experiment_by_name(name)
        return found


@contextmanager
def _one_line(what: str) -> Iterator[None]:
    """What MLflow raises, drivers of databases and the like included, ends the command in a line."""
    try:
        yield
    except Exception as error:
        raise ConfigurationError(f"{what}: {' '.join(str(error).split())}") from error
