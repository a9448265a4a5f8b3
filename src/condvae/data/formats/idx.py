"""MNIST and Fashion-MNIST in the IDX format, packed by gzip or not.

Images (Y. LeCun, C. Cortes, C. Burges; H. Xiao, K. Rasul, R. Vollgraf 2017) are 28x28, grey: 60,000
to train and 10,000 to test. There is no published validation split; `condvae.data.splits` makes one.
"""

from __future__ import annotations

import contextlib
import gzip
import math
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, cast

import numpy as np
import numpy.typing as npt

from condvae.data.arrays import ArrayStream, check_pictures, name_errors
from condvae.data.config import DataConfig
from condvae.data.formats.checksums import note_unofficial
from condvae.data.formats.shards import Shard, ShardSource, check_labels
from condvae.data.formats.source import ImageSource, source_folder
from condvae.data.splits import assign_official, official_split
from condvae.ground.configuration import ConfigurationError

__all__ = ["open_idx"]

CLASSES = {
    "mnist": tuple("0123456789"),
    "fashion_mnist": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
}
UINT8_CODE = 8


def open_idx(config: DataConfig) -> ImageSource:
    """Open the four IDX files in the folder `config.path`, training pictures first.

    Raises:
        ConfigurationError: A file is missing, cut off, or not an IDX file of bytes.
    """
    folder = source_folder(config)
    classes = CLASSES[config.source]
    shards, lists = [], []
    for part in ("train", "t10k"):
        images = _find(folder, f"{part}-images-idx3-ubyte")
        labels = _find(folder, f"{part}-labels-idx1-ubyte")
        shards.append(_make_shard(images, labels, len(classes)))
        lists.append(labels.name)
    note_unofficial(config.source, folder, [*(shard.name for shard in shards), *lists])
    split = None
    if config.split == "official":
        counts = [shard.count for shard in shards]
        split = assign_official(official_split(config.source, counts), sum(counts))
    return ShardSource(folder, shards, class_names=classes, split=split, lists=lists)


def _find(folder: Path, name: str) -> Path:
    """The unpacked file where there is one, else the packed one."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise ConfigurationError(f"{folder}: neither {name} nor {name}.gz; expected one of them")


def _make_shard(images: Path, labels: Path, classes: int) -> Shard:
    with _stream(images, dimensions=3) as stream:
        check_pictures(stream, str(images))
        count = stream.shape[0]

    def read(rows: Sequence[int]) -> Iterator[npt.NDArray[np.uint8]]:
        with _stream(images, dimensions=3) as stream:
            for _, pixels in stream.rows(rows):
                yield pixels

    with _stream(labels, dimensions=1) as stream:
        if stream.shape != (count,):
            raise ConfigurationError(
                f"{labels}: {stream.shape[0]} labels for the {count} pictures in {images.name}"
            )
        values = [int(label) for _, label in stream.rows(range(count))]
    return Shard(images.name, count, read, check_labels(values, count, classes, str(labels)))


@contextlib.contextmanager
def _stream(path: Path, dimensions: int) -> Iterator[ArrayStream]:
    """Open an IDX file after reading its header: two zeros, type, dimensions, sizes."""
    packed = path.suffix == ".gz"
    with name_errors(path, "IDX"), _open(path, packed=packed) as file:
        header = file.read(4 + 4 * dimensions)
        if header[:4] != bytes([0, 0, UINT8_CODE, dimensions]) or len(header) < 4 + 4 * dimensions:
            raise ConfigurationError(
                f"{path}: not an IDX file of bytes with {dimensions} dimensions (it begins with "
                f"{header[:4].hex(' ') or 'nothing'})"
            )
        shape = struct.unpack(f">{dimensions}I", header[4:])
        if not packed and path.stat().st_size < len(header) + math.prod(shape):
            raise ConfigurationError(f"{path}: ends early; expected shape {shape}")
        yield ArrayStream(file, shape, np.dtype(np.uint8), str(path), can_seek=not packed)


def _open(path: Path, *, packed: bool) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path)) if packed else path.open("rb")
