"""A Kedro session whose hooks can ask what it runs, and by which command."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import click
from kedro.framework.project import pipelines
from kedro.framework.session import KedroSession
from kedro.pipeline import Pipeline

from condvae.ground.configuration import ConfigurationError, check_choice
from pipelines.parameters.written import write_parameters_text
from pipelines.runs.labels import note_command

__all__ = ["Session", "requested_pipelines"]

_requested: ContextVar[tuple[str, ...]] = ContextVar("requested_pipelines", default=())

DEFAULT = "__default__"
# Arguments of a run that choose nodes -> option of the command line.
_CHOICES = {
    "tags": "tags",
    "node_names": "nodes",
    "from_nodes": "from-nodes",
    "to_nodes": "to-nodes",
    "from_inputs": "from-inputs",
    "to_outputs": "to-outputs",
    "namespaces": "namespaces",
}


def requested_pipelines() -> tuple[str, ...]:
    """Names of the pipelines that the running session was asked for; () for the default."""
    return _requested.get()


class Session(KedroSession):
    """Says what it runs before the configuration is read: parameters and paths depend on it."""

    def run(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Run pipelines; arguments as for `KedroSession.run`.

        Raises:
            click.ClickException: No such pipeline, node, tag or dataset; or no node is left.
        """
        given = inspect.signature(KedroSession.run).bind(self, *arguments, **options).arguments
        name, names = given.get("pipeline_name"), given.get("pipeline_names")
        requested = (name,) if name else tuple(names or ())
        chosen = {key: list(given[key]) for key in _CHOICES if given.get(key)}
        try:
            _check_choices(requested or (DEFAULT,), chosen)
        except ConfigurationError as error:
            raise click.ClickException(str(error)) from None
        note_command(_write_command(requested, chosen, self.store))
        token = _requested.set(requested)
        try:
            return super().run(*arguments, **options)
        finally:
            _requested.reset(token)


def _check_choices(requested: Sequence[str], chosen: Mapping[str, list[str]]) -> None:
    """Refuse names that nothing has, and a choice that leaves nothing to run."""
    known = sorted(name for name in pipelines if name != DEFAULT)
    whole = Pipeline([])
    for name in requested:
        if name != DEFAULT:
            check_choice("pipeline", name, known)
        whole += pipelines[name]
    nodes = [node.name for node in whole.nodes]
    datasets = sorted(whole.datasets())
    # Kedro takes a dataset by its name without what is behind an @, too.
    names = {"tags": sorted({tag for node in whole.nodes for tag in node.tags})}
    names |= dict.fromkeys(("node_names", "from_nodes", "to_nodes"), nodes)
    names |= dict.fromkeys(("from_inputs", "to_outputs"), datasets)
    for key, values in chosen.items():
        for value in values if key in names else ():
            check_choice(f"--{_CHOICES[key]}", value, names[key] or ["(none has any)"])
    try:
        whole.filter(
            **{f"node_{k}" if k == "namespaces" else k: values for k, values in chosen.items()}
        )
    except ValueError:
        options = " ".join(_write_choices(chosen))
        raise ConfigurationError(
            f"{options or 'pipelines ' + ', '.join(requested)}: no node is left to run"
        ) from None


def _write_choices(chosen: Mapping[str, Iterable[str]]) -> list[str]:
    return [f"--{_CHOICES[key]}={','.join(values)}" for key, values in chosen.items()]


def _write_command(
    requested: Sequence[str], chosen: Mapping[str, list[str]], store: Mapping[str, Any]
) -> str:
    """The command that runs the same, however this run was started."""
    words = ["kedro", "run"]
    if requested:
        words.append(f"--pipeline{'s' if len(requested) > 1 else ''}={','.join(requested)}")
    if store.get("env"):
        words.append(f"--env={store['env']}")
    words += _write_choices(chosen)
    if store.get("runtime_params"):
        words.append(f"--params={write_parameters_text(store['runtime_params'])}")
    return shlex.join(words)
