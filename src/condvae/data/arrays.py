"""Arrays in npz, npy and other files, read row by row so that large files need no memory."""

from __future__ import annotations

import contextlib
import gzip
import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from condvae.ground.configuration import ConfigurationError

__all__ = [
    "ArrayStream",
    "check_pictures",
    "name_errors",
    "read_array",
    "stream_array",
    "stream_npy",
]

# Pillow refuses larger pictures too: a header of a few bytes could ask for any amount of memory.
LARGEST_PICTURE_PIXELS = 2**27


class ArrayStream:
    """One array, open for reading from its first row to its last.

    Args:
        file: Its bytes in C order, from the first row on.
        shape: Of the whole array.
        dtype: Of its elements.
        where: File and array, for messages.
        can_seek: Whether rows can be passed over without reading them.

    Attributes:
        shape: Of the whole array.
        dtype: Of its elements.
    """

    def __init__(
        self,
        file: IO[bytes],
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        where: str,
        *,
        can_seek: bool = False,
    ) -> None:
        self.shape, self.dtype = shape, dtype
        self._file, self._where, self._can_seek = file, where, can_seek

    def rows(self, chosen: Sequence[int]) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """Yield (index, row) for ascending indices; rows in between are passed over."""
        row_bytes = self.dtype.itemsize * math.prod(self.shape[1:])
        position = 0
        for i in chosen:
            if self._can_seek:
                self._file.seek((i - position) * row_bytes, 1)
                position = i
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
    with name_errors(path, "npz"), zipfile.ZipFile(path) as archive:
        names = [member.removesuffix(".npy") for member in archive.namelist()]
        if name not in names:
            raise ConfigurationError(
                f"{path}: no array {name!r}; found {', '.join(sorted(names)) or 'none'}"
            )
        with archive.open(f"{name}.npy") as file:
            yield _open_stream(file, f"{path}: array {name!r}")


@contextlib.contextmanager
def stream_npy(path: Path) -> Iterator[ArrayStream]:
    """Open the array of an npy file without loading it.

    Args:
        path: An npy file.

    Yields:
        The stream, valid inside the block.

    Raises:
        ConfigurationError: Not an npy file, or a broken one.
    """
    with name_errors(path, "npy"), path.open("rb") as file:
        stream = _open_stream(file, str(path), can_seek=True)
        missing = file.tell() + stream.dtype.itemsize * math.prod(stream.shape)
        missing -= path.stat().st_size
        if missing > 0:
            raise ConfigurationError(
                f"{path}: {missing} bytes too short for shape {stream.shape}; the file is cut off"
            )
        yield stream


def check_pictures(stream: ArrayStream, where: str) -> None:
    """Refuse an array that does not hold pictures.

    Args:
        stream: The array.
        where: File and array, for the message.

    Raises:
        ConfigurationError: Not uint8, not (N,H,W), (N,H,W,1) or (N,H,W,3), empty, or pictures of
            more than 2^27 pixels.
    """
    shape = stream.shape
    fits = len(shape) == 3 or (len(shape) == 4 and shape[-1] in (1, 3))
    if stream.dtype != np.uint8 or not fits or 0 in shape:
        raise ConfigurationError(
            f"{where} has type {stream.dtype} and shape {shape}; expected "
            "uint8 and (N, H, W), (N, H, W, 1) or (N, H, W, 3) with N >= 1"
        )
    if shape[1] * shape[2] > LARGEST_PICTURE_PIXELS:
        raise ConfigurationError(
            f"{where} has shape {shape}; expected pictures of at most {LARGEST_PICTURE_PIXELS} pixels"
        )


def read_array(path: Path, name: str) -> npt.NDArray[Any] | None:
    """Load a whole array of an npz file, `None` when it has none of that name.

    Raises:
        ConfigurationError: A broken file, or an array of Python objects (never unpickled).
    """
    with name_errors(path, "npz"), np.load(path, allow_pickle=False) as archive:
        return np.asarray(archive[name]) if name in archive.files else None


@contextlib.contextmanager
def name_errors(path: Path, kind: str) -> Iterator[None]:
    """Name the file in the errors of numpy, zipfile, gzip and zlib.

    Args:
        path: The file that is read inside the block.
        kind: What it should be (``npz``), for the message.

    Raises:
        ConfigurationError: In place of theirs.
    """
    try:
        yield
    except ConfigurationError:
        raise
    except (zipfile.BadZipFile, gzip.BadGzipFile, ValueError, EOFError, zlib.error) as error:
        raise ConfigurationError(f"{path}: not a readable {kind} file ({error})") from error


def _open_stream(file: IO[bytes], where: str, *, can_seek: bool = False) -> ArrayStream:
    """Read the npy header; leaves the file at the first row."""
    version = np.lib.format.read_magic(file)
    read_header = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, fortran_order, dtype = read_header(file)
    if fortran_order and len(shape) > 1:
        raise ConfigurationError(
            f"{where} is stored column by column (Fortran order); expected C order: "
            "save numpy.ascontiguousarray(...) of it"
        )
    if dtype.hasobject:
        raise ConfigurationError(f"{where} holds Python objects, which are never unpickled")
    return ArrayStream(file, shape, dtype, where, can_seek=can_seek)
