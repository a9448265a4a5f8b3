"""Prepared images on disk: memory-mapped arrays, their records and a description of both.

A folder holds `images.npy` (uint8 NHWC), `records.json` and, written last, `meta.json` with the
hashes of the others. Data sets that have them add `attributes.npy` (uint8, one row of 0 and 1 per
image) and `condition.npy` (one second picture per image). Whatever instant a run is killed at, the
next one sees that the hashes do not fit, or that `meta.json` is not there, and does what is missing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from condvae.data.config import DataConfig
from condvae.data.records import SPLITS, ImageRecord, read_records
from condvae.ground.configuration import ConfigurationError, check_choice, read_config
from condvae.ground.files import sha256_of_file
from condvae.tasks.subject import SideInformation

__all__ = ["ATTRIBUTES", "CONDITION", "FORMAT_VERSION", "IMAGES", "META", "RECORDS"]
__all__ += ["PreparedImages", "open_images"]

IMAGES, RECORDS, META = "images.npy", "records.json", "meta.json"
ATTRIBUTES, CONDITION = "attributes.npy", "condition.npy"
FORMAT_VERSION = 1
MOMENT_ROWS = 1024


@dataclass(frozen=True)
class PreparedImages:
    """A prepared data set.

    Attributes:
        folder: Where it lies.
        config: What it was made from.
        pixels: uint8 (N,H,W,C), memory-mapped, read-only.
        records: One per row of `pixels`.
        fingerprint: sha256 of all that later stages depend on: pixels, splits, labels, parameters.
        images_sha256: Of the file with the pixels.
        class_names: Name of each label, () without labels.
        duplicates_dropped: Number of pictures left out because an identical one came before.
        unreadable_skipped: Origins of the pictures that could not be read.
        duplicates_kept: Number of images that are identical to an earlier one.
        duplicates_across_splits: How many of all duplicates lie in another split than the first.
        validation_is_test: Whether the validation split is the test split, as published.
        attribute_names: Name of each attribute, () without attributes.
        attributes: uint8 (N,A) of 0 and 1, memory-mapped, or `None`.
        condition: uint8 (N,H,W,C), the second picture of each image, memory-mapped, or `None`.
        left_aside: What else the source found -> why it was not used.
        warnings: What is suspicious about the values.
    """

    folder: Path
    config: DataConfig
    pixels: npt.NDArray[np.uint8]
    records: tuple[ImageRecord, ...]
    fingerprint: str
    images_sha256: str
    class_names: tuple[str, ...]
    duplicates_dropped: int
    unreadable_skipped: tuple[str, ...]
    duplicates_kept: int = 0
    duplicates_across_splits: int = 0
    validation_is_test: bool = False
    attribute_names: tuple[str, ...] = ()
    attributes: npt.NDArray[np.uint8] | None = None
    condition: npt.NDArray[np.uint8] | None = None
    left_aside: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def labels(self) -> npt.NDArray[np.int64] | None:
        """Class indices, int64 (N,), or `None` without labels."""
        if not self.class_names:
            return None
        return np.array([record.label for record in self.records], np.int64)

    @property
    def side_information(self) -> SideInformation:
        """What is known of the images besides their pixels, for tasks that need it."""
        return SideInformation(self.labels, self.attributes, self.condition)

    def indices(self, split: str) -> npt.NDArray[np.int64]:
        """Return the rows of a split, ascending, int64 (n,).

        Args:
            split: ``train``, ``validation`` or ``test``. Where the published validation and test
                splits are the same pictures, both give their rows; the records say ``test``.
        """
        check_choice("split", split, SPLITS)
        recorded = "test" if split == "validation" and self.validation_is_test else split
        return np.array([r.row for r in self.records if r.split == recorded], np.int64)

    def describe(self) -> dict[str, Any]:
        """What the card of a model says of the images that it was trained on."""
        return {
            "fingerprint": self.fingerprint,
            "images_sha256": self.images_sha256,
            "source": self.config.source,
            "split": self.config.split,
            "images": {split: len(self.indices(split)) for split in SPLITS},
            **({"classes": list(self.class_names)} if self.class_names else {}),
        }

    def training_moments(self) -> tuple[float, float]:
        """Return mean and standard deviation over all training pixels, on the 0-255 scale."""
        rows = self.indices("train")
        counts = np.zeros(256, np.int64)
        for start in range(0, len(rows), MOMENT_ROWS):
            chunk = self.pixels[rows[start : start + MOMENT_ROWS]]
            counts += np.bincount(chunk.ravel(), minlength=256)
        # Counts of the 256 levels are exact, whatever the size of the data set.
        levels = np.arange(256, dtype=np.float64)
        mean = float(counts @ levels / counts.sum())
        variance = float(counts @ (levels - mean) ** 2 / counts.sum())
        return mean, variance**0.5


def open_images(folder: str | Path) -> PreparedImages:
    """Open what `prepare_images` wrote, after checking that it is whole.

    Args:
        folder: The folder of one data set.

    Raises:
        ConfigurationError: Absent, half-written or changed since; names the folder and the command
            that repairs it.
    """
    folder = Path(folder)
    remedy = "run: kedro run --pipeline=data_preparation"
    try:
        meta = json.loads((folder / META).read_bytes())
    except FileNotFoundError:
        raise ConfigurationError(
            f"{folder}: no prepared images ({META} missing); {remedy}"
        ) from None
    except ValueError as error:
        raise ConfigurationError(f"{folder}: {META} is broken ({error}); {remedy}") from None
    if meta.get("format_version") != FORMAT_VERSION:
        raise ConfigurationError(
            f"{folder}: format version {meta.get('format_version')!r}, expected {FORMAT_VERSION}; "
            f"{remedy}"
        )
    # A data set without attributes or conditions has no hash of them.
    hashes = {IMAGES: "images_sha256", RECORDS: "records_sha256"}
    extras = {ATTRIBUTES: "attributes_sha256", CONDITION: "condition_sha256"}
    extras = {name: key for name, key in extras.items() if key in meta}
    for name, key in (hashes | extras).items():
        if not (folder / name).is_file():
            raise ConfigurationError(f"{folder}: {name} is missing; {remedy}")
        if sha256_of_file(folder / name) != meta[key]:
            raise ConfigurationError(
                f"{folder}: {name} does not have the sha256 in {META}; {remedy}"
            )
    return PreparedImages(
        folder=folder,
        config=read_config(DataConfig, meta["config"], "data"),
        pixels=_map(folder / IMAGES),
        records=read_records(folder / RECORDS),
        fingerprint=meta["fingerprint"],
        images_sha256=meta["images_sha256"],
        class_names=tuple(meta["class_names"]),
        duplicates_dropped=meta["duplicates_dropped"],
        unreadable_skipped=tuple(meta["unreadable_skipped"]),
        duplicates_kept=meta.get("duplicates_kept", 0),
        duplicates_across_splits=meta.get("duplicates_across_splits", 0),
        validation_is_test=meta.get("validation_is_test", False),
        attribute_names=tuple(meta.get("attribute_names", ())),
        left_aside=meta.get("left_aside", {}),
        warnings=tuple(meta.get("warnings", ())),
        attributes=_map(folder / ATTRIBUTES) if ATTRIBUTES in extras else None,
        condition=_map(folder / CONDITION) if CONDITION in extras else None,
    )


def _map(path: Path) -> Any:
    return np.load(path, mmap_mode="r", allow_pickle=False)
