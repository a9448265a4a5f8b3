"""Checkpoints: whole or absent, two kept, bound to the run that wrote them."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import torch

from condvae.configuration import ConfigurationError
from condvae.files import open_atomic, write_json

__all__ = ["CheckpointFolder"]

FORMAT = 1
KEEP = 2

log = logging.getLogger(__name__)


class CheckpointFolder:
    """The folder of one training run.

    Args:
        folder: Made when missing.
        fingerprint: Hash of everything that decides the outcome (settings, data, frozen weights). A
            folder that another fingerprint has used is refused.

    Raises:
        ConfigurationError: The folder belongs to another run.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder = folder
        self.fingerprint = fingerprint
        marker = folder / "run.json"
        if marker.exists():
            found = json.loads(marker.read_text())["fingerprint"]
            if found != fingerprint:
                raise ConfigurationError(
                    f"{folder} belongs to another run (fingerprint {found[:12]}, this run has "
                    f"{fingerprint[:12]}): settings, data or weights differ. Use another folder, or "
                    "remove this one to start afresh"
                )
        else:
            write_json(marker, {"fingerprint": fingerprint, "format": FORMAT})
        # A kill in the middle of a write leaves its temporary file, as large as a checkpoint.
        for path in folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)

    def _files(self) -> list[tuple[int, Path]]:
        found = []
        for path in self.folder.glob("checkpoint-*.pt"):
            if match := re.fullmatch(r"checkpoint-(\d+)\.pt", path.name):
                found.append((int(match[1]), path))
        return sorted(found, reverse=True)

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the state after `step` updates, then remove all but the newest two."""
        payload = {"format": FORMAT, "fingerprint": self.fingerprint, "step": step, **state}
        with open_atomic(self.folder / f"checkpoint-{step:09d}.pt") as file:
            torch.save(payload, file)
        for _, path in self._files()[KEEP:]:
            path.unlink(missing_ok=True)

    def load_latest(self) -> dict[str, Any] | None:
        """The newest readable state, or None; unreadable files are named in the log and passed over.

        Tensors come on the CPU: AdamW keeps its step counts there, and counts on a GPU would make
        every later update wait for it.
        """
        for _, path in self._files():
            try:
                state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
                if state["format"] != FORMAT or state["fingerprint"] != self.fingerprint:
                    raise ValueError("written by another version or run")
            except Exception as error:
                log.warning("checkpoint %s cannot be used (%s); trying an older one", path, error)
                continue
            return state
        return None
