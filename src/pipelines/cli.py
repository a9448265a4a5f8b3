"""``kedro run`` as Kedro has it, but values of ``--params`` are read as they were written."""

from __future__ import annotations

import copy
import traceback
import warnings
from collections.abc import Mapping
from typing import Any

import click
from kedro.framework.cli.project import run as kedro_run

from condvae.ground.configuration import ConfigurationError
from pipelines.parameters.written import read_parameters_text

__all__ = ["cli", "run"]

# What libraries ask of each other is not for a user to mend, and hides the line that is.
for _asked in (r".*Add type hints to the `predict`", r"Option '--pipeline' is deprecated"):
    warnings.filterwarnings("ignore", f"(?s){_asked}")

# An error that comes out of these is about options and configuration, not about a node's work.
_CONFIGURING = ("kedro", "omegaconf", "yaml")


def _read_params(
    context: click.Context, option: click.Parameter, value: str | Mapping[str, Any]
) -> dict[str, Any]:
    """Values of ``--params``; a mapping comes from the file of ``--config``."""
    del context
    if isinstance(value, Mapping):
        return dict(value)
    try:
        return read_parameters_text(value)
    except ConfigurationError as error:
        raise click.BadParameter(str(error), param=option) from None


def _run(**options: Any) -> Any:
    """Kedro's own, but what Kedro refuses itself is said in one line."""
    assert kedro_run.callback is not None
    try:
        return kedro_run.callback(**options)
    except click.ClickException:
        raise
    except Exception as error:
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__")).split(".")[0] not in _CONFIGURING:
            raise
        raise click.ClickException(" ".join(str(error).split())) from None


@click.group(name="condvae")
def cli() -> None:
    """Commands that take the place of Kedro's."""


run = copy.copy(kedro_run)
run.callback = _run
run.params = [copy.copy(option) for option in kedro_run.params]
for _option in run.params:
    if _option.name == "params":
        _option.callback = _read_params
cli.add_command(run)
