"""The lock file of a cache folder: which bytes a name stands for, once that has been decided."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from condvae.ground.configuration import ConfigurationError, read_config
from condvae.ground.files import locked, write_json

__all__ = ["LOCK_FILE", "Pin", "add_pin", "held", "read_pins"]

FORMAT = 1
LOCK_FILE = "pretrained.lock.json"


@dataclass(frozen=True)
class Pin:
    """What was accepted under a name.

    Attributes:
        sha256: Of the file.
        size: Bytes.
        address: Where it was fetched, or ``by hand``.
        date: UTC, ISO 8601.
    """

    sha256: str
    size: int
    address: str
    date: str


def read_pins(folder: Path, lock_file: str = LOCK_FILE) -> dict[str, Pin]:
    """All pins of a cache folder by name; none when it has no lock file.

    Raises:
        ConfigurationError: The lock file cannot be read. It is never taken for an empty one: that
            would accept changed files.
    """
    path = folder / lock_file
    if not path.exists():
        return {}
    try:
        content: Any = json.loads(path.read_text())
        found = content["format"]
        entries = dict(content["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{path} cannot be read ({type(error).__name__}: {error}): restore it, or remove it to "
            "accept all files anew"
        ) from error
    if found != FORMAT:
        raise ConfigurationError(f"{path}: format {found!r}, this version reads {FORMAT}")
    return {name: read_config(Pin, entry, f"{path}: {name}") for name, entry in entries.items()}


def add_pin(folder: Path, name: str, pin: Pin, lock_file: str = LOCK_FILE) -> None:
    """Write one more pin, atomically. The caller holds the folder."""
    pins = {**read_pins(folder, lock_file), name: pin}
    entries = {key: dataclasses.asdict(pins[key]) for key in sorted(pins)}
    write_json(folder / lock_file, {"format": FORMAT, "files": entries})


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other processes from changing a cache folder; waits for the one that is at it."""
    with locked(folder / ".lock", f"waiting for another process that fetches into {folder}"):
        yield
