"""From a source of pictures to a store: converted, split, hashed and written one by one.

Memory does not grow with the pixels: pictures are read, converted and written one at a time, and only
their records (about a kilobyte each) are held. A run that was killed goes on where it was.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from condvae.data.canvas import convert_channels, crop_centre, fit_to_canvas
from condvae.data.config import DataConfig
from condvae.data.records import (
    SPLITS,
    ImageRecord,
    assign_split,
    image_sha256,
    make_record,
    write_records,
)
from condvae.data.sources import ImageSource, SourceImage, open_source
from condvae.data.store import (
    ATTRIBUTES,
    CONDITION,
    FORMAT_VERSION,
    IMAGES,
    META,
    RECORDS,
    PreparedImages,
    open_images,
)
from condvae.data.unfinished import Duplicate, UnfinishedStore
from condvae.ground.configuration import ConfigurationError, read_config
from condvae.ground.files import fingerprint, locked, sha256_of_file, write_json
from condvae.ground.images import check_scale

__all__ = ["bring_to_canvas", "prepare_images"]

logger = logging.getLogger(__name__)

UNFINISHED = ".unfinished"
NAMED_IN_LOG = 5

Progress = Callable[[int, int], None]


def prepare_images(
    config: DataConfig, folder: str | Path, progress: Progress | None = None
) -> PreparedImages:
    """Bring a data set into `folder`, or do nothing when it is there already.

    "Already" means: same parameters, unchanged source, files whole. Otherwise all of it is written
    again, to a sub-folder whose files are moved up at the end, the description last. Killed, the next
    call goes on where this one was; ended by an error, it leaves nothing behind.

    Args:
        config: The data set.
        folder: Where to write; made when missing.
        progress: Called with (pictures read, pictures in all).

    Returns:
        The prepared images, opened.

    Raises:
        ConfigurationError: Missing or unsuitable source, a picture that cannot be read or does not
            fit the canvas, a duplicate where none may be, or a split without images.
    """
    folder = Path(folder)
    source = open_source(config)
    identity = source.identity()
    if (found := _open_prepared(config, folder, identity)) is not None:
        return found
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, f"waiting for another process, which prepares images in {folder}"):
        if (found := _open_prepared(config, folder, identity)) is not None:
            return found  # it has made the same
        for leftover in folder.glob(".*.tmp"):  # of runs that were killed
            leftover.unlink(missing_ok=True)
        _write_store(source, identity, config, folder, progress)
    return open_images(folder)


def _open_prepared(config: DataConfig, folder: Path, identity: str) -> PreparedImages | None:
    """What is there already, None where it is something else or not whole."""
    if _describes(folder / META, config, identity):
        with contextlib.suppress(ConfigurationError):
            return open_images(folder)
    return None


def _write_store(
    source: ImageSource,
    identity: str,
    config: DataConfig,
    folder: Path,
    progress: Progress | None,
) -> None:
    """Write all files of the store, the description last."""
    chosen = _choose(source.count, config)
    canvas = (config.image_size, config.image_size, config.channels)
    row_shapes: dict[str, tuple[int, ...]] = {IMAGES: canvas}
    if source.has_conditions:
        row_shapes[CONDITION] = canvas
    if source.attribute_names:
        row_shapes[ATTRIBUTES] = (len(source.attribute_names),)
    key = fingerprint({"config": dataclasses.asdict(config), "source": identity})
    with UnfinishedStore(folder / UNFINISHED, key, row_shapes, len(chosen)) as unfinished:
        if unfinished.read:
            logger.info("goes on after %d of %d pictures", unfinished.read, len(chosen))
        _write_pictures(unfinished, source, config, chosen, progress)
        records, duplicates = unfinished.records, unfinished.duplicates
        warnings = _check_values(records)
        _check_splits(records, config, source)
        unfinished.finish(folder)
    records, class_names = _drop_empty_classes(records, source, chosen)
    write_records(folder / RECORDS, records)
    _log_losses(duplicates, source.unreadable, config)
    logger.info(
        "%d entries found, %d left aside, %d of the others chosen: %d images",
        *(source.count + len(source.aside), len(source.aside), len(chosen), len(records)),
    )
    if class_names:
        counts = Counter(
            class_names[record.label] for record in records if record.label is not None
        )
        shown = ", ".join(f"{name} ({counts[name]})" for name in class_names[:NAMED_IN_LOG])
        more = ", ..." if len(class_names) > NAMED_IN_LOG else ""
        logger.info("%d classes: %s%s", len(class_names), shown, more)
    kept = len(duplicates) if config.duplicate_rule == "keep" else 0
    meta = {
        "format_version": FORMAT_VERSION,
        "config": dataclasses.asdict(config),
        "source_identity": identity,
        "images_sha256": sha256_of_file(folder / IMAGES),
        "records_sha256": sha256_of_file(folder / RECORDS),
        "class_names": list(class_names),
        "entries_found": source.count + len(source.aside),
        "left_aside": source.aside,
        "warnings": warnings,
        "count": len(records),
        "split_counts": dict(Counter(record.split for record in records)),
        "duplicates_dropped": len(duplicates) - kept,
        "unreadable_skipped": source.unreadable,
        "duplicates_kept": kept,
        "duplicates_across_splits": sum(duplicate.across for duplicate in duplicates),
        "validation_is_test": source.validation_is_test,
    }
    if source.has_conditions:
        meta["condition_sha256"] = sha256_of_file(folder / CONDITION)
    if source.attribute_names:
        meta["attributes_sha256"] = sha256_of_file(folder / ATTRIBUTES)
        meta["attribute_names"] = list(source.attribute_names)
    for name in {CONDITION, ATTRIBUTES} - set(row_shapes):  # of another data set of this name
        (folder / name).unlink(missing_ok=True)
    write_json(folder / META, meta | {"fingerprint": _fingerprint(meta)})
    unfinished.remove()


def _drop_empty_classes(
    records: list[ImageRecord], source: ImageSource, chosen: Sequence[int]
) -> tuple[list[ImageRecord], tuple[str, ...]]:
    """Labels of pictures that were used: a folder none of whose chosen pictures was is no class."""
    names = source.class_names
    if not (source.classes_are_folders and names):
        return records, names
    used = {record.label for record in records}
    lost = {source.label_of(i) for i in chosen} - used
    if not lost:
        return records, names
    logger.warning(
        "no classes, as no picture in them could be used: %s",
        ", ".join(name for label, name in enumerate(names) if label in lost),
    )
    kept = [label for label in range(len(names)) if label not in lost]
    place = {label: i for i, label in enumerate(kept)}
    moved = [dataclasses.replace(record, label=place[record.label or 0]) for record in records]
    return moved, tuple(names[label] for label in kept)


def _describes(path: Path, config: DataConfig, identity: str) -> bool:
    """Whether the description at `path` is of this data set, made from this source."""
    try:
        meta = json.loads(path.read_bytes())
        described = read_config(DataConfig, meta["config"], "data")
    except (OSError, ValueError, KeyError):
        return False
    return (described, meta.get("source_identity")) == (config, identity)


def _write_pictures(
    unfinished: UnfinishedStore,
    source: ImageSource,
    config: DataConfig,
    chosen: Sequence[int],
    progress: Progress | None,
) -> None:
    """Read what is left of the source; append it."""
    first = {record.sha256: record for record in reversed(unfinished.records)}
    source.unreadable += unfinished.unreadable
    skipped, start = len(source.unreadable), unfinished.read
    for done, image in enumerate(source.read(chosen[start:]), start=start + 1):
        pixels = bring_to_canvas(image.pixels, image.origin, config)
        record = _describe(image, pixels, len(unfinished.records), config)
        earlier = first.setdefault(record.sha256, record)
        if earlier is not record:
            across = earlier.split != record.split
            unfinished.duplicates.append(Duplicate(record.origin, earlier.origin, across))
        if earlier is record or config.duplicate_rule == "keep":
            rows = {IMAGES: pixels}
            if image.condition is not None:
                rows[CONDITION] = bring_to_canvas(image.condition, image.origin, config)
            if image.attributes is not None:
                rows[ATTRIBUTES] = image.attributes
            unfinished.append(record, rows)
        elif config.duplicate_rule == "stop":
            raise ConfigurationError(
                f"duplicates = 'stop': picture {record.origin} is identical to {earlier.origin}"
            )
        read = done + len(source.unreadable) - skipped
        unfinished.advance(read, source.unreadable)
        if progress is not None:
            progress(read, len(chosen))


def _choose(count: int, config: DataConfig) -> Sequence[int]:
    """Pick the rows of the source; never simply the first, for files are often sorted by class."""
    if config.limit is None or config.limit >= count:
        return range(count)
    rng = np.random.default_rng(config.seed)
    chosen: list[int] = np.sort(rng.choice(count, config.limit, replace=False)).tolist()
    return chosen


def _describe(
    image: SourceImage, pixels: npt.NDArray[np.uint8], row: int, config: DataConfig
) -> ImageRecord:
    sha256 = image_sha256(pixels)
    split = image.split or assign_split(
        image.group or sha256, config.validation_share, config.test_share, config.seed
    )
    return make_record(
        pixels,
        row=row,
        origin=image.origin,
        sha256=sha256,
        original_shape=image.pixels.shape,
        split=split,
        label=image.label,
    )


def bring_to_canvas(
    pixels: npt.NDArray[np.uint8], origin: str, config: DataConfig
) -> npt.NDArray[np.uint8]:
    """Bring a picture of any shape to that of a data set's images.

    Args:
        pixels: uint8 (H,W) or (H,W,C).
        origin: What it is called in messages.
        config: Of the data set.

    Returns:
        uint8 (size,size,channels).

    Raises:
        ConfigurationError: Smaller than the cut, or larger than the canvas that it is padded to.
    """
    fit = "resize" if config.source in ("digits", "photographs") else config.fit
    try:
        pixels = convert_channels(pixels, config.channels)
        if config.crop is not None:
            pixels = crop_centre(pixels, config.crop)
        return np.ascontiguousarray(fit_to_canvas(pixels, config.image_size, fit))
    except ConfigurationError as error:
        raise ConfigurationError(f"{error} (picture {origin})") from None


def _check_values(records: Sequence[ImageRecord]) -> list[str]:
    """Refuse images on another scale; warn of a channel that says nothing."""
    if not records:
        return []
    mean, std = (np.array([getattr(r, name) for r in records]) for name in ("mean", "std"))
    # Moments of values of 0 and 1; other pictures are as dark only where they are black.
    if mean.max() <= 1 and std.max() <= 0.5:
        check_scale(float(np.ceil(mean.max())), f"all {len(records)} images")
    constant = np.flatnonzero((std == 0).all(axis=0) & (mean == mean[:1]).all(axis=0))
    warnings = [f"channel {c} of all images has one value, {mean[0, c]:g}" for c in constant]
    for warning in warnings:
        logger.warning("%s", warning)
    return warnings


def _check_splits(records: Sequence[ImageRecord], config: DataConfig, source: ImageSource) -> None:
    counts = Counter(record.split for record in records)
    if source.validation_is_test:
        counts["validation"] = counts["test"]
    empty = [split for split in SPLITS if not counts[split]]
    if empty and config.split == "official":
        raise ConfigurationError(
            f"data set {config.name!r}: no images in {', '.join(empty)} of the official split "
            f"({len(records)} images); give more images or a larger limit"
        )
    different = len({record.sha256 for record in records})
    if empty and different < min(len(SPLITS), len(records)):
        raise ConfigurationError(
            f"data set {config.name!r}: no images in {', '.join(empty)}: the {len(records)} images are "
            f"{different} different ones, and equal images share a split; give images that differ"
        )
    if empty:
        raise ConfigurationError(
            f"data set {config.name!r}: no images in {', '.join(empty)} "
            f"({len(records)} images, validation_share {config.validation_share:g}, "
            f"test_share {config.test_share:g}); give more images, larger shares or another seed"
        )


def _fingerprint(meta: dict[str, Any]) -> str:
    """Hash what later stages depend on; not the name, nor where the source lay."""
    elsewhere = ("name", "path", "unreadable", "accept_licence", "allow_unpinned")
    config = {key: value for key, value in meta["config"].items() if key not in elsewhere}
    # Younger than the first fingerprints: at their defaults they must not change any.
    for key, default in (("crop", None), ("split", "random"), ("duplicates", None)):
        if config[key] == default:
            del config[key]
    keys = ["format_version", "images_sha256", "records_sha256", "class_names"]
    extras = ("attributes_sha256", "attribute_names", "condition_sha256")
    keys += [key for key in extras if key in meta]
    return fingerprint({"config": config} | {key: meta[key] for key in keys})


def _log_losses(
    duplicates: Sequence[Duplicate], unreadable: Sequence[str], config: DataConfig
) -> None:
    if duplicates:
        pairs = ", ".join(f"{again} = {first}" for again, first, _ in duplicates[:NAMED_IN_LOG])
        more = ", ..." if len(duplicates) > NAMED_IN_LOG else ""
        done = "kept" if config.duplicate_rule == "keep" else "dropped"
        logger.warning("%s %d exact duplicates: %s%s", done, len(duplicates), pairs, more)
        across = sum(duplicate.across for duplicate in duplicates)
        if across:
            logger.warning("%d of the duplicates are in another split than the first", across)
    if unreadable:
        logger.warning("skipped %d unreadable pictures", len(unreadable))
