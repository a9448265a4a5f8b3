"""Files: atomic writes, content hashes, and which picture formats are read."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "PICTURE_FORMATS",
    "fingerprint",
    "locked",
    "open_atomic",
    "sha256_of_file",
    "write_json",
]

log = logging.getLogger(__name__)

# What image files are read as. Pillow goes by content, not by name, and hands some formats to other
# programs (EPS to Ghostscript).
PICTURE_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_swept: set[Path] = set()  # folders in which leftovers were looked for


@contextlib.contextmanager
def open_atomic(path: str | os.PathLike[str], *, keep: bool = False) -> Iterator[IO[bytes]]:
    """Open `path` for writing so that a crash leaves the old file or the new one, never a part.

    The bytes go to a temporary file in the same folder, are flushed to the disk and renamed over
    `path` when the block ends. If the block raises (a full disk, say) the temporary file is removed
    and the old file stays. Temporary files that killed processes left in the folder are removed.

    Args:
        path: File to write; its folder is made when missing.
        keep: Leave a file alone that another process has put there meanwhile.

    Yields:
        A binary file object.

    Raises:
        OSError: No room, with `path` as its file name, also where the block's own words for it are
            others; or what else the file system refuses.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path.parent.absolute())
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with _claimed(name):
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)
            _put(name, path, keep=keep)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        # torch.save says where its archive broke off, but not that there was no room.
        cause = error.__context__ if isinstance(error, RuntimeError) else error
        if isinstance(cause, OSError) and cause.errno in _NO_ROOM:
            cause.filename = cause.filename or str(path)
            raise cause from None
        raise
    # The rename itself must survive a power cut; folders cannot be opened on every platform.
    with contextlib.suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextlib.contextmanager
def locked(path: str | os.PathLike[str], waiting: str | None = None) -> Iterator[None]:
    """Keep other processes out while the block runs; the lock ends with the block or the process.

    Where the platform or the file system has no such locks nothing is kept out.

    Args:
        path: Of a folder that is there, or of a lock file, which is made.
        waiting: Logged when another process has the lock, which is then waited for; None = do not
            wait.

    Raises:
        BlockingIOError: Another process has it, and `waiting` is None.
    """
    flags = os.O_RDONLY if os.path.isdir(path) else os.O_WRONLY | os.O_CREAT
    descriptor = os.open(path, flags) if fcntl else None
    try:
        if descriptor is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if waiting is None:
                    raise
                log.info("%s", waiting)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except OSError:  # not on every file system
                pass
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with open_atomic(path) as file:
        file.write((json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def sha256_of_file(path: str | os.PathLike[str]) -> str:
    """Return the hexadecimal sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(value: Any) -> str:
    """Return the hexadecimal sha256 of a JSON value, independent of the order of its keys.

    Args:
        value: Anything `json.dumps` takes.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _put(name: str, path: Path, *, keep: bool) -> None:
    """Rename a file; what is at `path` is replaced, or kept."""
    if keep:
        # Some file systems have no links; there it is a look and, right behind it, a move.
        try:
            os.link(name, path)
        except OSError:
            keep = path.exists()
        if keep:
            os.unlink(name)
            return
    os.replace(name, path)


@contextlib.contextmanager
def _claimed(name: str) -> Iterator[None]:
    """Hold a lock on a temporary file, so that no other writer takes it for a leftover."""
    with open(name, "rb") if fcntl else contextlib.nullcontext() as file:
        if file is not None:
            _lock(file)
        yield


def _remove_leftovers(folder: Path) -> None:
    """Remove temporary files of writers that were killed; once is enough for this process."""
    if folder in _swept:
        return
    _swept.add(folder)
    for leftover in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError), open(leftover, "rb") as file:
            # An empty one may be so new that its writer has yet to lock it.
            if os.fstat(file.fileno()).st_size and _lock(file):
                leftover.unlink()


def _lock(file: IO[bytes]) -> bool:
    """Lock a file until it is closed; False if another holds it or the platform has no such locks."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
