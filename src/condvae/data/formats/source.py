"""What every source of pictures offers."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from condvae.data.config import DataConfig
from condvae.ground.configuration import ConfigurationError

__all__ = ["ImageSource", "SourceImage", "hash_listing", "source_folder"]


class SourceImage(NamedTuple):
    """One picture of a source.

    Attributes:
        origin: Unique inside the source: a path below the folder, or an index.
        pixels: uint8 (H,W), (H,W,1) or (H,W,3), as it was found.
        label: Class index, or `None`.
        split: Published split, `None` unless the official one is asked for.
        attributes: Binary attributes, uint8 (A,) of 0 and 1, or `None`.
        condition: A second picture that belongs to the first, of its size (the drawing of a photo);
            `None` in most sources.
        group: Pictures of one group share a random split (patches of one photograph); `None` where
            each picture stands for itself.
    """

    origin: str
    pixels: npt.NDArray[np.uint8]
    label: int | None = None
    split: str | None = None
    attributes: npt.NDArray[np.uint8] | None = None
    condition: npt.NDArray[np.uint8] | None = None
    group: str | None = None


class ImageSource(ABC):
    """A data set on disk that knows how many pictures it has before it reads any.

    Attributes:
        class_names: Name of each class index, () without labels.
        attribute_names: Name of each attribute, () without attributes.
        has_conditions: Whether each picture has a second one.
        validation_is_test: Whether the official validation and test splits are the same pictures.
        count: Number of pictures.
        unreadable: Origins of the pictures that `read` skipped so far.
        aside: What else is at its place -> why it is not used.
        classes_are_folders: Whether a class without a picture that was used is none.
    """

    class_names: tuple[str, ...] = ()
    attribute_names: tuple[str, ...] = ()
    has_conditions: bool = False
    validation_is_test: bool = False
    classes_are_folders: bool = False
    count: int

    def __init__(self) -> None:
        self.unreadable: list[str] = []
        self.aside: dict[str, str] = {}

    @abstractmethod
    def identity(self) -> str:
        """Return a hash that changes when the source's content does."""

    def label_of(self, index: int) -> int | None:
        """Class of a picture before it is read; only where classes are folders."""
        raise NotImplementedError

    @abstractmethod
    def read(self, chosen: Sequence[int]) -> Iterator[SourceImage]:
        """Yield the pictures at the ascending indices `chosen`, one at a time."""


def source_folder(config: DataConfig, official_name: str | None = None) -> Path:
    """Return the folder that `config.path` names.

    Args:
        config: The data set.
        official_name: Top folder of the official archive. Where there is one of that name in the
            folder, it is taken, so that `path` may be the folder the archive was unpacked in.

    Raises:
        ConfigurationError: There is no such folder.
    """
    folder = Path(str(config.path))
    if not folder.is_dir():
        raise ConfigurationError(f"path = {config.path!r}: no such folder")
    if official_name is not None and (folder / official_name).is_dir():
        return folder / official_name
    return folder


def hash_listing(folder: Path, names: Iterable[str]) -> str:
    """Return a hash of paths below a folder, their sizes and their times of change."""
    digest = hashlib.sha256()
    for name in names:
        stat = (folder / name).stat()
        digest.update(json.dumps([name, stat.st_size, stat.st_mtime_ns]).encode() + b"\n")
    return digest.hexdigest()
