"""What an MLflow run is called and tagged with when it begins."""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from pipelines import __version__

__all__ = [
    "TRIGGER",
    "command",
    "describe_machine",
    "git_state",
    "list_packages",
    "name_run",
    "note_command",
    "trigger",
]

# Environment variable that says what has started a run.
TRIGGER = "CONDVAE_TRIGGER"
LONGEST_NAME = 80
# A name says by other words, or need not say, what these hold.
_UNNAMED = ("recipe", "mlflow_run_id", "device")


_command: list[str] = []


def note_command(text: str) -> None:
    """Remember the command that runs what the session runs."""
    _command[:] = [text]


def command() -> str:
    """The command of the run that is under way; of this process where no session has said it."""
    return _command[0] if _command else shlex.join(["kedro", *sys.argv[1:]])


def git_state() -> dict[str, str]:
    """Commit and whether files differ from it; empty outside a repository."""
    folder = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "--no-optional-locks", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    try:
        return {
            "git_commit": git("rev-parse", "HEAD"),
            "git_dirty": str(bool(git("status", "--porcelain", "--untracked-files=no"))).lower(),
        }
    except (OSError, subprocess.CalledProcessError):
        return {}


def trigger() -> str:
    """What has started the run: ``$CONDVAE_TRIGGER`` (``schedule``, say), else ``manual``."""
    return os.environ.get(TRIGGER, "").strip() or "manual"


def describe_machine() -> dict[str, str]:
    """Tags of where a run is made: process, machine, versions of what decides numbers."""
    return {
        "pid": str(os.getpid()),
        "host": platform.node(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "condvae": __version__,
    }


def list_packages() -> str:
    """Every installed distribution and its version, one a line, as pip takes them."""
    found = {(d.name, d.version) for d in metadata.distributions() if d.name}
    return "".join(f"{name}=={version}\n" for name, version in sorted(found))


def name_run(pipelines: Iterable[str], recipe: str | None, given: Mapping[str, Any]) -> str:
    """Name a run so that runs side by side are told apart.

    Args:
        pipelines: What is run.
        recipe: Of the training and the masks; None where it decides nothing.
        given: Parameters of the command line, nested.

    Returns:
        ``inpaint-tuned steps=400 seed=1``: pipelines, recipe and what was given, cut to 80
        characters. Parameters keep the last part of their names.
    """
    names = ["inpaint" if name == "__default__" else name for name in pipelines]
    kind = "-".join(["+".join(names), *([recipe] if recipe else [])])
    # Letters that MLflow, shells and `compare.runs` all take as they are.
    texts = [re.sub(r"[^\w.+=-]+", "_", f"{key}={value}") for key, value in _list_given(given)]
    return " ".join([kind, *texts])[:LONGEST_NAME].rstrip()


def _list_given(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _list_given(value)
        elif name not in _UNNAMED:
            yield name, value
