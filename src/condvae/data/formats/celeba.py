"""CelebA: aligned faces with 40 binary attributes and the published partition.

`path` holds the folder ``img_align_celeba`` (202,599 JPEG files of 178x218), ``list_attr_celeba.txt``
and ``list_eval_partition.txt`` (Z. Liu, P. Luo, X. Wang, X. Tang 2015). For 64x64 several cuts are in
use; `data.crop` says which is taken: 140 pixels about the centre (Y. Song, S. Ermon 2019) in the
environment ``celeba64``; 148 is the other common one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from condvae.data.config import DataConfig
from condvae.data.formats.checksums import note_unofficial
from condvae.data.formats.files import FileSource, check_present
from condvae.data.formats.source import ImageSource, source_folder
from condvae.data.splits import OfficialSplit
from condvae.ground.configuration import ConfigurationError

__all__ = ["open_celeba", "read_attributes", "read_partition"]

PICTURES, ATTRIBUTES, PARTITION = "img_align_celeba", "list_attr_celeba", "list_eval_partition"


def open_celeba(config: DataConfig) -> ImageSource:
    """Open the pictures that the attribute file lists, in its order.

    Raises:
        ConfigurationError: A file is missing or has a broken line, or pictures are missing.
    """
    folder = source_folder(config, "celeba")
    # As published, or as Kaggle has it: tables of comma-separated values, a folder in a folder.
    ending = ".csv" if (folder / f"{ATTRIBUTES}.csv").is_file() else ".txt"
    nested = f"{PICTURES}/{PICTURES}"
    pictures = nested if (folder / nested).is_dir() else PICTURES
    names, attribute_names, attributes = read_attributes(folder / (ATTRIBUTES + ending))
    check_present(folder, pictures, names, ATTRIBUTES + ending)
    lists = [ATTRIBUTES + ending]
    split = None
    if config.split == "official":
        split = read_partition(folder / (PARTITION + ending), names)
        lists.append(PARTITION + ending)
    note_unofficial("celeba", folder, lists)
    return FileSource(
        folder,
        [f"{pictures}/{name}" for name in names],
        skip_unreadable=config.unreadable == "skip",
        attribute_names=attribute_names,
        attributes=attributes,
        split=split,
        lists=lists,
    )


def read_attributes(path: Path) -> tuple[list[str], tuple[str, ...], npt.NDArray[np.uint8]]:
    """Read the attribute file: a count, the names, then one line of 1 and -1 per picture.

    Args:
        path: ``list_attr_celeba.txt``, or ``.csv``, which has a header and no count.

    Returns:
        File names (N), attribute names (A), and uint8 (N,A) with 1 where the attribute is present.

    Raises:
        ConfigurationError: Missing file or broken line; names the line.
    """
    lines = _read_lines(path)
    _, head = next(lines, (0, []))
    count = None
    if path.suffix == ".csv":
        attribute_names = tuple(head[1:])
    else:
        if len(head) != 1 or not head[0].isdigit():
            raise ConfigurationError(f"{path}, line 1: expected the number of pictures")
        count = int(head[0])
        attribute_names = tuple(next(lines, (0, []))[1])
    names, rows = [], []
    for number, (name, *values) in lines:
        if len(values) != len(attribute_names) or not {"1", "-1"}.issuperset(values):
            raise ConfigurationError(
                f"{path}, line {number}: expected a file name and {len(attribute_names)} values 1 "
                f"or -1, found {len(values)} values"
            )
        names.append(name)
        rows.append(np.array([value == "1" for value in values], np.uint8))
    if not names or count not in (None, len(names)):
        raise ConfigurationError(
            f"{path}: {len(names)} pictures, but its first line says {count or 'more'}; the file is "
            "cut off"
        )
    if len(set(names)) != len(names):
        raise ConfigurationError(f"{path}: a picture is listed twice")
    return names, attribute_names, np.stack(rows)


def read_partition(path: Path, names: list[str]) -> OfficialSplit:
    """Read the published split: one line per picture, 0 = train, 1 = validation, 2 = test.

    Args:
        path: ``list_eval_partition.txt``, or ``.csv``, which has a header.
        names: Pictures whose split is asked for, in their order.

    Raises:
        ConfigurationError: Missing file, broken line, or a picture without one.
    """
    codes = {}
    lines = _read_lines(path)
    if path.suffix == ".csv":
        next(lines, None)
    for number, fields in lines:
        if len(fields) != 2 or fields[1] not in ("0", "1", "2"):
            raise ConfigurationError(
                f"{path}, line {number}: expected a file name and 0, 1 or 2, found "
                f"{' '.join(fields)!r}"
            )
        codes[fields[0]] = int(fields[1])
    missing = [name for name in names if name not in codes]
    if missing:
        raise ConfigurationError(f"{path}: {len(missing)} pictures have no line, e.g. {missing[0]}")
    return OfficialSplit(np.array([codes[name] for name in names], np.uint8))


def _read_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of the lines that are not empty."""
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if fields := line.replace(",", " ").split():
                    yield number, fields
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: no such file; it belongs to the data set") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: not a text file ({error})") from None
