"""Pictures that have arrived in a folder: which can be used, and why not the others.

A table describes every file; Great Expectations says which rows do not meet its suite. The files
themselves are never moved or changed: those that cannot be used are copied into a quarantine folder
with a list of reasons.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from condvae.data.preparation import bring_to_canvas
from condvae.data.records import image_sha256
from condvae.data.store import PreparedImages
from condvae.evaluation.monitoring import INVALID, NOTED, Finding
from condvae.ground.configuration import ConfigurationError
from condvae.ground.files import open_atomic, sha256_of_file, write_json
from condvae.ground.pictures import UnreadablePictureError, read_picture
from pipelines.parameters import ReevaluationConfig

__all__ = [
    "Arrivals",
    "describe_files",
    "list_arrivals",
    "quarantine",
    "read_arrivals",
    "read_pictures",
]

REASONS = {
    "readable": "cannot be read as a picture of 8 bits per channel",
    "short_side": "{short_side:.0f} pixels on the short side, the smallest picture of the data set has "
    "{least}",
    "fits": "{short_side:.0f} and {long_side:.0f} pixels on its sides do not fit the canvas of {size}",
    "grey": "has colours, and the data set is grey",
    "repeats": "identical to a picture before it",
}
"""Column of the table -> why a file that is not as expected is left out; the first counts."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Arrivals:
    """What a folder of new pictures holds.

    Attributes:
        names: N, of the pictures that can be used, in the order of `pixels`.
        pixels: uint8 (N,H,W,C), on the canvas of the data set.
        hashes: N, of their pixels.
        rejected: Name -> why it is not used.
        known: How many of the N are pictures of the data set itself.
    """

    names: tuple[str, ...]
    pixels: NDArray[np.uint8]
    hashes: tuple[str, ...]
    rejected: dict[str, str]
    known: int


def list_arrivals(folder: Path) -> dict[str, str]:
    """Name, relative to the folder, -> sha256 of the bytes, of every file; hidden ones are left out.

    A file that cannot be opened has an empty hash, and so has a broken link.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if (path.is_file() or path.is_symlink()) and not any(
            part.startswith(".") for part in name.parts
        ):
            try:
                found[name.as_posix()] = sha256_of_file(path)
            except OSError:
                found[name.as_posix()] = ""
    return found


def read_arrivals(folder: Path, names: Sequence[str], images: PreparedImages) -> Arrivals:
    """Read and check pictures.

    Args:
        folder: Where they lie.
        names: Of the files, relative to the folder.
        images: The data set that they are supposed to be like.
    """
    rows: list[dict[str, Any]] = []
    pixels: dict[str, NDArray[np.uint8]] = {}
    seen: set[str] = set()
    for name in names:
        row, canvas = _describe(folder, name, images)
        if canvas is not None:
            row["repeats"] = (sha256 := image_sha256(canvas)) in seen
            seen.add(sha256)
            pixels[name] = canvas
        rows.append(row)
    rejected = _find_rejected(pd.DataFrame(rows), images) if rows else {}
    good = [name for name in names if name not in rejected]
    size, channels = images.config.image_size, images.config.channels
    hashes = tuple(image_sha256(pixels[name]) for name in good)
    own = {record.sha256 for record in images.records}
    empty = np.zeros((0, size, size, channels), np.uint8)
    return Arrivals(
        tuple(good),
        np.stack([pixels[name] for name in good]) if good else empty,
        hashes,
        {name: rejected[name] for name in names if name in rejected},
        sum(sha256 in own for sha256 in hashes),
    )


def read_pictures(folder: Path, names: Sequence[str], images: PreparedImages) -> NDArray[np.uint8]:
    """Pictures that `read_arrivals` found good, uint8 (N,H,W,C).

    Raises:
        ConfigurationError: One that cannot be used any more.
    """
    return np.stack(
        [bring_to_canvas(read_picture(folder / name), name, images.config) for name in names]
    )


def quarantine(folder: Path, rejected: dict[str, str], place: Path) -> None:
    """Copy files that are not used to `place`, with a list of reasons; those in `folder` stay."""
    for name in rejected:
        try:
            with (folder / name).open("rb") as source, open_atomic(place / "files" / name) as copy:
                shutil.copyfileobj(source, copy)
        except OSError as error:
            log.warning("%s is not copied into the quarantine: %s", folder / name, error)
    entries = [{"file": name, "reason": reason} for name, reason in rejected.items()]
    write_json(place / "quarantine.json", {"folder": folder.as_posix(), "files": entries})


def _describe(
    folder: Path, name: str, images: PreparedImages
) -> tuple[dict[str, Any], NDArray[np.uint8] | None]:
    """Row of the table and, where there is one, the picture on the canvas."""
    row: dict[str, Any] = {"file": name, "readable": False, "repeats": False}
    row |= {"short_side": None, "long_side": None, "fits": None, "grey": None}
    try:
        picture = read_picture(folder / name)
    except UnreadablePictureError:
        return row, None
    row["short_side"], row["long_side"] = sorted(picture.shape[:2])
    row["readable"] = row["fits"] = True
    grey = picture.ndim == 2 or bool((picture == picture[..., :1]).all())
    row["grey"] = grey or images.config.channels > 1
    try:
        return row, bring_to_canvas(picture, name, images.config)
    except ConfigurationError:
        row["fits"] = False
        return row, None


def _find_rejected(table: pd.DataFrame, images: PreparedImages) -> dict[str, str]:
    """Name -> reason, of the rows that do not meet the suite."""
    import great_expectations as gx
    from great_expectations import expectations as gxe

    least = min(min(record.width, record.height) for record in images.records)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("tables").add_dataframe_asset("arrivals")
    batch = asset.add_batch_definition_whole_dataframe("whole").get_batch({"dataframe": table})
    expectations = [
        gxe.ExpectColumnValuesToBeInSet(column="readable", value_set=[True]),
        gxe.ExpectColumnValuesToBeBetween(column="short_side", min_value=least),
        gxe.ExpectColumnValuesToBeInSet(column="fits", value_set=[True]),
        gxe.ExpectColumnValuesToBeInSet(column="grey", value_set=[True]),
        gxe.ExpectColumnValuesToBeInSet(column="repeats", value_set=[False]),
    ]
    result = batch.validate(
        gx.ExpectationSuite("arrivals", expectations=expectations),
        result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["file"]},
    )
    sides = table.set_index("file")
    rejected: dict[str, str] = {}
    for found in result.results:
        reason = REASONS[found.expectation_config.kwargs["column"]]
        for index in found.result.get("unexpected_index_list") or ():
            name = index["file"]
            facts = {key: sides.loc[name, key] for key in ("short_side", "long_side")}
            facts |= {"least": least, "size": images.config.image_size}
            rejected.setdefault(name, reason.format(**facts) if "{" in reason else reason)
    return rejected


def describe_files(
    folder: Path, files: int, usable: int, known: int, config: ReevaluationConfig
) -> list[Finding]:
    """What is to be said of the files alone. An empty folder is no fault: nothing has arrived."""
    if not files:
        return [Finding(NOTED, "new data", f"{folder} is empty: nothing has arrived")]
    if not usable:
        message = f"none of the {files} files in {folder} can be used, see the quarantine"
        return [Finding(INVALID, "new data", message)]
    findings = []
    if usable < files:
        message = f"{files - usable} of {files} files in {folder} are quarantined and left out"
        findings.append(Finding(NOTED, "new data", message))
    if usable < config.least_images:
        message = (
            f"only {usable} new pictures: at least {config.least_images} are needed to judge them "
            "(reevaluate.least_images)"
        )
        findings.append(Finding(NOTED, "new data", message))
    if known:
        message = f"{known} of {usable} new pictures are pictures of the data set itself"
        findings.append(Finding(NOTED, "new data", message))
    return findings
