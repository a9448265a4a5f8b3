"""Attributes of prepared images: labels, published attributes, measures of the pixels, CSV files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from condvae.data.attribute_file import (
    CONTINUOUS,
    AttributeFile,
    encode_column,
    open_attribute_file,
    standardise,
)
from condvae.data.measures import (
    MEASURES,
    TERCILES,
    fit_terciles,
    measure_images,
    sort_by_terciles,
)
from condvae.data.store import PreparedImages
from condvae.ground.attributes import BINARY, Attribute, AttributeTable
from condvae.ground.configuration import ConfigurationError, check_choice

__all__ = ["ALL", "CLASS", "gather_attributes", "held_out"]

ALL, CLASS = "all", "class"
DIGITS = tuple(map(str, range(10)))
OF_DIGITS = {"odd": np.arange(10) % 2, "at_least_five": np.arange(10) // 5}
"""Binary attribute by digit."""

_Column = tuple[Attribute, NDArray[np.floating]]


def gather_attributes(
    images: PreparedImages, wanted: Sequence[str], csv: Path | None = None
) -> AttributeTable:
    """Put together the attributes of all images of a data set.

    A name is looked for among the columns of `csv`, then the published attributes of the data set,
    then these: ``class`` (the labels); of digits ``odd`` and ``at_least_five``; and the measures of
    `condvae.data.measures`: ``slant``, ``thickness``, ``size`` and ``brightness``, in three values by
    terciles of the training split, or as numbers, standardised by its moments, where
    ``:continuous`` is added.

    Args:
        images: N images.
        wanted: Names; ``all`` stands for every column and every published attribute that is not named
            itself. Of a column also ``name:continuous`` and ``name:low|medium|high``, see
            `condvae.data.attribute_file.encode_column`.
        csv: File of attributes, `None` for none.

    Returns:
        N rows, one column per name.

    Raises:
        ConfigurationError: A name that is not there or comes twice, or one that the file, the data
            set or the measure does not fit; names it.
    """
    origins = [record.origin for record in images.records]
    file = None if csv is None else open_attribute_file(csv, origins)
    requests = _expand(images, wanted, file)
    columns = [_gather_column(images, name, declared, file) for name, declared in requests]
    values = np.stack([codes for _, codes in columns], axis=1).astype(np.float32)
    return AttributeTable(tuple(attribute for attribute, _ in columns), torch.from_numpy(values))


def held_out(
    table: AttributeTable, combinations: Sequence[Mapping[str, object]]
) -> NDArray[np.bool_]:
    """Find the images that show a combination of values which training is to leave out.

    Args:
        table: N images.
        combinations: Each of at least two values by attribute name (``{"class": "3", "slant":
            "right"}``): without one value alone training would know nothing of it.

    Returns:
        bool (N), true where an image has all values of at least one combination; unknown values are
        none of them.

    Raises:
        ConfigurationError: Unknown attribute or value, a continuous attribute, fewer than two values,
            or a combination that no image has; names it.
    """
    held = np.zeros(len(table), np.bool_)
    for combination in combinations:
        y = table.parse(combination)[0]
        named = ~y.isnan()
        if len(combination) < 2 or int(named.sum()) < len(combination):
            raise ConfigurationError(
                f"held-out combination {dict(combination)!r}: expected known values of at least two "
                "attributes"
            )
        for name in combination:
            if table.attributes[table.index(name)].is_continuous:
                raise ConfigurationError(
                    f"held-out combination {dict(combination)!r}: {name!r} is continuous; expected "
                    "attributes with named values"
                )
        matches = (table.values[:, named] == y[named]).all(dim=1).numpy()
        if not matches.any():
            raise ConfigurationError(
                f"held-out combination {dict(combination)!r}: none of the {len(table)} images has it"
            )
        held |= matches
    return held


def _expand(
    images: PreparedImages, wanted: Sequence[str], file: AttributeFile | None
) -> list[tuple[str, str]]:
    """(name, declaration) of each attribute, `ALL` written out."""
    asked = [(name, declared) for name, _, declared in (item.partition(":") for item in wanted)]
    names = [name for name, _ in asked]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not names:
        raise ConfigurationError(
            f"attributes = {list(wanted)!r}: expected at least one name, each once"
        )
    columns = file.columns if file is not None else ()
    listed = dict.fromkeys((*columns, *images.attribute_names))
    if ALL in names and not listed:
        raise ConfigurationError(
            f"attribute {ALL!r}: the data set {images.config.name!r} has no attributes of its own, and "
            "no CSV file is given"
        )
    offered = [*listed, *_derived_names(images)]
    where = f" (also looked for among the columns of {file.path})" if file is not None else ""
    requests = []
    for name, declared in asked:
        if name == ALL:
            requests += [(other, "") for other in listed if other not in names]
            continue
        check_choice(f"attribute{where}", name, offered)
        requests.append((name, declared))
    return requests


def _derived_names(images: PreparedImages) -> list[str]:
    """What a data set offers besides columns and published attributes."""
    labels = [CLASS] if images.class_names else []
    of_digits = list(OF_DIGITS) if images.class_names == DIGITS else []
    return [*labels, *of_digits, *MEASURES]


def _gather_column(
    images: PreparedImages, name: str, declared: str, file: AttributeFile | None
) -> _Column:
    """One attribute and what y holds of it, (N)."""
    training = images.indices("train")
    if file is not None and name in file.columns:
        return encode_column(file, name, declared, training)
    is_measure = name in MEASURES and name not in images.attribute_names
    if declared and not (is_measure and declared == CONTINUOUS):
        expected = f"{name!r} or '{name}:{CONTINUOUS}'" if is_measure else repr(name)
        raise ConfigurationError(f"attribute '{name}:{declared}': expected {expected}")
    if is_measure:
        measured = measure_images(name, images.pixels)
        if declared:
            return standardise(name, measured, training)
        edges = fit_terciles(measured[training], name)
        return Attribute(name, TERCILES[name]), sort_by_terciles(measured, edges)
    if name in images.attribute_names:
        assert images.attributes is not None
        published = np.asarray(images.attributes[:, images.attribute_names.index(name)])
        return Attribute(name, BINARY), published.astype(np.float32)
    labels = images.labels
    assert labels is not None
    known = labels >= 0
    if name == CLASS:
        return Attribute(CLASS, images.class_names), np.where(known, labels, np.nan)
    return Attribute(name, BINARY), np.where(known, OF_DIGITS[name][labels], np.nan)
