"""What is known about each prepared image: one record per row of the array."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from condvae.ground.configuration import ConfigurationError
from condvae.ground.files import open_atomic

__all__ = [
    "SPLITS",
    "ImageRecord",
    "assign_split",
    "image_sha256",
    "make_record",
    "read_records",
    "write_records",
]

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One prepared image.

    Attributes:
        row: Row of the image in the array.
        origin: Where the picture came from: a path inside the folder, or an index in the file.
        sha256: Of the stored pixels and their shape, see `image_sha256`.
        width: Of the original picture, in pixels.
        height: Of the original picture, in pixels.
        mode: Of the original picture, ``L`` (grey) or ``RGB``.
        split: ``train``, ``validation`` or ``test``.
        label: Class index, or `None`.
        mean: Mean of the stored pixels per channel, on the 0-255 scale.
        std: Population standard deviation per channel, same scale.
    """

    row: int
    origin: str
    sha256: str
    width: int
    height: int
    mode: str
    split: str
    label: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]


def image_sha256(pixels: npt.NDArray[np.uint8]) -> str:
    """Return the hexadecimal sha256 of an image: its shape as text, then its bytes.

    Args:
        pixels: uint8 (H,W,C).
    """
    shape = "x".join(map(str, pixels.shape))
    return hashlib.sha256(f"{shape}:".encode() + pixels.tobytes()).hexdigest()


def assign_split(sha256: str, validation_share: float, test_share: float, seed: int) -> str:
    """Return the split of an image, which depends on its content and the seed alone.

    Identical pictures therefore share a split, and adding pictures to a data set moves none.

    Args:
        sha256: Of the image, see `image_sha256`.
        validation_share: In (0, 1).
        test_share: In (0, 1).
        seed: Another seed is another split.
    """
    digest = hashlib.sha256(f"{sha256}:{seed}".encode()).digest()
    # 53 bits, so that the quotient is exact and never rounds up to 1.
    position = (int.from_bytes(digest[:8], "big") >> 11) / 2**53
    if position < test_share:
        return "test"
    return "validation" if position < test_share + validation_share else "train"


def make_record(
    pixels: npt.NDArray[np.uint8],
    *,
    row: int,
    origin: str,
    sha256: str,
    original_shape: tuple[int, ...],
    split: str,
    label: int | None,
) -> ImageRecord:
    """Describe one stored image.

    Args:
        pixels: The stored image, uint8 (H,W,C).
        row: Row in the array.
        origin: Where the picture came from.
        sha256: Of `pixels`.
        original_shape: (H,W) or (H,W,C) of the picture before it was fitted.
        split: ``train``, ``validation`` or ``test``.
        label: Class index, or `None`.
    """
    return ImageRecord(
        row=row,
        origin=origin,
        sha256=sha256,
        width=original_shape[1],
        height=original_shape[0],
        mode="RGB" if original_shape[2:] == (3,) else "L",
        split=split,
        label=label,
        mean=tuple(pixels.mean(axis=(0, 1), dtype=np.float64).tolist()),
        std=tuple(pixels.std(axis=(0, 1), dtype=np.float64).tolist()),
    )


def write_records(path: Path, records: Sequence[ImageRecord]) -> None:
    """Write records as JSON, atomically: one list per field, which is compact and quick to read."""
    names = [field.name for field in dataclasses.fields(ImageRecord)]
    columns = {name: [getattr(record, name) for record in records] for name in names}
    with open_atomic(path) as file:
        file.write(json.dumps(columns, separators=(",", ":"), allow_nan=False).encode())


def read_records(path: Path) -> tuple[ImageRecord, ...]:
    """Read what `write_records` wrote.

    Raises:
        ConfigurationError: The file holds other fields than a record has.
    """
    columns = json.loads(path.read_bytes())
    names = [field.name for field in dataclasses.fields(ImageRecord)]
    if sorted(columns) != sorted(names):
        raise ConfigurationError(f"{path}: fields {sorted(columns)}, expected {sorted(names)}")
    columns["mean"] = map(tuple, columns["mean"])
    columns["std"] = map(tuple, columns["std"])
    rows = zip(*(columns[name] for name in names), strict=True)
    return tuple(ImageRecord(*row) for row in rows)
