"""ChestX-ray14: frontal chest x-rays with 14 findings.

`path` holds the folder ``images`` (112,120 PNG files of 1024x1024), ``Data_Entry_2017_v2020.csv``,
``train_val_list.txt`` and ``test_list.txt`` (X. Wang, Y. Peng, L. Lu, Z. Lu, M. Bagheri, R. Summers
2017). Findings become binary attributes; "No Finding" is none of them. The published lists part the
patients: the second is the test split. The validation split is this project's own, a seeded choice of
5,000 pictures of the first list; patients may be on both sides of it, but not of the test split.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from condvae.data.config import DataConfig
from condvae.data.formats.files import FileSource, check_present
from condvae.data.formats.source import ImageSource, source_folder
from condvae.data.splits import OfficialSplit, assign_official, official_split
from condvae.ground.configuration import ConfigurationError

__all__ = ["FINDINGS", "open_chest_xray", "read_findings"]

FINDINGS = (
    *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis"),
    *(
        "Hernia",
        "Infiltration",
        "Mass",
        "Nodule",
        "Pleural_Thickening",
        "Pneumonia",
        "Pneumothorax",
    ),
)
NO_FINDING = "No Finding"
PICTURES, TABLE = "images", "Data_Entry_2017_v2020.csv"
TRAIN_LIST, TEST_LIST = "train_val_list.txt", "test_list.txt"
NAME_COLUMN, FINDINGS_COLUMN = "Image Index", "Finding Labels"


def open_chest_xray(config: DataConfig) -> ImageSource:
    """Open the pictures that the table lists, in its order.

    Raises:
        ConfigurationError: A file is missing or has a broken row, or pictures are missing.
    """
    folder = source_folder(config)
    names, attributes = read_findings(folder / TABLE)
    check_present(folder, PICTURES, names, TABLE)
    lists = [TABLE]
    split = None
    if config.split == "official":
        split = _read_split(folder, names)
        lists += [TRAIN_LIST, TEST_LIST]
    return FileSource(
        folder,
        [f"{PICTURES}/{name}" for name in names],
        skip_unreadable=config.unreadable == "skip",
        attribute_names=FINDINGS,
        attributes=attributes,
        split=split,
        lists=lists,
    )


def read_findings(path: Path) -> tuple[list[str], npt.NDArray[np.uint8]]:
    """Read file names and findings.

    Args:
        path: ``Data_Entry_2017_v2020.csv``; its other columns are not looked at.

    Returns:
        File names (N) and uint8 (N,14) with 1 for each finding, in the order of `FINDINGS`.

    Raises:
        ConfigurationError: Missing file or column, or a broken row; names the line.
    """
    names: list[str] = []
    rows = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file, strict=True)
            absent = {NAME_COLUMN, FINDINGS_COLUMN} - set(table.fieldnames or ())
            if absent:
                raise ConfigurationError(f"{path}: no column {', '.join(sorted(absent))}")
            for row in table:
                where = f"{path}, line {table.line_num}"
                name = row[NAME_COLUMN] or ""
                if not re.fullmatch(r"\w+\.png", name):
                    raise ConfigurationError(
                        f"{where}: {NAME_COLUMN} {name!r}; expected the name of a PNG file"
                    )
                names.append(name)
                rows.append(_parse_findings(row[FINDINGS_COLUMN], where))
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: no such file; it belongs to the data set") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not a readable CSV file ({error})") from None
    if not names or len(set(names)) != len(names):
        raise ConfigurationError(f"{path}: no picture, or one listed twice")
    return names, np.stack(rows)


def _parse_findings(text: str | None, where: str) -> npt.NDArray[np.uint8]:
    """``Effusion|Mass`` -> uint8 (14,)."""
    found = (text or "").split("|")
    unknown = set(found) - {*FINDINGS, NO_FINDING}
    if unknown or (NO_FINDING in found and len(found) > 1):
        raise ConfigurationError(
            f"{where}: {FINDINGS_COLUMN} {text!r}; expected {NO_FINDING!r} or findings out of "
            f"{', '.join(FINDINGS)}, separated by |"
        )
    return np.array([finding in found for finding in FINDINGS], np.uint8)


def _read_split(folder: Path, names: list[str]) -> OfficialSplit:
    """The published lists must part the pictures of the table."""
    row = {name: i for i, name in enumerate(names)}
    rows: list[int] = []
    counts = []
    for file in (TRAIN_LIST, TEST_LIST):
        try:
            listed = (folder / file).read_text(encoding="utf-8").split()
        except FileNotFoundError:
            raise ConfigurationError(
                f"{folder / file}: no such file; it belongs to the data set"
            ) from None
        unknown = [name for name in listed if name not in row]
        if unknown:
            raise ConfigurationError(
                f"{folder / file}: {len(unknown)} names are not in {TABLE}, e.g. {unknown[0]!r}"
            )
        rows += [row[name] for name in listed]
        counts.append(len(listed))
    places = official_split("chest_xray14", counts)
    indices = {split: np.array(rows)[chosen] for split, chosen in places.items()}
    return assign_official(indices, len(names))
