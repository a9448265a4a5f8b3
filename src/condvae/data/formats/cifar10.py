"""CIFAR-10 in its official Python version: pickles made by Python 2.

The folder ``cifar-10-batches-py`` (A. Krizhevsky 2009) holds five batches of 10,000 pictures to train
and one to test, as dictionaries with `data` uint8 (N, 3072), red plane first, and `labels`. A pickle
can run any code, so the only names a batch may ask for are the three that an array needs; one that
asks for anything else is refused before it gets it.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from condvae.data.config import DataConfig
from condvae.data.formats.checksums import note_unofficial
from condvae.data.formats.shards import Shard, ShardSource, check_labels
from condvae.data.formats.source import ImageSource, source_folder
from condvae.data.splits import assign_official, official_split
from condvae.ground.configuration import ConfigurationError

__all__ = ["open_cifar10", "read_batch"]

FOLDER = "cifar-10-batches-py"
BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
SIZE = 32
_frombuffer = np.zeros(1).__reduce_ex__(5)[0]
# An empty array names the function that rebuilds arrays, wherever this NumPy keeps it.
ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    # Of batches that were read and saved again by Python 3.
    ("numpy._core.numeric", "_frombuffer"): _frombuffer,
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
    ("_codecs", "encode"): lambda text, encoding: text.encode({"latin1": "latin1"}[encoding]),
}


def open_cifar10(config: DataConfig) -> ImageSource:
    """Open the six batches in `config.path`, training pictures first.

    Raises:
        ConfigurationError: A batch is missing or is not one.
    """
    folder = source_folder(config, FOLDER)
    missing = [name for name in BATCHES if not (folder / name).is_file()]
    if missing:
        raise ConfigurationError(
            f"{folder}: no {', '.join(missing)}; expected the files of {FOLDER} (the Python version)"
        )
    note_unofficial("cifar10", folder, BATCHES)
    shards = [_make_shard(folder / name) for name in BATCHES]
    split = None
    if config.split == "official":
        counts = [sum(shard.count for shard in shards[:-1]), shards[-1].count]
        split = assign_official(official_split("cifar10", counts), sum(counts))
    return ShardSource(folder, shards, class_names=CLASSES, split=split)


def read_batch(path: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Read one batch without running what else its pickle might hold.

    Args:
        path: A file in the official format.

    Returns:
        Pictures uint8 (N,32,32,3) and labels int64 (N,).

    Raises:
        ConfigurationError: Cut off, asks for other names than an array needs, or holds something else.
    """
    try:
        with path.open("rb") as file:
            batch = _BatchUnpickler(file, encoding="latin1").load()
    # Whatever a broken pickle makes the unpickler stumble over.
    except Exception as error:
        raise ConfigurationError(f"{path}: not a readable batch of CIFAR-10 ({error})") from error
    if isinstance(batch, dict):
        batch = {k.decode("latin1") if isinstance(k, bytes) else k: v for k, v in batch.items()}
    data = batch.get("data") if isinstance(batch, dict) else None
    if (
        not isinstance(data, np.ndarray)
        or data.dtype != np.uint8
        or data.shape != (len(data), 3 * SIZE**2)
        or len(data) == 0
    ):
        raise ConfigurationError(
            f"{path}: no array 'data' of type uint8 and shape (N, {3 * SIZE**2}) in it"
        )
    labels = check_labels(batch.get("labels", ()), len(data), len(CLASSES), f"{path}: 'labels'")
    return data.reshape(-1, 3, SIZE, SIZE).transpose(0, 2, 3, 1), labels


def _make_shard(path: Path) -> Shard:
    labels = read_batch(path)[1]

    def read(rows: Sequence[int]) -> Iterator[npt.NDArray[np.uint8]]:
        # Read again: all batches together would be held in memory otherwise.
        pixels = read_batch(path)[0]
        for row in rows:
            yield np.ascontiguousarray(pixels[row])

    return Shard(path.name, len(labels), read, labels)


class _BatchUnpickler(pickle.Unpickler):
    """Builds lists, dictionaries, text and arrays, nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which no batch needs: not an official file"
            ) from None
