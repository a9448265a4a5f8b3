"""Fetch one file over HTTP so that what lies at its place is always whole.

The bytes go to ``NAME.part``; ``NAME.part.json`` says which version of the remote file they belong to.
A cut download is continued from there, by the next attempt or by the next call, but only while the
server shows by its ETag or date, and by the whole length, that the file is still the same. When all
bytes are there and the hashes are right, the part is renamed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import requests
from urllib3.exceptions import HTTPError

from condvae.transport.part import PartFile, git_id_of_file, md5_of_file, validator_of

__all__ = [
    "DownloadError",
    "Downloaded",
    "HashMismatchError",
    "Patience",
    "Progress",
    "RefusedError",
    "download_file",
]

CHUNK = 1 << 18
LONGEST_PAUSE_SECONDS = 60.0
REQUEST_TIMEOUT, TOO_EARLY, TOO_MANY_REQUESTS = 408, 425, 429

# Called with the bytes that are there and the bytes of the whole file.
Progress = Callable[[int, int], None]

log = logging.getLogger(__name__)


class DownloadError(RuntimeError):
    """A file could not be fetched; the message says why and what was kept."""


class HashMismatchError(DownloadError):
    """The whole file came, with another hash than expected. Nothing is kept."""


class RefusedError(DownloadError):
    """The server gives the file only to those who may have it (401, 403)."""


class _InterruptedError(Exception):
    """An attempt that failed in a way the next one may not, after the pause the server asks for."""

    def __init__(self, message: str, pause_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.pause_seconds = pause_seconds


@dataclass(frozen=True)
class Patience:
    """When an attempt counts as failed, and how many may fail in a row.

    Attributes:
        attempts: Failed attempts in a row before giving up. An attempt that brought as much as the
            least rate over one window does not count as failed.
        connect_seconds: For the connection to stand.
        silence_seconds: Without a single byte.
        least_bytes_per_second: Slower than this, averaged over a window, is as good as nothing.
        window_seconds: Length of that window.
        pause_seconds: Before the second attempt; doubled before each further one.
    """

    attempts: int = 5
    connect_seconds: float = 10.0
    silence_seconds: float = 30.0
    least_bytes_per_second: float = 4096.0
    window_seconds: float = 30.0
    pause_seconds: float = 1.0


@dataclass(frozen=True)
class Downloaded:
    """A file that is whole and in its place: its sha256 and its size in bytes."""

    sha256: str
    size: int


def download_file(
    address: str,
    target: Path,
    *,
    sha256: str | None = None,
    md5: str | None = None,
    git_id: str | None = None,
    headers: Mapping[str, str] | None = None,
    patience: Patience | None = None,
    progress: Progress | None = None,
) -> Downloaded:
    """Fetch `address` to `target`, replacing what is there only by the whole, right file.

    Only one process at a time may fetch to the same place.

    Args:
        address: ``http://`` or ``https://``; redirects are followed, but not from https to http.
        target: The file; its folder is made when missing.
        sha256: What the file must have; None takes any.
        md5: The same; for files whose publisher states nothing better.
        git_id: The same, of the file as a git object.
        headers: Sent with every request; an ``authorization`` does not follow to other hosts.
        patience: Timeouts and attempts.
        progress: Called after every piece.

    Returns:
        sha256 and size.

    Raises:
        DownloadError: The server refuses, all attempts failed, or the disk is full.
        RefusedError: The server refuses those who may not have the file.
        HashMismatchError: The file has another hash.
    """
    patience = patience or Patience()
    progress = progress or _say_nothing
    part = PartFile(target)
    failures, reason, asked_pause = 0, "", 0.0
    with requests.Session() as session:
        session.headers.update(headers or {})
        while failures < patience.attempts:
            if failures:
                pause = max(asked_pause, patience.pause_seconds * 2.0 ** (failures - 1))
                log.warning("%s: %s; trying again", address, reason)
                time.sleep(min(pause, LONGEST_PAUSE_SECONDS))
            before = part.size
            try:
                return _attempt(session, address, part, (sha256, md5, git_id), patience, progress)
            except _PERMANENT as error:
                raise DownloadError(f"{address}: {error}") from error
            except (requests.RequestException, HTTPError, _InterruptedError) as error:
                reason, asked_pause = _reason_of(error), getattr(error, "pause_seconds", 0.0)
            except OSError as error:  # after RequestException, which is one too
                raise _disk_error(error, part) from error
            enough = patience.least_bytes_per_second * patience.window_seconds
            failures = 0 if part.size - before >= enough else failures + 1
    kept = ""
    if part.size and part.validator:
        kept = f"; {part.size} bytes are kept, the same call goes on from there"
    raise DownloadError(f"{address}: {reason} ({patience.attempts} attempts{kept})")


_PERMANENT = (
    requests.TooManyRedirects,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidURL,
)


def _attempt(
    session: requests.Session,
    address: str,
    part: PartFile,
    hashes: tuple[str | None, str | None, str | None],
    patience: Patience,
    progress: Progress,
) -> Downloaded:
    """Continue or begin the part with one request; finish it when it is whole."""
    started_at = part.open_for(address)
    if not started_at or started_at < part.total:
        headers = {"Accept-Encoding": "identity"}
        if started_at:
            headers |= {"Range": f"bytes={started_at}-", "If-Range": part.validator}
        timeouts = (patience.connect_seconds, patience.silence_seconds)
        with session.get(address, headers=headers, stream=True, timeout=timeouts) as response:
            _check_answer(address, response, part)
            if response.status_code == requests.codes.partial_content and started_at:
                if not part.continues(response.headers):
                    part.discard()
                    raise _InterruptedError("the file on the server has changed; from the start")
                digest = part.digest()
            else:
                started_at = 0
                digest = _begin(address, response, part)
            _receive(response, part, digest, patience, progress)
    else:
        digest = part.digest()
    found = digest.hexdigest()
    if wrong := _wrong_hash(part, found, *hashes):
        part.discard()
        message = f"{wrong}; nothing was kept"
        if started_at:  # the pieces may not have belonged together
            raise _InterruptedError(message)
        raise HashMismatchError(f"{address} has {message}")
    size = part.size
    part.finish()
    return Downloaded(found, size)


def _check_answer(address: str, response: requests.Response, part: PartFile) -> None:
    """Raise unless the answer carries the file, or the rest of it, as it is."""
    places = [*(r.url for r in response.history), response.url]
    if address.startswith("https:") and not all(p.startswith("https:") for p in places):
        raise DownloadError(f"{address} leads to {response.url}, which is not encrypted")
    status = response.status_code
    said = f"{status} {response.reason}".strip()
    if status == requests.codes.requested_range_not_satisfiable:
        part.discard()
        raise _InterruptedError("the file on the server is shorter than what is here")
    if status >= 500 or status in (REQUEST_TIMEOUT, TOO_EARLY, TOO_MANY_REQUESTS):
        # The other form of the header, a date, is not worth a clock that may be wrong.
        seconds = response.headers.get("Retry-After", "")
        pause = float(seconds) if seconds.isdecimal() else 0.0
        raise _InterruptedError(f"the server answers {said}", pause)
    asked_for_rest = "Range" in response.request.headers
    if status != requests.codes.ok and not (
        status == requests.codes.partial_content and asked_for_rest
    ):
        forbidden = status in (requests.codes.unauthorized, requests.codes.forbidden)
        kind = RefusedError if forbidden else DownloadError
        raise kind(f"{response.url}: the server answers {said}")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        encoding = response.headers["Content-Encoding"]
        raise DownloadError(f"{response.url}: sent as {encoding!r}, asked for as it is")


def _begin(address: str, response: requests.Response, part: PartFile) -> Any:
    """Start the part afresh for a whole file that is about to come; returns a new digest."""
    length = response.headers.get("Content-Length", "")
    if not length.isdecimal():
        raise DownloadError(
            f"{response.url}: the server does not say how long the file is, a cut would not be noticed"
        )
    part.begin(address, validator_of(response.headers), int(length))
    return hashlib.sha256()


def _receive(
    response: requests.Response,
    part: PartFile,
    digest: Any,
    patience: Patience,
    progress: Progress,
) -> None:
    """Write and hash the body until the part has its whole length."""
    window_start, window_bytes = time.monotonic(), 0
    progress(part.size, part.total)
    with part.appending() as file:
        while part.size < part.total:
            # read1 returns what is there; read would wait for the whole chunk, hours from a server
            # that drips.
            data = response.raw.read1(min(CHUNK, part.total - part.size), decode_content=False)
            if not data:
                raise _InterruptedError(f"cut after {part.size} of {part.total} bytes")
            _write(file, data)
            digest.update(data)
            part.size += len(data)
            progress(part.size, part.total)
            window_bytes += len(data)
            elapsed = time.monotonic() - window_start
            if elapsed >= patience.window_seconds and part.size < part.total:
                rate = window_bytes / elapsed
                if rate < patience.least_bytes_per_second:
                    raise _InterruptedError(
                        f"only {rate:.0f} bytes per second over {elapsed:.1f} s"
                    )
                window_start, window_bytes = time.monotonic(), 0


def _wrong_hash(
    part: PartFile, found: str, sha256: str | None, md5: str | None, git_id: str | None
) -> str:
    """Which hash of the whole part is not the expected one; empty when none."""
    if sha256 is not None and found != sha256:
        return f"sha256 {found}, expected {sha256}"
    if md5 is not None and (found_md5 := md5_of_file(part.path)) != md5:
        return f"md5 {found_md5}, expected {md5}"
    if git_id is not None and (found_id := git_id_of_file(part.path)) != git_id:
        return f"git object id {found_id}, expected {git_id}"
    return ""


def _write(file: IO[bytes], data: bytes) -> None:
    """Write all of `data` to an unbuffered file, which may take less at a time."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _reason_of(error: Exception) -> str:
    """One readable line from the nested exceptions of the network libraries."""
    if isinstance(error, _InterruptedError):
        return str(error)
    cause: BaseException = error
    for argument in error.args:
        if isinstance(argument, Exception):
            cause = argument
    cause = getattr(cause, "reason", None) or cause
    return f"{type(error).__name__}: {cause}"


def _disk_error(error: OSError, part: PartFile) -> DownloadError:
    """Remove what was written, so that a full disk is not left full, and say so."""
    needed = part.total
    with contextlib.suppress(OSError):
        part.discard()
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        folder = part.path.parent
        return DownloadError(
            f"{folder} is full: {needed} bytes are needed, {_free_bytes(folder)} are free without "
            "the unfinished download, which was removed. Make room, or use another cache folder"
        )
    return DownloadError(f"{part.path} cannot be used: {error.strerror or error}")


def _free_bytes(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def _say_nothing(done: int, total: int) -> None:
    """No progress is shown."""
