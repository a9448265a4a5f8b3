"""Many pictures in each of a few files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from condvae.data.formats.source import ImageSource, SourceImage, hash_listing
from condvae.data.splits import OfficialSplit
from condvae.ground.configuration import ConfigurationError

__all__ = ["Shard", "ShardSource", "check_labels"]

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Shard:
    """One file of pictures.

    Attributes:
        name: Of the file, below the folder of the source.
        count: Pictures in it.
        read: Yields the pictures at ascending rows, each uint8 (H,W) or (H,W,C).
        labels: Class index of each picture, int64 (count,), or `None`.
    """

    name: str
    count: int
    read: Callable[[Sequence[int]], Iterator[npt.NDArray[np.uint8]]]
    labels: Labels | None = None


class ShardSource(ImageSource):
    """The pictures of several files, one file after the other.

    Args:
        folder: Where the files lie.
        shards: They give the order of the pictures.
        class_names: Name of each class.
        split: Published split of each picture.
        lists: Other files that decide the content (labels).
    """

    def __init__(
        self,
        folder: Path,
        shards: Sequence[Shard],
        *,
        class_names: tuple[str, ...] = (),
        split: OfficialSplit | None = None,
        lists: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self._folder, self._shards, self._split = folder, shards, split
        self._lists = lists
        self.class_names = class_names
        self.validation_is_test = split is not None and split.validation_is_test
        self.count = sum(shard.count for shard in shards)

    def identity(self) -> str:
        """Return a hash of the listing: names, sizes and times of change."""
        return hash_listing(self._folder, [*(shard.name for shard in self._shards), *self._lists])

    def read(self, chosen: Sequence[int]) -> Iterator[SourceImage]:
        """Yield pictures one at a time; one file is open at a time."""
        indices = np.asarray(chosen, np.int64)
        start = 0
        for shard in self._shards:
            low, high = np.searchsorted(indices, [start, start + shard.count])
            rows: list[int] = (indices[low:high] - start).tolist()
            for row, pixels in zip(rows, shard.read(rows) if rows else (), strict=True):
                yield SourceImage(
                    f"{shard.name}[{row}]",
                    pixels,
                    label=None if shard.labels is None else int(shard.labels[row]),
                    split=None if self._split is None else self._split.name(start + row),
                )
            start += shard.count


def check_labels(labels: npt.ArrayLike, count: int, classes: int, where: str) -> Labels:
    """Return labels as int64 (count,).

    Args:
        labels: What the file holds.
        count: Pictures in it.
        classes: Number of classes.
        where: File and array, for the message.

    Raises:
        ConfigurationError: Not one integer in [0, classes) for each picture.
    """
    array = np.asarray(labels)
    if array.dtype.kind not in "iu" or array.shape != (count,):
        raise ConfigurationError(
            f"{where} has type {array.dtype} and shape {array.shape}; expected integers and "
            f"({count},), one per image"
        )
    wrong = (array < 0) | (array >= classes)
    if wrong.any():
        raise ConfigurationError(f"{where}: label {array[wrong][0]}; expected 0 to {classes - 1}")
    return array.astype(np.int64)
