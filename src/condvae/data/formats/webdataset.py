"""Tar shards in the convention of WebDataset, read without unpacking them.

Members of a shard whose names are the same up to the first dot of the last part belong together: one
picture (``KEY.jpg``, ``.jpeg``, ``.png`` or ``.webp``) and its class index, if any, in ``KEY.cls`` (a
number) or in ``KEY.json`` (``{"label": 3}``). Members with other endings are left alone.

The headers are read once to know how many pictures there are and where; pictures are then read from
their places, one at a time. Nothing is ever extracted, and members that are not plain files with
plain names are ignored with a warning.

Source: T. Breuel. WebDataset (software, version 0.2), 2020: names of members.
"""

from __future__ import annotations

import functools
import io
import itertools
import json
import logging
import re
import struct
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from condvae.data.config import DataConfig
from condvae.data.formats.files import ADVICE, list_pictures
from condvae.data.formats.source import ImageSource, SourceImage, hash_listing, source_folder
from condvae.ground.configuration import ConfigurationError
from condvae.ground.pictures import UnreadablePictureError, read_picture

__all__ = ["ShardMember", "WebDatasetSource", "index_shard", "open_webdataset", "read_member"]

logger = logging.getLogger(__name__)

PICTURES = ("jpg", "jpeg", "png", "webp")
LABELS = ("cls", "json")
OTHER_PICTURES = (".gif", ".bmp", ".tif", ".tiff", ".jfif", ".heic", ".avif")
NAMED_IN_LOG = 3
CHUNK = 1 << 20
# No honest member comes near these, and a forged size must not fill the memory.
LARGEST_HEADER = LARGEST_LABEL_FILE = 1 << 24
LARGEST_PICTURE = 1 << 28
LARGEST_LABEL = 10**6


class ShardMember(NamedTuple):
    """A picture in a shard.

    Attributes:
        name: Of the member.
        offset: Where its bytes begin in the shard.
        size: Their number.
        label: Class index, or `None`.
        fault: Why it cannot be used, empty when it can.
    """

    name: str
    offset: int
    size: int
    label: int | None = None
    fault: str = ""


def open_webdataset(config: DataConfig) -> ImageSource:
    """Open the ``*.tar`` files of the folder `config.path`, in the order of their names.

    Raises:
        ConfigurationError: No such folder, no shards in it, or an address that is not fetched yet.
    """
    if re.match("https?://", str(config.path)):
        raise ConfigurationError(
            f"path = {config.path!r}: expected a folder; condvae.data.fetching.provide_pictures "
            "fetches the shards of an address first"
        )
    folder = source_folder(config)
    found = list_pictures(folder, deep=False, endings=(".tar",))
    if not found.names:
        raise ConfigurationError(f"path = {config.path!r}: no shards; expected files *.tar")
    source = WebDatasetSource(folder, found.names, skip_unreadable=config.unreadable == "skip")
    source.aside = found.aside
    return source


class WebDatasetSource(ImageSource):
    """The pictures of tar shards, one shard after the other.

    Counting them takes a pass over the headers of all shards. It is made when the count is asked for,
    which a set that is prepared already is not.

    Args:
        folder: Where the shards lie.
        names: Of the shards, in their order.
        skip_unreadable: Go on after pictures that cannot be read and shards that are cut short.
    """

    def __init__(self, folder: Path, names: Sequence[str], *, skip_unreadable: bool) -> None:
        super().__init__()
        self._folder, self._names, self._skip = folder, names, skip_unreadable

    @functools.cached_property
    def count(self) -> int:  # type: ignore[override]
        """Number of pictures."""
        return len(self._members)

    @functools.cached_property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Class indices as text up to the largest one, () without labels."""
        labels = [member.label for _, member in self._members if member.label is not None]
        return tuple(map(str, range(max(labels) + 1))) if labels else ()

    def identity(self) -> str:
        """Return a hash of the listing: names, sizes and times of change of the shards."""
        return hash_listing(self._folder, self._names)

    def read(self, chosen: Sequence[int]) -> Iterator[SourceImage]:
        """Yield pictures one at a time; one shard is open at a time."""
        members = self._members
        for shard, rows in itertools.groupby(chosen, lambda i: members[i][0]):
            path = self._folder / shard
            with path.open("rb") as file:
                for i in rows:
                    member = members[i][1]
                    origin = f"{shard}/{member.name}"
                    try:
                        pixels = read_member(file, member, path)
                    except UnreadablePictureError as error:
                        if not self._skip:
                            raise UnreadablePictureError(f"{error}; {ADVICE}") from None
                        logger.warning("skipped: %s", error)
                        self.unreadable.append(origin)
                        continue
                    yield SourceImage(origin, pixels, member.label)

    @functools.cached_property
    def _members(self) -> list[tuple[str, ShardMember]]:
        """Shard and place of every picture."""
        logger.info("%s: counting the pictures of %d shards", self._folder, len(self._names))
        members = [
            (name, member)
            for name in self._names
            for member in index_shard(self._folder / name, skip_unreadable=self._skip)
        ]
        usable = [(name, member) for name, member in members if not member.fault]
        without = [f"{name}/{member.name}" for name, member in usable if member.label is None]
        if 0 < len(without) < len(usable):
            raise ConfigurationError(
                f"{self._folder}: {len(without)} of {len(usable)} pictures have no label "
                f"({_some(without)}); expected KEY.cls or KEY.json with a label for all or for none"
            )
        return members


def index_shard(path: Path, *, skip_unreadable: bool) -> list[ShardMember]:
    """List the pictures of a shard; reads its headers and labels, no picture.

    Args:
        path: A tar file, not compressed.
        skip_unreadable: Return pictures with a fault, instead of raising at the first.

    Returns:
        One for each key that has a picture, in the order of the keys.

    Raises:
        UnreadablePictureError: Two pictures of one key, a label that is not a class index, an empty or
            enormous picture, or a shard that is cut short, unless these are skipped.
        ConfigurationError: There are no pictures in it.
    """
    samples: dict[str, _Sample] = {}
    ignored: list[str] = []
    damage = _collect(path, samples, ignored)
    ignored += [key for key, sample in samples.items() if not sample.pictures]
    if damage and samples:
        # The rest of the last key may be what is lost.
        samples[next(reversed(samples))].fault = damage
    members = [sample.member() for sample in samples.values() if sample.pictures]
    if not members:
        raise ConfigurationError(f"{path}: no pictures in it{damage and f'; {damage}'}")
    if not skip_unreadable:
        for member in members:
            if member.fault:
                raise UnreadablePictureError(_describe(path, member))
        if damage:
            raise UnreadablePictureError(f"{path}: {damage}; replace it or set unreadable: skip")
    if damage:
        logger.warning("%s: %s; what follows is lost", path, damage)
    if ignored:
        logger.warning(
            "%s: ignored %d members that are no plain files, or keys without a picture: %s",
            *(path, len(ignored), _some(ignored)),
        )
    return members


def read_member(file: IO[bytes], member: ShardMember, path: Path) -> npt.NDArray[np.uint8]:
    """Read one picture.

    Args:
        file: The shard, open.
        member: From `index_shard`.
        path: Of the shard, for messages.

    Returns:
        uint8 (H,W) or (H,W,3), see `condvae.ground.pictures.read_picture`.

    Raises:
        UnreadablePictureError: It has a fault, is cut off, or is no picture.
    """
    if member.fault:
        raise UnreadablePictureError(_describe(path, member))
    file.seek(member.offset)
    content = _Content(file.read(member.size), f"{path}: member {member.name!r}")
    return read_picture(content)


class _Content(io.BytesIO):
    """The bytes of a member, shown in messages as where they come from."""

    def __init__(self, content: bytes, where: str) -> None:
        super().__init__(content)
        self._where = where

    def __repr__(self) -> str:
        return self._where


@dataclass
class _Sample:
    """The members of one key."""

    pictures: list[tuple[str, int, int]] = field(default_factory=list)
    label: int | None = None
    fault: str = ""

    def add_label(self, name: str, text: bytes, kind: str) -> None:
        """Take the label of a member ``KEY.cls`` or ``KEY.json``."""
        try:
            label = int(text) if kind == "cls" else json.loads(text)
            if kind == "json":
                label = label.get("label") if isinstance(label, dict) else None
                if label is None:  # a description of something else
                    return
        except (ValueError, RecursionError):
            label = text[:20]
        if type(label) is not int or not 0 <= label < LARGEST_LABEL:
            shown = repr(label)[:40]
            self.fault = f"{name!r} has label {shown}; expected 0 to {LARGEST_LABEL - 1}"
        elif self.label not in (None, label):
            self.fault = f"{name!r} has label {label}, another member {self.label}"
        else:
            self.label = label

    def member(self) -> ShardMember:
        """What the source reads, with what is wrong with it."""
        name, offset, size = self.pictures[0]
        fault = self.fault
        if len(self.pictures) > 1:
            fault = f"two pictures of one key: {name!r} and {self.pictures[1][0]!r}"
        elif not fault and not 0 < size <= LARGEST_PICTURE:
            fault = f"{size} bytes; expected 1 to {LARGEST_PICTURE}"
        return ShardMember(name, offset, size, self.label, fault)


class _HeaderReader(io.BufferedReader):
    """A file that tarfile cannot be made to read into memory by a forged size."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size)


def _collect(path: Path, samples: dict[str, _Sample], ignored: list[str]) -> str:
    """Read all headers and labels; returns what is wrong with the shard, empty when nothing."""
    start = 0
    with _HeaderReader(io.FileIO(path)) as file:
        try:
            # The mode without a compression: tarfile would try them all otherwise.
            with tarfile.open(fileobj=cast(Any, file), mode="r:") as tar:
                while (member := tar.next()) is not None:
                    if tar.offset <= start:
                        raise tarfile.ReadError("leads back")
                    start = tar.offset
                    tar.members = []  # type: ignore[attr-defined] # it would remember every one
                    _take(file, member, samples, ignored)
            _check_end(file, start)
        except _DAMAGED as error:
            return f"cut short or damaged near byte {start} ({error})"
    return ""


def _take(
    file: IO[bytes], member: tarfile.TarInfo, samples: dict[str, _Sample], ignored: list[str]
) -> None:
    """Put one member to the others of its key."""
    if member.isdir():
        return
    is_plain_name = member.name.isprintable() and "\\" not in member.name
    leads_away = member.name.startswith("/") or ".." in member.name.split("/")
    if not member.isreg() or member.issparse() or not is_plain_name or leads_away:
        ignored.append(ascii(member.name))
        return
    name = str(PurePosixPath(member.name))
    match = re.fullmatch(r"((?:.*/)?[^./][^./]*)\.([^/]+)", name)
    if match is None or match[2].lower() not in (*PICTURES, *LABELS):
        # Captions and the like belong to a sample; pictures that are not read are worth a word.
        if name.lower().endswith(OTHER_PICTURES):
            ignored.append(ascii(member.name))
        return
    sample, kind = samples.setdefault(match[1], _Sample()), match[2].lower()
    if kind in PICTURES:
        sample.pictures.append((name, member.offset_data, member.size))
    elif member.size > LARGEST_LABEL_FILE:
        sample.fault = f"{name!r} has {member.size} bytes; expected at most {LARGEST_LABEL_FILE}"
    else:
        file.seek(member.offset_data)
        sample.add_label(name, file.read(member.size), kind)


def _check_end(file: IO[bytes], end: int) -> None:
    """Raise unless zeros follow the last member: tarfile takes a bad header for the end."""
    file.seek(end)
    first = file.read(tarfile.BLOCKSIZE)
    if first != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("no end of the archive")
    while data := file.read(CHUNK):
        if data.strip(b"\0"):
            raise tarfile.ReadError("something follows the end of the archive")


def _describe(path: Path, member: ShardMember) -> str:
    return f"{path}: member {member.name!r}: {member.fault}; repair it or set unreadable: skip"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED_IN_LOG]) + ", ..." * (len(names) > NAMED_IN_LOG)


_DAMAGED = (
    EOFError,
    OverflowError,  # absurd numbers in headers
    RuntimeError,  # headers of headers of headers
    ValueError,
    struct.error,
    tarfile.TarError,
)
