"""Attributes of images between the library's codes and a table in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from condvae.cvae.training import TrainingImages
from condvae.data.store import PreparedImages
from condvae.ground.attributes import BINARY, Attribute, AttributeTable
from condvae.ground.configuration import ConfigurationError, read_config
from condvae.ground.images import to_nchw
from pipelines.catalog.validation import ATTRIBUTE

__all__ = ["AttributedImages", "describe_attributes", "tabulate_attributes"]


@dataclass(frozen=True)
class AttributedImages:
    """Prepared images with what is known of them.

    Attributes:
        images: N images.
        table: Their attributes.
        held_out: bool (N,), what training is not to see.
    """

    images: PreparedImages
    table: AttributeTable
    held_out: NDArray[np.bool_]

    @classmethod
    def read(
        cls, images: PreparedImages, frame: pd.DataFrame, facts: Mapping[str, Any]
    ) -> AttributedImages:
        """Take attributes from the table in words and their description.

        Raises:
            ConfigurationError: They are of other images.
        """
        if facts["data"] != images.fingerprint or len(frame) != len(images.records):
            raise ConfigurationError(
                f"attributes of {len(frame)} images with fingerprint {facts['data'][:12]}: expected "
                f"those of {images.folder}, {len(images.records)} images with fingerprint "
                f"{images.fingerprint[:12]}; run the pipeline from its first node"
            )
        attributes = tuple(
            read_config(Attribute, a, f"attributes[{i}]") for i, a in enumerate(facts["attributes"])
        )
        codes = [_encode(frame[ATTRIBUTE + a.name], a) for a in attributes]
        values = torch.from_numpy(np.stack(codes, axis=1))
        return cls(images, AttributeTable(attributes, values), frame["held_out"].to_numpy(bool))

    def rows(self, split: str) -> NDArray[np.int64]:
        """Rows of a split, those that are held out included."""
        return self.images.indices(split)

    def pixels(self, rows: NDArray[np.int64]) -> Tensor:
        """uint8 (B,C,H,W) of some rows."""
        return to_nchw(torch.from_numpy(np.ascontiguousarray(self.images.pixels[rows])))

    def training_images(self) -> TrainingImages:
        """What a model is trained on and chosen by: nothing that is held out, nothing of the test."""
        training, validation = (
            rows[~self.held_out[rows]] for rows in (self.rows("train"), self.rows("validation"))
        )
        return TrainingImages(
            self.images.pixels, self.table, training, validation, self.images.fingerprint
        )


def tabulate_attributes(
    images: PreparedImages, table: AttributeTable, held_out: NDArray[np.bool_]
) -> pd.DataFrame:
    """One row per image: ``row``, ``split``, ``held_out``, and ``attribute_<name>`` in words.

    Continuous attributes are numbers in their own unit; unknown values are missing.
    """
    columns: dict[str, Any] = {
        "row": [record.row for record in images.records],
        "split": [record.split for record in images.records],
        "held_out": held_out,
    }
    for place, attribute in enumerate(table.attributes):
        codes = table.values[:, place].double().numpy()
        if attribute.is_continuous:
            columns[ATTRIBUTE + attribute.name] = codes * attribute.std + attribute.mean
        else:
            names = [None if np.isnan(c) else attribute.values[int(c)] for c in codes]
            columns[ATTRIBUTE + attribute.name] = pd.array(names, dtype="str")
    return pd.DataFrame(columns)


def describe_attributes(
    images: PreparedImages,
    table: AttributeTable,
    held_out: NDArray[np.bool_],
    combinations: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """What the table in words does not say, as a JSON value."""
    splits = {name: images.indices(name) for name in ("train", "validation", "test")}
    return {
        "data": images.fingerprint,
        "attributes": [asdict(attribute) for attribute in table.attributes],
        "found": [_count_values(table, place) for place in range(len(table.attributes))],
        "hold_out": [{name: str(value) for name, value in c.items()} for c in combinations],
        "images": {name: len(rows) for name, rows in splits.items()},
        "held_out": {name: int(held_out[rows].sum()) for name, rows in splits.items()},
    }


def _count_values(table: AttributeTable, place: int) -> dict[str, Any]:
    """What an attribute was taken for, and how many images have which value."""
    attribute, codes = table.attributes[place], table.values[:, place].double()
    known = codes[~codes.isnan()]
    kind = "binary" if attribute.values == BINARY else "categorical"
    kind = "continuous" if attribute.is_continuous else kind
    facts = {"name": attribute.name, "type": kind, "unknown": len(codes) - len(known)}
    if attribute.is_continuous:
        numbers = known * attribute.std + attribute.mean
        return facts | {"smallest": numbers.min().item(), "largest": numbers.max().item()}
    counts = torch.bincount(known.long(), minlength=len(attribute.values)).tolist()
    return facts | {"values": dict(zip(attribute.values, counts, strict=True))}


def _encode(column: pd.Series[Any], attribute: Attribute) -> NDArray[np.float32]:
    if attribute.is_continuous:
        numbers = column.to_numpy(np.float64)
        return ((numbers - attribute.mean) / attribute.std).astype(np.float32)
    places = {name: float(place) for place, name in enumerate(attribute.values)}
    return column.map(places).to_numpy(np.float32)
