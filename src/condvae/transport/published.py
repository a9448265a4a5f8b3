"""One published file: fetched once, checked every time, pinned where nobody states its hash.

Weights and data sets are obtained the same way. What is stated on a card goes first; else the first
file that is accepted under a name is pinned in the folder's lock file, and no other one afterwards.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tqdm import tqdm

from condvae.ground.configuration import ConfigurationError
from condvae.ground.files import sha256_of_file
from condvae.transport.download import HashMismatchError, Patience, Progress, download_file
from condvae.transport.lock import LOCK_FILE, Pin, add_pin, read_pins
from condvae.transport.part import md5_of_file

__all__ = [
    "Obtained",
    "PublishedFile",
    "expected_sha256",
    "obtain_file",
    "pin_file",
    "shown_progress",
]

BY_HAND = "by hand"
# A file that is accepted unseen must at least have about the size that is expected: not an error
# page, not half of it.
LEAST_SHARE, LARGEST_SHARE = 0.8, 1.25

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PublishedFile:
    """A file that somebody publishes, and what is known of it before it is there.

    Attributes:
        name: Under which it is pinned, and named in messages.
        address: Where it is fetched; None where that takes a person.
        sha256: None where none is published.
        md5: None where none is published. Tells damage, not malice.
        megabytes: Its size, about.
        stated_by: Who states the hashes, for messages.
        lock_file: Name of the lock file beside it.
    """

    name: str
    address: str | None
    sha256: str | None = None
    md5: str | None = None
    megabytes: float | None = None
    stated_by: str = "its card"
    lock_file: str = LOCK_FILE


@dataclass(frozen=True)
class Obtained:
    """A file that is in its place.

    Attributes:
        sha256: What it has.
        origin: The address it was fetched from just now, or ``by hand``.
    """

    sha256: str
    origin: str


def expected_sha256(file: PublishedFile, folder: Path) -> tuple[str | None, str]:
    """The sha256 that a file must have, by its card or else its pin, and who says so.

    Args:
        file: The file.
        folder: Where it lies or will lie.

    Returns:
        None and an empty string when nobody does.

    Raises:
        ConfigurationError: The lock file cannot be read.
    """
    pin = read_pins(folder, file.lock_file).get(file.name)
    if file.sha256 is not None:
        return file.sha256, file.stated_by
    if pin is not None:
        where = pin.address if pin.address == BY_HAND else f"from {pin.address}"
        return pin.sha256, f"{folder / file.lock_file}, pinned {pin.date} {where}"
    return None, ""


def obtain_file(
    file: PublishedFile,
    target: Path,
    *,
    patience: Patience | None = None,
    progress: Progress | None = None,
) -> Obtained:
    """Check the file that is there, or fetch it. The caller holds the folder.

    A file that nobody states a hash of is checked by its size alone; it takes permission, and
    `pin_file` once it is known to be good.

    Args:
        file: The file.
        target: Its place.
        patience: Timeouts and attempts of the download.
        progress: Called with bytes there and bytes in all; None shows a bar.

    Returns:
        What is there now.

    Raises:
        ConfigurationError: It has another hash or size than expected, or is not there and has no
            address.
        DownloadError: It could not be fetched.
    """
    sha256, stated_by = expected_sha256(file, target.parent)
    if target.exists():
        obtained = Obtained(_check_present(file, target, sha256, stated_by), BY_HAND)
    elif file.address is not None:
        found = _download(file, target, sha256, stated_by, patience, progress)
        obtained = Obtained(found, file.address)
    else:
        raise ConfigurationError(f"{file.name}: {target} is missing and has no address")
    if sha256 is None and file.md5 is None:
        _check_size(file, target, obtained)
    return obtained


def pin_file(file: PublishedFile, target: Path, obtained: Obtained) -> None:
    """Write down which file was accepted, unless its sha256 is stated or pinned already.

    The caller holds the folder.

    Args:
        file: The file.
        target: Its place.
        obtained: From `obtain_file`.
    """
    if expected_sha256(file, target.parent)[0] is not None:
        return
    now = datetime.now(UTC).isoformat(timespec="seconds")
    pin = Pin(obtained.sha256, target.stat().st_size, obtained.origin, now)
    add_pin(target.parent, file.name, pin, file.lock_file)
    log.warning(
        "%s: accepted %s with sha256 %s, pinned in %s",
        file.name,
        target,
        obtained.sha256,
        file.lock_file,
    )


@contextlib.contextmanager
def shown_progress(name: str, progress: Progress | None) -> Iterator[Progress]:
    """Yield `progress`, or what moves a bar of bytes called `name` when it is None."""
    if progress is not None:
        yield progress
        return
    interval = 0.2 if sys.stderr.isatty() else 10.0
    with tqdm(desc=name, unit="B", unit_scale=True, mininterval=interval) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def _check_present(file: PublishedFile, target: Path, sha256: str | None, stated_by: str) -> str:
    """Check a file that is there already; returns its sha256."""
    if not target.is_file():
        raise ConfigurationError(f"{file.name}: {target} is not a file")
    found = sha256_of_file(target)
    if sha256 is not None and found != sha256:
        raise ConfigurationError(
            f"{file.name}: {target} has sha256 {found}, expected {sha256} ({stated_by}): damaged or "
            "changed. Move it away to fetch it again"
        )
    if sha256 is None and file.md5 is not None and (md5 := md5_of_file(target)) != file.md5:
        raise ConfigurationError(
            f"{file.name}: {target} has md5 {md5}, expected {file.md5} ({file.stated_by}): damaged or "
            "changed. Move it away to fetch it again"
        )
    return found


def _download(
    file: PublishedFile,
    target: Path,
    sha256: str | None,
    stated_by: str,
    patience: Patience | None,
    progress: Progress | None,
) -> str:
    """Fetch the file; returns its sha256."""
    try:
        with shown_progress(file.name, progress) as show:
            done = download_file(
                str(file.address),
                target,
                sha256=sha256,
                md5=file.md5,
                patience=patience,
                progress=show,
            )
    except HashMismatchError as error:
        raise ConfigurationError(
            f"{file.name}: {error}. Stated by {stated_by or file.stated_by}: the file has changed "
            "where it is published"
        ) from error
    return done.sha256


def _check_size(file: PublishedFile, target: Path, obtained: Obtained) -> None:
    """Refuse what is plainly another file; a fetched one is removed."""
    size = target.stat().st_size
    expected = float(size) if file.megabytes is None else file.megabytes * 1e6
    if LEAST_SHARE * expected <= size <= LARGEST_SHARE * expected:
        return
    by_hand = obtained.origin == BY_HAND
    if not by_hand:
        target.unlink()
    raise ConfigurationError(
        f"{file.name}: {target} has {size} bytes, expected about {expected / 1e6:g} MB: cut short, "
        "or another file. It was not accepted" + ("" if by_hand else " and not kept")
    )
