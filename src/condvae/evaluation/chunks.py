"""Results of an evaluation on the disk, chunk by chunk: interrupted work goes on where it stopped."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from condvae.ground.files import open_atomic

__all__ = ["ChunkFolder"]

log = logging.getLogger(__name__)

Arrays = dict[str, NDArray[np.generic]]


class ChunkFolder:
    """Arrays per chunk of cases in ``<folder>/<start>-<stop>.npz``.

    Args:
        folder: Made when missing; its name must change with everything that decides the results.
            None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.cases_saved = 0

    def load(self, start: int, stop: int) -> Arrays | None:
        """What was saved for the cases start .. stop-1; None when nothing whole is there."""
        if self.folder is None or not (path := self._path(start, stop)).is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays}
        # RuntimeError: a damaged header may ask for a password or an unknown compression.
        except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
            log.warning("%s cannot be used (%s); these cases are scored again", path, error)
            return None

    def save(self, start: int, stop: int, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Write one chunk, whole or not at all, and count its cases in `cases_saved`."""
        self.cases_saved += stop - start
        if self.folder is None:
            return
        with open_atomic(self._path(start, stop)) as file:
            # mypy takes the file's names for allow_pickle.
            np.savez(file, **dict(arrays))  # type: ignore[arg-type]

    def _path(self, start: int, stop: int) -> Path:
        assert self.folder is not None
        return self.folder / f"{start:06d}-{stop:06d}.npz"
