"""Arrays inside npz files, read row by row so that large files need no memory."""

from __future__ import annotations

import contextlib
import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from condvae.configuration import ConfigurationError

__all__ = ["ArrayStream", "read_array", "stream_array"]


class ArrayStream:
    """One array of an npz file, open for reading from its first row to its last.

    Attributes:
        shape: Of the whole array.
        dtype: Of its elements.
    """

    def __init__(self, file: IO[bytes], where: str) -> None:
        version = np.lib.format.read_magic(file)
        read_header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        self.shape, fortran_order, self.dtype = read_header(file)
        if fortran_order and len(self.shape) > 1:
            raise ConfigurationError(
                f"{where} is stored column by column (Fortran order); expected C order: "
                "save numpy.ascontiguousarray(...) of it"
            )
        self._file = file
        self._where = where

    def rows(self, chosen: Sequence[int]) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """Yield (index, row) for ascending indices; rows in between are passed over."""
        row_bytes = self.dtype.itemsize * math.prod(self.shape[1:])
        position = 0
        for i in chosen:
            while position < i:
                # The stream is compressed: passing over means reading, in bounded pieces.
                self._take(row_bytes)
                position += 1
            yield i, np.frombuffer(self._take(row_bytes), self.dtype).reshape(self.shape[1:])
            position += 1

    def _take(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) != count:
            raise ConfigurationError(f"{self._where} ends early; expected shape {self.shape}")
        return data


@contextlib.contextmanager
def stream_array(path: Path, name: str) -> Iterator[ArrayStream]:
    """Open the array `name` of an npz file without loading it.

    Args:
        path: An npz file, compressed or not.
        name: Of the array.

    Yields:
        The stream, valid inside the block.

    Raises:
        ConfigurationError: Not an npz file, a broken one, or one without that array.
    """
    with _errors_of(path), zipfile.ZipFile(path) as archive:
        names = [member.removesuffix(".npy") for member in archive.namelist()]
        if name not in names:
            raise ConfigurationError(
                f"{path}: no array {name!r}; found {', '.join(sorted(names)) or 'none'}"
            )
        with archive.open(f"{name}.npy") as file:
            yield ArrayStream(file, f"{path}: array {name!r}")


def read_array(path: Path, name: str) -> npt.NDArray[Any] | None:
    """Load a whole array of an npz file, `None` when it has none of that name.

    Raises:
        ConfigurationError: A broken file, or an array of Python objects (never unpickled).
    """
    with _errors_of(path), np.load(path, allow_pickle=False) as archive:
        return np.asarray(archive[name]) if name in archive.files else None


@contextlib.contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """Name the file in the errors of zipfile, zlib and numpy."""
    try:
        yield
    except ConfigurationError:
        raise
    except (zipfile.BadZipFile, ValueError, EOFError, zlib.error) as error:
        raise ConfigurationError(f"{path}: not a readable npz file ({error})") from error
