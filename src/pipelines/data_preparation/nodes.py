"""Nodes of the data preparation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from condvae.data import DataConfig, PreparedImages, prepare_images
from condvae.data.fetching import provide_pictures
from condvae.ground.configuration import read_config
from pipelines.catalog.validation import write_data_docs

__all__ = ["document_manifest_node", "prepare_images_node"]


def prepare_images_node(
    data: Mapping[str, Any], folders: Mapping[str, str]
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Prepare the images of `params:data`, fetching a published data set that is not there.

    Args:
        data: Fields of `condvae.data.DataConfig`.
        folders: `images` is the folder that gets one sub-folder per data set.

    Returns:
        `image_store`, a JSON value that says where the images are and what they are, and
        `manifest`, one row per image.
    """
    config = provide_pictures(read_config(DataConfig, data, "data"))
    with tqdm(desc="preparing images", unit="image", leave=False) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        images = prepare_images(config, Path(folders["images"]) / config.name, show)
    return _describe_store(images), _tabulate_records(images)


def document_manifest_node(manifest: pd.DataFrame, folders: Mapping[str, str]) -> dict[str, Any]:
    """Write the Data Docs of the manifest.

    Args:
        manifest: One row per image.
        folders: `data_docs` is the folder to write to.

    Returns:
        `folder`, `success`, `statistics`, and paths relative to the folder, see
        `write_data_docs`.
    """
    folder = folders["data_docs"]
    return {"folder": folder, **write_data_docs(manifest, "manifest", folder, "manifest")}


def _describe_store(images: PreparedImages) -> dict[str, Any]:
    """What later stages need to know, as a JSON value."""
    mean, std = images.training_moments()
    return {
        "folder": images.folder.as_posix(),
        "fingerprint": images.fingerprint,
        "images_sha256": images.images_sha256,
        "name": images.config.name,
        "count": len(images.records),
        "image_size": images.config.image_size,
        "channels": images.config.channels,
        "class_names": list(images.class_names),
        "training_mean": mean,
        "training_std": std,
        "unreadable_skipped": list(images.unreadable_skipped),
        "left_aside": dict(images.left_aside),
        "warnings": list(images.warnings),
        "duplicates_dropped": images.duplicates_dropped,
        "duplicates_kept": images.duplicates_kept,
        "duplicates_across_splits": images.duplicates_across_splits,
        "validation_is_test": images.validation_is_test,
        "attribute_names": list(images.attribute_names),
    }


def _tabulate_records(images: PreparedImages) -> pd.DataFrame:
    """One row per record; statistics in columns `mean_0`, `std_0` and so on.

    `duplicate_of` is the row of the first identical image, where one comes before.
    """
    names = ("row", "origin", "sha256", "width", "height", "mode", "split", "label")
    columns: dict[str, list[Any]] = {
        name: [getattr(record, name) for record in images.records] for name in names
    }
    for channel in range(images.config.channels):
        columns[f"mean_{channel}"] = [record.mean[channel] for record in images.records]
        columns[f"std_{channel}"] = [record.std[channel] for record in images.records]
    first: dict[str, int] = {}
    for record in images.records:
        first.setdefault(record.sha256, record.row)
    earlier = [first[record.sha256] for record in images.records]
    columns["duplicate_of"] = [
        None if row == record.row else row
        for row, record in zip(earlier, images.records, strict=True)
    ]
    # Nullable integers: a column without labels stays an integer column on disk.
    return pd.DataFrame(columns).astype({"label": "Int64", "duplicate_of": "Int64"})
