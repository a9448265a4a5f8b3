"""Prepared images on disk: a memory-mapped array, its records and a description of both.

A folder holds `images.npy` (uint8 NHWC), `records.json` and, written last, `meta.json` with the
hashes of the other two. Whatever instant a run is killed at, the next one sees that the hashes do
not fit and writes the folder anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from condvae.configuration import ConfigurationError, check_choice, read_config
from condvae.data.canvas import convert_channels, fit_to_canvas
from condvae.data.config import DataConfig
from condvae.data.records import (
    SPLITS,
    ImageRecord,
    assign_split,
    image_sha256,
    make_record,
    read_records,
    write_records,
)
from condvae.data.sources import ImageSource, SourceImage, open_source
from condvae.files import fingerprint, open_atomic, sha256_of_file, write_json

__all__ = ["PreparedImages", "open_images", "prepare_images"]

logger = logging.getLogger(__name__)

IMAGES, RECORDS, META = "images.npy", "records.json", "meta.json"
FORMAT_VERSION = 1
NAMED_IN_LOG = 5
MOMENT_ROWS = 1024

Progress = Callable[[int, int], None]


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

    @property
    def labels(self) -> npt.NDArray[np.int64] | None:
        """Class indices, int64 (N,), or `None` without labels."""
        if not self.class_names:
            return None
        return np.array([record.label for record in self.records], np.int64)

    def indices(self, split: str) -> npt.NDArray[np.int64]:
        """Return the rows of a split, ascending, int64 (n,).

        Args:
            split: ``train``, ``validation`` or ``test``.
        """
        check_choice("split", split, SPLITS)
        return np.array([r.row for r in self.records if r.split == split], np.int64)

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


def prepare_images(
    config: DataConfig, folder: str | Path, progress: Progress | None = None
) -> PreparedImages:
    """Bring a data set into `folder`, or do nothing when it is there already.

    "Already" means: same parameters, unchanged source, files whole. Otherwise all of it is written
    again; files are replaced one by one, each atomically, the description last.

    Args:
        config: The data set.
        folder: Where to write; made when missing.
        progress: Called with (pictures read, pictures in all).

    Returns:
        The prepared images, opened.

    Raises:
        ConfigurationError: Missing or unsuitable source, a picture that cannot be read or does not
            fit the canvas, or a split without images.
    """
    folder = Path(folder)
    source = open_source(config)
    identity = source.identity()
    if _describes(folder / META, config, identity):
        with contextlib.suppress(ConfigurationError):  # not whole: repaired below
            return open_images(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".*.tmp"):  # of runs that were killed
        leftover.unlink(missing_ok=True)
    with open_atomic(folder / IMAGES) as file:
        records, duplicates = _write_pixels(file, source, config, progress)
        _check_splits(records, config)
    write_records(folder / RECORDS, records)
    _log_dropped(duplicates, source.unreadable)
    meta = {
        "format_version": FORMAT_VERSION,
        "config": dataclasses.asdict(config),
        "source_identity": identity,
        "images_sha256": sha256_of_file(folder / IMAGES),
        "records_sha256": sha256_of_file(folder / RECORDS),
        "class_names": list(source.class_names),
        "count": len(records),
        "split_counts": dict(Counter(record.split for record in records)),
        "duplicates_dropped": len(duplicates),
        "unreadable_skipped": source.unreadable,
    }
    write_json(folder / META, meta | {"fingerprint": _fingerprint(meta)})
    return open_images(folder)


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
    for name, key in ((IMAGES, "images_sha256"), (RECORDS, "records_sha256")):
        if not (folder / name).is_file():
            raise ConfigurationError(f"{folder}: {name} is missing; {remedy}")
        if sha256_of_file(folder / name) != meta[key]:
            raise ConfigurationError(
                f"{folder}: {name} does not have the sha256 in {META}; {remedy}"
            )
    return PreparedImages(
        folder=folder,
        config=read_config(DataConfig, meta["config"], "data"),
        pixels=np.load(folder / IMAGES, mmap_mode="r", allow_pickle=False),
        records=read_records(folder / RECORDS),
        fingerprint=meta["fingerprint"],
        images_sha256=meta["images_sha256"],
        class_names=tuple(meta["class_names"]),
        duplicates_dropped=meta["duplicates_dropped"],
        unreadable_skipped=tuple(meta["unreadable_skipped"]),
    )


def _describes(path: Path, config: DataConfig, identity: str) -> bool:
    """Whether the description at `path` is of this data set, made from this source."""
    try:
        meta = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    expected = (dataclasses.asdict(config), identity)
    return (meta.get("config"), meta.get("source_identity")) == expected


def _write_pixels(
    file: IO[bytes], source: ImageSource, config: DataConfig, progress: Progress | None
) -> tuple[list[ImageRecord], list[tuple[str, str]]]:
    """Write the array image by image; return the records and (duplicate, first) origins."""
    chosen = _choose(source.count, config)
    records: list[ImageRecord] = []
    duplicates: list[tuple[str, str]] = []
    first_origin: dict[str, str] = {}
    # The number of rows is known only afterwards. numpy pads headers so that it fits in place.
    header_end = _write_header(file, len(chosen), config)
    for done, image in enumerate(source.read(chosen), start=1):
        pixels = _convert(image, config)
        sha256 = image_sha256(pixels)
        if sha256 in first_origin:
            duplicates.append((image.origin, first_origin[sha256]))
        else:
            first_origin[sha256] = image.origin
            file.write(pixels.tobytes())
            records.append(
                make_record(
                    pixels,
                    row=len(records),
                    origin=image.origin,
                    sha256=sha256,
                    original_shape=image.pixels.shape,
                    split=assign_split(
                        sha256, config.validation_share, config.test_share, config.seed
                    ),
                    label=image.label,
                )
            )
        if progress is not None:
            progress(done + len(source.unreadable), len(chosen))
    file.seek(0)
    assert _write_header(file, len(records), config) == header_end
    return records, duplicates


def _write_header(file: IO[bytes], rows: int, config: DataConfig) -> int:
    """Write the npy header of `rows` images at the file's position; return where it ends."""
    shape = (rows, config.image_size, config.image_size, config.channels)
    header: dict[str, Any] = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.tell()


def _choose(count: int, config: DataConfig) -> Sequence[int]:
    """Pick the rows of the source; never simply the first, for files are often sorted by class."""
    if config.limit is None or config.limit >= count:
        return range(count)
    rng = np.random.default_rng(config.seed)
    chosen: list[int] = np.sort(rng.choice(count, config.limit, replace=False)).tolist()
    return chosen


def _convert(image: SourceImage, config: DataConfig) -> npt.NDArray[np.uint8]:
    """A picture of any shape -> uint8 (size,size,channels)."""
    fit = "resize" if config.source == "digits" else config.fit
    try:
        pixels = convert_channels(image.pixels, config.channels)
        return np.ascontiguousarray(fit_to_canvas(pixels, config.image_size, fit))
    except ConfigurationError as error:
        raise ConfigurationError(f"{error} (picture {image.origin})") from None


def _check_splits(records: Sequence[ImageRecord], config: DataConfig) -> None:
    counts = Counter(record.split for record in records)
    empty = [split for split in SPLITS if not counts[split]]
    if empty:
        raise ConfigurationError(
            f"data set {config.name!r}: no images in {', '.join(empty)} "
            f"({len(records)} images, validation_share {config.validation_share:g}, "
            f"test_share {config.test_share:g}); give more images, larger shares or another seed"
        )


def _fingerprint(meta: dict[str, Any]) -> str:
    """Hash what later stages depend on; not the name, nor where the source lay."""
    elsewhere = ("name", "path", "unreadable")
    config = {key: value for key, value in meta["config"].items() if key not in elsewhere}
    keys = ("format_version", "images_sha256", "records_sha256", "class_names")
    return fingerprint({"config": config} | {key: meta[key] for key in keys})


def _log_dropped(duplicates: Sequence[tuple[str, str]], unreadable: Sequence[str]) -> None:
    if duplicates:
        pairs = ", ".join(f"{again} = {first}" for again, first in duplicates[:NAMED_IN_LOG])
        more = ", ..." if len(duplicates) > NAMED_IN_LOG else ""
        logger.warning("dropped %d exact duplicates: %s%s", len(duplicates), pairs, more)
    if unreadable:
        logger.warning("skipped %d unreadable pictures", len(unreadable))
