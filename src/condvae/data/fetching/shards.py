"""Tar shards at an address, of a set that need not fit the disk.

Shards are fetched one at a time. The pictures of each are brought to the canvas of the data set and
written, without loss, to a small shard of the same name; the fetched one is then removed. So every
shard comes over the network once, and the disk holds one of them beside what a run needs anyway. The
small shards are an ordinary source, so count, subset and splits are those of any other.

A run that is interrupted is continued by the same call: a shard that was done is not fetched again,
a download goes on from where it was cut.
"""

from __future__ import annotations

import dataclasses
import io
import logging
import re
import tarfile
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
from PIL import Image

from condvae.data.canvas import convert_channels, crop_centre, fit_to_canvas
from condvae.data.config import DataConfig
from condvae.data.fetching.store import LOCK_FILE
from condvae.data.formats.webdataset import ShardMember, index_shard, read_member
from condvae.ground.configuration import ConfigurationError
from condvae.ground.files import fingerprint, open_atomic
from condvae.ground.pictures import UnreadablePictureError
from condvae.transport.cache import cache_folder
from condvae.transport.download import DownloadError, Patience, Progress
from condvae.transport.lock import held
from condvae.transport.published import (
    Obtained,
    PublishedFile,
    expected_sha256,
    obtain_file,
    pin_file,
)

__all__ = ["fetch_shards", "is_address", "list_addresses"]

MOST_SHARDS = 100_000
# Deflate at its quickest: the small shards are read once or twice.
COMPRESSION = 1

log = logging.getLogger(__name__)


def is_address(config: DataConfig) -> bool:
    """Whether the path of a data set is an address of shards instead."""
    return config.source == "webdataset" and re.match("https?://", str(config.path)) is not None


def list_addresses(pattern: str) -> dict[str, str]:
    """Write out a pattern such as ``https://host/train-{00000..00099}.tar``.

    Args:
        pattern: An address whose file name ends in ``.tar``, with one range of numbers or none. The
            numbers have as many digits as the first bound.

    Returns:
        Address of each shard by its file name, in order.

    Raises:
        ConfigurationError: It is not such a pattern, or stands for more than 100,000 shards.
    """
    wrong = f"data.path = {pattern!r}: expected an address such as https://host/train-{{0000..0099}}.tar"
    match = re.fullmatch(r"([^{}]*)\{(\d{1,9})\.\.(\d{1,9})\}([^{}]*)", pattern)
    if match is None:
        if set("{}") & set(pattern):
            raise ConfigurationError(f"{wrong}, with one range in braces at most")
        addresses = [pattern]
    else:
        before, first, last, after = match.groups()
        count = int(last) - int(first) + 1
        if not 0 < count <= MOST_SHARDS:
            raise ConfigurationError(f"{wrong}; {{{first}..{last}}} are not 1 to {MOST_SHARDS}")
        addresses = [
            f"{before}{number:0{len(first)}d}{after}" for number in range(int(first), int(last) + 1)
        ]
    shards = {PurePosixPath(urlsplit(address).path).name: address for address in addresses}
    if not all(re.fullmatch(r"\w[\w.-]*\.tar", name) for name in shards):
        raise ConfigurationError(f"{wrong}; {next(iter(shards))!r} is no name of a shard")
    if len(shards) != len(addresses):
        raise ConfigurationError(f"{wrong}; the range must be in the file name")
    return shards


def fetch_shards(
    config: DataConfig, *, patience: Patience | None = None, progress: Progress | None = None
) -> DataConfig:
    """Return a data set of shards at an address with the folder of its small shards as its path.

    They lie in the cache folder, in a folder of the address and of `image_size`, `channels`, `fit` and
    `crop`, beside the lock file that pins the sha256 of the fetched ones. What could not be read
    (``unreadable = skip``) stays in them as an empty picture, so that the source reports it. Records of
    the images give the size that the small pictures have.

    Args:
        config: See `is_address`.
        patience: Timeouts and attempts of each download.
        progress: Called with bytes there and bytes in all of each shard; None shows bars.

    Returns:
        The same data set with a local path and, since that is done already, without `crop`.

    Raises:
        ConfigurationError: A pattern that is wrong, a shard that could not be fetched, is not the one
            that was pinned, is not pinned and must not be, or has a picture that cannot be read or
            does not fit. What was done before it is kept.
    """
    shards = list_addresses(str(config.path))
    host = urlsplit(str(config.path)).hostname
    home = cache_folder() / "shards" / f"{host}-{fingerprint(config.path)[:12]}"
    cut = f"-crop{config.crop}" if config.crop else ""
    folder = home / f"{config.image_size}x{config.image_size}x{config.channels}-{config.fit}{cut}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with held(home):
            for number, (name, address) in enumerate(shards.items(), start=1):
                if not (folder / name).exists():
                    log.info("shard %d of %d: %s", number, len(shards), address)
                    _provide(name, address, home, folder, config, patience, progress)
                (home / name).unlink(missing_ok=True)
    except DownloadError as error:
        done = sum((folder / name).exists() for name in shards)
        raise ConfigurationError(
            f"data.path = {config.path!r}: {error}. {done} of {len(shards)} shards are done and kept "
            f"in {folder}; the same command goes on from there"
        ) from error
    except OSError as error:
        raise ConfigurationError(
            f"folder {home} cannot be used ({error.strerror or error}): make room, or set "
            "CONDVAE_CACHE to another one"
        ) from error
    return dataclasses.replace(config, path=str(folder), crop=None)


def _provide(
    name: str,
    address: str,
    home: Path,
    folder: Path,
    config: DataConfig,
    patience: Patience | None,
    progress: Progress | None,
) -> None:
    """Fetch one shard and write the small one. The caller holds `home`."""
    file = PublishedFile(name, address, lock_file=LOCK_FILE)
    if expected_sha256(file, home)[0] is None and not config.allow_unpinned:
        raise ConfigurationError(
            f"{address}: nobody states its hash, so the first file cannot be checked. Set "
            "data.allow_unpinned: true (allow_unpinned=True) to accept the shards this once; their "
            f"sha256 are then written to {home / LOCK_FILE} and any others are refused from then on"
        )
    whole = home / name
    found = obtain_file(file, whole, patience=patience, progress=progress)
    try:
        with open_atomic(folder / name) as small:
            _write_small(whole, small, config)
            # Not before it was read: a damaged shard must not be what is accepted from then on. One
            # that was here already was left by a run that was interrupted.
            pin_file(file, whole, Obtained(found.sha256, address))
    except ConfigurationError:
        whole.unlink()  # it may be replaced where it is published
        raise


def _write_small(whole: Path, small: IO[bytes], config: DataConfig) -> None:
    """Write a shard with the same pictures, as small as the data set needs them."""
    skip = config.unreadable == "skip"
    members = index_shard(whole, skip_unreadable=skip)
    with tarfile.open(fileobj=small, mode="w") as tar, whole.open("rb") as source:
        for member in members:
            try:
                content = _shrink(source, member, whole, config)
            except UnreadablePictureError as error:
                if not skip:
                    raise
                log.warning("skipped: %s", error)
                content = b""
            # Under its own name, which may end in jpg: what a picture is shows in its first bytes.
            _add(tar, member.name, content)
            if member.label is not None:
                folder, slash, last = member.name.rpartition("/")
                _add(tar, f"{folder}{slash}{last.split('.')[0]}.cls", str(member.label).encode())


def _shrink(source: IO[bytes], member: ShardMember, whole: Path, config: DataConfig) -> bytes:
    """PNG file of a picture, as it is stored when the data set is prepared."""
    pixels: npt.NDArray[np.uint8] = read_member(source, member, whole)
    try:
        pixels = convert_channels(pixels, config.channels)
        if config.crop is not None:
            pixels = crop_centre(pixels, config.crop)
        pixels = fit_to_canvas(pixels, config.image_size, config.fit)
    except ConfigurationError as error:
        raise ConfigurationError(f"{whole}: member {member.name!r}: {error}") from None
    buffer = io.BytesIO()
    picture = Image.fromarray(np.squeeze(pixels, 2) if config.channels == 1 else pixels)
    picture.save(buffer, "PNG", compress_level=COMPRESSION)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
