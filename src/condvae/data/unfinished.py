"""A store that is being written: arrays that grow and a journal of what they hold so far.

Rows are appended to files in a folder of their own. Every so often the files are flushed to the disk,
and then one line is added to the journal: how far the source was read, and the records of the rows
since the line before. A run that was killed goes on after the last whole line; what was written after
it is cut off. A journal of another source or other parameters is thrown away with its arrays.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from condvae.data.records import ImageRecord

__all__ = ["Duplicate", "UnfinishedStore"]

JOURNAL = "journal.jsonl"
COMMIT_BYTES = 2**26
COMMIT_ROWS = 4096


class Duplicate(NamedTuple):
    """A picture that is identical to an earlier one.

    Attributes:
        origin: Of the picture.
        first: Origin of the earlier one.
        across: Whether the two are in different splits.
    """

    origin: str
    first: str
    across: bool


class UnfinishedStore:
    """Arrays and records of a store that is not finished; a context that closes its files.

    Args:
        folder: Where they lie; made when missing.
        key: Hash of source and parameters; what another key left behind is thrown away.
        row_shapes: File name of each array and the shape of one row of it.
        rows: How many rows there will be at most.

    Attributes:
        records: One per row.
        duplicates: Found so far.
        unreadable: Origins of the pictures that were skipped so far.
        read: Pictures of the source that are done with.
    """

    def __init__(
        self, folder: Path, key: str, row_shapes: Mapping[str, tuple[int, ...]], rows: int
    ) -> None:
        self._folder, self._shapes, self._rows = folder, dict(row_shapes), rows
        self.records: list[ImageRecord] = []
        self.duplicates: list[Duplicate] = []
        self.unreadable: list[str] = []
        self.read = 0
        self._committed = (0, 0, 0)
        self._files: dict[str, IO[bytes]] = {}
        self._journal: IO[bytes]
        if not self._restore(key):
            self._start(key)

    def __enter__(self) -> UnfinishedStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for file in (*self._files.values(), self._journal):
            file.close()
        # An error would come again; only what was interrupted is worth going on with.
        if kind is not None and issubclass(kind, Exception):
            self.remove()

    def append(self, record: ImageRecord, rows: Mapping[str, npt.NDArray[np.uint8]]) -> None:
        """Add one row to every array.

        Args:
            record: Of the image.
            rows: uint8, by file name.
        """
        for name, file in self._files.items():
            file.write(rows[name].tobytes())
        self.records.append(record)

    def advance(self, read: int, unreadable: list[str]) -> None:
        """Say how far the source was read; writes a line of the journal when much was added.

        Args:
            read: Pictures that are done with.
            unreadable: Origins of all that were skipped so far.
        """
        self.read, self.unreadable = read, list(unreadable)
        rows = len(self.records) - self._committed[0]
        if (
            rows >= COMMIT_ROWS
            or rows * math.prod(next(iter(self._shapes.values()))) >= COMMIT_BYTES
        ):
            self._commit()

    def finish(self, folder: Path) -> None:
        """Move the arrays to `folder`, whole; `remove` takes the rest away.

        Args:
            folder: In the same file system.
        """
        for name, file in self._files.items():
            file.seek(0)
            file.write(_header((len(self.records), *self._shapes[name])))
            _flush(file)
            file.close()
            os.replace(self._folder / name, folder / name)

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self._folder)

    def _start(self, key: str) -> None:
        if self._folder.exists():
            shutil.rmtree(self._folder)
        self._folder.mkdir(parents=True)
        self._journal = (self._folder / JOURNAL).open("xb")
        for name, shape in self._shapes.items():
            self._files[name] = (self._folder / name).open("xb")
            # The number of rows is known only afterwards; numpy pads headers so that it fits in place.
            self._files[name].write(_header((self._rows, *shape)))
        self._write_line({"key": key})

    def _restore(self, key: str) -> bool:
        """Read the journal and cut everything back to its last whole line."""
        path = self._folder / JOURNAL
        if not path.is_file():
            return False
        with path.open("rb") as file:
            end = 0
            for number, line in enumerate(file):
                try:
                    entry = json.loads(line) if line.endswith(b"\n") else None
                except ValueError:
                    entry = None
                if entry is None or (number == 0 and entry != {"key": key}):
                    break
                end += len(line)
                if number:
                    self._take(entry)
        if end == 0 or not self._cut_arrays():
            self.records, self.duplicates, self.unreadable, self.read = [], [], [], 0
            self._committed = (0, 0, 0)
            return False
        self._journal = path.open("r+b")
        self._journal.truncate(end)
        self._journal.seek(end)
        return True

    def _take(self, entry: dict[str, Any]) -> None:
        for values in entry["records"]:
            record = dict(zip(_FIELDS, values, strict=True))
            for name in ("mean", "std"):
                record[name] = tuple(record[name])
            self.records.append(ImageRecord(**record))
        self.duplicates += [Duplicate(*values) for values in entry["duplicates"]]
        self.unreadable += entry["unreadable"]
        self.read = entry["read"]
        self._committed = (len(self.records), len(self.duplicates), len(self.unreadable))

    def _cut_arrays(self) -> bool:
        """Cut the arrays back to the rows of the journal; False when they have fewer."""
        sizes = {
            name: len(_header((self._rows, *shape))) + len(self.records) * math.prod(shape)
            for name, shape in self._shapes.items()
        }
        for name, size in sizes.items():
            path = self._folder / name
            if not path.is_file() or path.stat().st_size < size:
                return False
        for name, size in sizes.items():
            self._files[name] = (self._folder / name).open("r+b")
            self._files[name].truncate(size)
            self._files[name].seek(size)
        return True

    def _commit(self) -> None:
        for file in self._files.values():
            _flush(file)
        records, duplicates, unreadable = self._committed
        self._write_line(
            {
                "read": self.read,
                "records": [[getattr(r, n) for n in _FIELDS] for r in self.records[records:]],
                "duplicates": self.duplicates[duplicates:],
                "unreadable": self.unreadable[unreadable:],
            }
        )
        self._committed = (len(self.records), len(self.duplicates), len(self.unreadable))

    def _write_line(self, entry: dict[str, Any]) -> None:
        line = json.dumps(entry, separators=(",", ":"), allow_nan=False)
        self._journal.write(line.encode() + b"\n")
        _flush(self._journal)


_FIELDS = tuple(field.name for field in dataclasses.fields(ImageRecord))


def _header(shape: tuple[int, ...]) -> bytes:
    """The npy header of a uint8 array; its length does not depend on the number of rows."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    return file.getvalue()


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
