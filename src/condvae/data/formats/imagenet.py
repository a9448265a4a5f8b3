"""ImageNet at 32x32 and 64x64, in either of the two forms it was published in.

- The "small" pictures (A. van den Oord, N. Kalchbrenner, K. Kavukcuoglu 2016; withdrawn): folders
  ``train_32x32`` and ``valid_32x32`` (or 64) of PNG files, 1,281,149 and 49,999 of them, no labels.
  The published VDVAE checkpoints were trained on and scored with these.
- The downsampled batches (P. Chrabaszcz, I. Loshchilov, F. Hutter 2017): ``train_data_batch_1.npz``
  and so on, and ``val_data.npz``, 1,281,167 and 50,000 pictures, resized in another way, with labels.

The official validation pictures are the test split; 5,000 training pictures are the validation split.
The list of their indices is the published one. Which pictures they are depends on the order that it
counts through, which is not published; here files are sorted by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from condvae.data.arrays import read_array, stream_array
from condvae.data.config import DataConfig
from condvae.data.formats.files import FileSource, find_pictures
from condvae.data.formats.shards import Shard, ShardSource, check_labels
from condvae.data.formats.source import ImageSource, source_folder
from condvae.data.splits import OfficialSplit, assign_official, official_split
from condvae.ground.configuration import ConfigurationError

__all__ = ["open_imagenet"]

CLASSES = 1000


def open_imagenet(config: DataConfig) -> ImageSource:
    """Open `config.path`, training pictures first; the form is told by what lies there.

    Raises:
        ConfigurationError: Neither form is there, or a part of it is missing or broken.
    """
    folder = source_folder(config)
    size = int(config.source.removeprefix("imagenet"))
    parts = (f"train_{size}x{size}", f"valid_{size}x{size}")
    if any((folder / part).is_dir() for part in parts):
        train, valid = (find_pictures(folder, part) for part in parts)
        return FileSource(
            folder,
            train.names + valid.names,
            skip_unreadable=config.unreadable == "skip",
            split=_split(config, [len(train.names), len(valid.names)]),
            aside=train.aside | valid.aside,
        )
    batches = _find_batches(folder)
    if not batches:
        raise ConfigurationError(
            f"{folder}: neither folders {parts[0]} and {parts[1]} of PNG files nor "
            "train_data_batch_1.npz and so on with val_data.npz"
        )
    shards = [_make_shard(folder, path, size) for path in batches]
    return ShardSource(
        folder,
        shards,
        class_names=tuple(map(str, range(CLASSES))),
        split=_split(config, [sum(shard.count for shard in shards[:-1]), shards[-1].count]),
    )


def _split(config: DataConfig, counts: Sequence[int]) -> OfficialSplit | None:
    if config.split != "official":
        return None
    return assign_official(official_split(config.source, counts), sum(counts))


def _find_batches(folder: Path) -> list[Path]:
    """Training batches in the order of their numbers, then the validation batch."""
    numbered = {}
    for path in folder.rglob("train_data_batch_*.npz"):
        number = re.fullmatch(r"train_data_batch_(\d+)", path.stem)
        if number:
            numbered[int(number[1])] = path
    if not numbered:
        return []
    gaps = sorted(set(range(1, max(numbered) + 1)) - set(numbered))
    if gaps:
        names = ", ".join(f"train_data_batch_{number}.npz" for number in gaps)
        raise ConfigurationError(f"{folder}: {names} missing; expected all batches")
    validation = sorted(folder.rglob("val_data.npz"))
    if len(validation) != 1:
        raise ConfigurationError(f"{folder}: {len(validation)} files val_data.npz; expected one")
    return [numbered[number] for number in sorted(numbered)] + validation


def _make_shard(folder: Path, path: Path, size: int) -> Shard:
    with stream_array(path, "data") as data:
        if data.dtype != np.uint8 or data.shape[1:] != (3 * size**2,) or not data.shape[0]:
            raise ConfigurationError(
                f"{path}: array 'data' has type {data.dtype} and shape {data.shape}; expected uint8 "
                f"and (N, {3 * size**2}), pictures of {size}x{size} in three planes"
            )
        count = data.shape[0]

    def read(rows: Sequence[int]) -> Iterator[npt.NDArray[np.uint8]]:
        with stream_array(path, "data") as data:
            for _, planes in data.rows(rows):
                yield np.ascontiguousarray(planes.reshape(3, size, size).transpose(1, 2, 0))

    labels = read_array(path, "labels")
    if labels is None:
        raise ConfigurationError(f"{path}: no array 'labels'")
    where = f"{path}: array 'labels' less one"  # they count from 1
    checked = check_labels(np.asarray(labels, np.int64) - 1, count, CLASSES, where)
    return Shard(path.relative_to(folder).as_posix(), count, read, checked)
