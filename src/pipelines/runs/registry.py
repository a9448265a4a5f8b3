"""MLflow's model registry: trained posteriors by name, and which of them is the champion.

A version is complete before an alias points to it, and registering the same weights again finishes
what a killed run has left: a name never has a champion that is not whole.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from condvae.ground.configuration import ConfigurationError
from condvae.ground.files import fingerprint, locked, sha256_of_file
from condvae.models.folder import CARD, read_card
from condvae.models.registry import bundled_folder, read_cards
from condvae.models.store import find_model
from condvae.tasks import TASKS, describe_task, task_named
from pipelines.parameters.registry import RegistryConfig
from pipelines.runs.database import SQLITE
from pipelines.runs.promotion import CHALLENGER, CHAMPION, choose_alias
from pipelines.runs.registered_posterior import (
    Evaluation,
    RegisteredPosterior,
    add_evaluation,
    current_environment,
    log_posterior,
    read_version,
)
from pipelines.runs.shortcomings import list_shortcomings

__all__ = [
    "RegisteredPosterior",
    "current_environment",
    "open_registered",
    "open_version",
    "register",
    "registered_name",
    "store_baseline",
]

log = logging.getLogger(__name__)


def registered_name(
    task: str, data: str, options: Mapping[str, Any] | None = None, *, trial: bool = False
) -> str:
    """Name of the registered model for a task and a data set.

    Args:
        task: Name of the task, ``inpainting``.
        data: Name of the data set, ``digits``.
        options: Of the task. Models whose options differ complete something else, so what differs from
            the defaults is part of the name: ``condvae-super_resolution-digits-factor_2``.
        trial: Whether the model has shortcomings, see `list_shortcomings`: ``condvae-trial-...``.
    """
    parts = ["condvae", *(["trial"] if trial else []), task, data]
    return "-".join(parts + ([said] if (said := _name_options(task, options)) else []))


def _name_options(task: str, options: Mapping[str, Any] | None) -> str:
    """Options that differ from their defaults, as part of a name; those that are too long, hashed."""
    made = describe_task(task_named(task, options)) if options else {}
    kind: Any = TASKS[task]
    defaults = {f.name: f.default for f in fields(kind)} if is_dataclass(kind) else {}
    changed = {
        key: value
        for key, value in made.get("task_options", {}).items()
        if defaults.get(key, MISSING) != value
    }
    text = "-".join(f"{key}_{value}" for key, value in sorted(changed.items())).lower()
    return text if re.fullmatch(r"[\w.-]{0,60}", text) else fingerprint(changed)[:12]


def open_registered(name: str, alias: str = CHAMPION) -> RegisteredPosterior:
    """Find a registered posterior; its weights are not checked.

    Where nothing is registered under the name of a posterior of the package, that one is registered
    first, as the champion and without an evaluation: see `store_baseline`. It also takes the place of a
    champion that is a trial, from before trials had names of their own.

    Args:
        name: See `registered_name`.
        alias: ``champion`` or ``challenger``.

    Raises:
        ConfigurationError: No such model or alias, which says what there is; or its files are gone.
    """
    client = MlflowClient()
    found = _version_of_alias(client, name, alias)
    bundled = _bundled_posteriors().get(name) if alias == CHAMPION else None
    if found is not None:
        present = read_version(found)
        if alias == CHAMPION and (trial := present.shortcomings):
            log.warning("%s version %s is a trial: %s", name, present.version, "; ".join(trial))
        if bundled is None or not present.shortcomings:
            return present
    if bundled is not None and (found is not None or not _versions(client, name)):
        folder = find_model(bundled)
        card = read_card(folder, "posterior")
        return register(folder, task=card["task"], data=card["name"])
    known = sorted(
        f"{model.name}@{given}"
        for model in client.search_registered_models()
        for given in model.aliases
    )
    raise ConfigurationError(
        f"{name}@{alias} is not registered: expected one of {', '.join(known) or '(none yet)'}; "
        "`kedro run --pipeline=inpaint` and the pipelines of tasks register what they train"
    )


def open_version(name: str, version: str) -> RegisteredPosterior:
    """Find a version by its number, whatever points to it; its weights are not checked.

    Args:
        name: See `registered_name`.
        version: Number, as text.

    Raises:
        ConfigurationError: Its files are gone.
    """
    return read_version(MlflowClient().get_model_version(name, version))


def register(
    posterior_folder: str | Path,
    *,
    task: str,
    data: str,
    cases: Path | None = None,
    calibration: Path | None = None,
    manifest: Path | None = None,
    facts: Mapping[str, Any] | None = None,
    run_id: str | None = None,
    temperature: float = 1.0,
    guidance: float = 1.0,
    tags: Mapping[str, str] | None = None,
    rule: RegistryConfig | None = None,
) -> RegisteredPosterior:
    """Register a posterior and give it its alias; the same one again makes no new version.

    The same one has the same weights, temperature and guidance. A model with shortcomings goes to a
    name for trials, where nothing looks for a champion to serve or to judge.

    Args:
        posterior_folder: Written by `save_posterior`; it is copied.
        task: Name of the task.
        data: Name of the data set.
        cases: Parquet of its scores per case; None, with the next three, where it was not evaluated.
        calibration: JSON of the same evaluation.
        manifest: Its cases, JSON lines.
        facts: What the evaluation says of itself, see `RegisteredPosterior`.
        run_id: MLflow run that made it, None for none.
        temperature: Of the evaluation; what the model samples at unless told otherwise.
        guidance: The same.
        tags: More tags of the version, the recipe say.
        rule: When it becomes the champion; None for the defaults.

    Raises:
        ConfigurationError: The folder is no posterior, or the registry is busy.
    """
    card = read_card(posterior_folder, "posterior")
    evaluation = None
    if cases is not None and calibration is not None and manifest is not None:
        evaluation = Evaluation(cases, calibration, manifest, facts or {})
    shortcomings = list_shortcomings(card)
    name = registered_name(task, data, card.get("task_options"), trial=bool(shortcomings))
    client = MlflowClient()
    identity = {
        "posterior_sha256": str(card["sha256"]),
        "temperature": repr(float(temperature)),
        "guidance": repr(float(guidance)),
    }
    with _writing_registry():
        found = next(
            (v for v in _versions(client, name) if identity.items() <= v.tags.items()), None
        )
        if found is None:
            model = log_posterior(
                Path(posterior_folder),
                card,
                evaluation,
                temperature=temperature,
                guidance=guidance,
                run_id=run_id,
            )
            if not _is_registered(client, name):
                _create_registered_model(client, name)
            # Tags come with the version: one that is found by its identity is whole.
            stated = {**(tags or {}), **_list_tags(card, evaluation), **identity}
            if shortcomings:
                stated["trial"] = "; ".join(shortcomings)
                log.warning("registered as %s, a trial: %s", name, stated["trial"])
            found = client.create_model_version(
                name, model.model_uri, run_id, tags=stated, model_id=model.model_id
            )
        elif "alias_given" in found.tags:
            log.info("%s version %s holds these weights already", name, found.version)
            return read_version(found)
        _give_alias(client, found, rule or RegistryConfig())
        return read_version(client.get_model_version(name, found.version))


def store_baseline(
    registered: RegisteredPosterior,
    *,
    cases: Path,
    calibration: Path,
    manifest: Path,
    facts: Mapping[str, Any] | None = None,
) -> RegisteredPosterior:
    """Give a version that was registered without an evaluation its first one.

    Args:
        registered: The version.
        cases: See `register`.
        calibration: See `register`.
        manifest: See `register`.
        facts: See `register`.

    Returns:
        The version with its evaluation; as it is, where another process has given it one meanwhile.
    """
    client, name, number = MlflowClient(), registered.name, registered.version
    with _writing_registry():
        version = client.get_model_version(name, number)
        if "manifest_sha256" not in version.tags:
            add_evaluation(version, Evaluation(cases, calibration, manifest, facts or {}))
            # Last: a version counts as evaluated once its files are there.
            sha256 = sha256_of_file(manifest)
            client.set_model_version_tag(name, number, "manifest_sha256", sha256)
    return read_version(client.get_model_version(name, number))


def _give_alias(client: MlflowClient, version: ModelVersion, rule: RegistryConfig) -> None:
    """Choose the alias of a version; `alias_given` says that nothing was left undone."""
    name, number = version.name, version.version
    champion = _version_of_alias(client, name, CHAMPION)
    # A killed run may have got as far as the alias.
    if champion is None or champion.version != number:
        alias, reason = _choose(version, champion, rule)
        client.set_model_version_tag(name, number, "alias_reason", reason)
        client.update_model_version(name, number, description=reason)
        client.set_registered_model_alias(name, alias, number)
        log.info("%s version %s is the %s: %s", name, number, alias, reason)
    else:
        alias = CHAMPION
    client.set_model_version_tag(name, number, "alias_given", alias)


def _choose(
    version: ModelVersion, champion: ModelVersion | None, rule: RegistryConfig
) -> tuple[str, str]:
    try:
        present = None if champion is None else read_version(champion)
    except ConfigurationError as error:
        # Someone has removed them, say. What has been trained is registered all the same.
        if rule.promote != "always":
            return CHALLENGER, f"not comparable: {error}"
        return CHAMPION, f"registry.promote = always, and {error}"
    return choose_alias(read_version(version), present, rule)


def _list_tags(card: Mapping[str, Any], evaluation: Evaluation | None) -> dict[str, str]:
    data = (card.get("weights_source") or {}).get("data")
    return {
        **{f"environment.{key}": value for key, value in current_environment().items()},
        **({"data_fingerprint": str(data)} if data else {}),
        **({"manifest_sha256": sha256_of_file(evaluation.manifest)} if evaluation else {}),
    }


def _create_registered_model(client: MlflowClient, name: str) -> None:
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        # On a server another command may have come first.
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _is_registered(client: MlflowClient, name: str) -> bool:
    return any(model.name == name for model in client.search_registered_models(f"name = '{name}'"))


def _versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    return list(client.search_model_versions(f"name = '{name}'"))


def _version_of_alias(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    if not _is_registered(client, name):
        return None
    number = client.get_registered_model(name).aliases.get(alias)
    return None if number is None else client.get_model_version(name, str(number))


@cache
def _bundled_posteriors() -> dict[str, str]:
    """Registered name -> name of a posterior of the package."""
    found = {}
    for name, card in read_cards().items():
        if card.kind == "posterior" and card.folder is not None:
            facts = json.loads((bundled_folder(card) / CARD).read_text())
            said = (facts["task"], facts["name"], facts.get("task_options"))
            found[registered_name(*said)] = name
    return found


@contextlib.contextmanager
def _writing_registry() -> Iterator[None]:
    """One process at a time; for other uses of the database MLflow itself waits 20 s."""
    uri = mlflow.get_registry_uri()
    path = Path(uri.removeprefix(SQLITE)).with_name("registry.lock")
    lock = locked(path, "waiting for another process that registers a model")
    with lock if uri.startswith(SQLITE) else contextlib.nullcontext():
        try:
            yield
        except MlflowException as error:
            if "database is locked" not in str(error):
                raise
            raise ConfigurationError(
                f"MLflow's database {uri} is busy: run the same command again; what was registered "
                "so far is kept"
            ) from error
