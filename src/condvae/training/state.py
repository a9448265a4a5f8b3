"""Checkpoints: whole or absent, two kept, bound to the run that wrote them."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from condvae.ground.configuration import ConfigurationError
from condvae.ground.files import locked, open_atomic, write_json

__all__ = ["MARKER", "CheckpointFolder"]

MARKER = "run.json"
FORMAT = 1
KEEP = 2

log = logging.getLogger(__name__)


class CheckpointFolder:
    """The folder of one training run.

    Args:
        folder: Made when missing.
        fingerprint: Hash of everything that decides the outcome (settings, data, frozen weights). A
            folder that another fingerprint has used is refused.
        facts: Written beside the fingerprint when the folder is made.

    Raises:
        ConfigurationError: The folder belongs to another run.
    """

    def __init__(
        self, folder: Path, fingerprint: str, facts: Mapping[str, Any] | None = None
    ) -> None:
        self.folder = folder
        self.fingerprint = fingerprint
        marker = folder / MARKER
        if marker.exists():
            found = json.loads(marker.read_text())["fingerprint"]
            if found != fingerprint:
                raise ConfigurationError(
                    f"{folder} belongs to another run (fingerprint {found[:12]}, this run has "
                    f"{fingerprint[:12]}): settings, data or weights differ. Use another folder, or "
                    "remove this one to start afresh"
                )
        else:
            write_json(marker, {**(facts or {}), "fingerprint": fingerprint, "format": FORMAT})

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out of the folder, waiting for the one that trains in it."""
        waiting = f"waiting for another process, which does the same training in {self.folder}"
        with locked(self.folder / "lock", waiting):
            # A kill in the middle of a write leaves its temporary file, as large as a checkpoint.
            for path in self.folder.glob(".*.tmp"):
                path.unlink(missing_ok=True)
            self._remove_older()
            yield

    def _remove_older(self) -> None:
        for _, path in self._files()[KEEP:]:
            path.unlink(missing_ok=True)

    def _files(self) -> list[tuple[int, Path]]:
        found = []
        for path in self.folder.glob("checkpoint-*.pt"):
            if match := re.fullmatch(r"checkpoint-(\d+)\.pt", path.name):
                found.append((int(match[1]), path))
        return sorted(found, reverse=True)

    def path_of(self, step: int) -> Path:
        """Where the checkpoint after `step` updates lies."""
        return self.folder / f"checkpoint-{step:09d}.pt"

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the state after `step` updates, then remove later ones and all but the newest two."""
        payload = {"format": FORMAT, "fingerprint": self.fingerprint, "step": step, **state}
        with open_atomic(self.path_of(step)) as file:
            torch.save(payload, file)
        # Given up by a run that went back, or damaged.
        for later, path in self._files():
            if later > step:
                path.unlink(missing_ok=True)
        self._remove_older()

    def load_latest(self, before: int | None = None) -> dict[str, Any] | None:
        """The newest readable state, or None; unreadable files are named in the log and passed over.

        Tensors come on the CPU: AdamW keeps its step counts there, and counts on a GPU would make
        every later update wait for it.

        Args:
            before: Look at states after fewer updates only.
        """
        for step, path in self._files():
            if before is not None and step >= before:
                continue
            try:
                # torch.load does not look at the checksums.
                with zipfile.ZipFile(path) as archive:
                    if (damaged := archive.testzip()) is not None:
                        raise ValueError(f"{damaged} is damaged")
                state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
                if state["format"] != FORMAT or state["fingerprint"] != self.fingerprint:
                    raise ValueError("written by another version or run")
            except Exception as error:
                log.warning("checkpoint %s cannot be used (%s); trying an older one", path, error)
                continue
            return state
        return None
