"""What is known of images in words: attributes, their values, and conditions y made of them.

A condition y is float32 (B,A): of a categorical attribute the index of its value, of a continuous
one its standardised value, nan where it is unknown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from condvae.ground.configuration import ConfigurationError, check_choice, check_positive

__all__ = [
    "BINARY",
    "Attribute",
    "AttributeTable",
    "attribute_index",
    "check_conditions",
    "describe_conditions",
    "encode_value",
    "parse_condition",
]

BINARY = ("no", "yes")
"""Values of a binary attribute."""
_SPELLINGS = {
    **dict.fromkeys(("no", "false", "0", "0.0", "-1", "-1.0"), "no"),
    **dict.fromkeys(("yes", "true", "1", "1.0"), "yes"),
}


@dataclass(frozen=True)
class Attribute:
    """One attribute of images. As a mapping it is read back by `read_config`.

    Attributes:
        name: Of the attribute.
        values: Names of its values, in the order of their indices; () of a continuous attribute.
        mean: Of a continuous attribute over the training images, in its own unit.
        std: Standard deviation, likewise; y holds ``(value - mean) / std``.
    """

    name: str
    values: tuple[str, ...] = ()
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if not self.name:
            raise ConfigurationError("name = '': expected the name of an attribute")
        if len(set(self.values)) < len(self.values) or "" in self.values:
            raise ConfigurationError(
                f"attribute {self.name!r} with values {self.values!r}: expected different names"
            )
        check_positive(f"std of attribute {self.name!r}", self.std)

    @property
    def is_continuous(self) -> bool:
        """Whether its values are numbers."""
        return not self.values


@dataclass(frozen=True)
class AttributeTable:
    """Attributes of the N images of a data set.

    Attributes:
        attributes: A of them.
        values: float32 (N,A), one condition per image.
    """

    attributes: tuple[Attribute, ...]
    values: Tensor

    def __post_init__(self) -> None:
        names = self.names
        if len(set(names)) < len(names):
            raise ConfigurationError(f"attributes {', '.join(names)}: expected different names")
        if self.values.dtype != torch.float32:
            raise ConfigurationError(f"values of type {self.values.dtype}: expected torch.float32")
        check_conditions(self.attributes, self.values)

    def __len__(self) -> int:
        """N."""
        return len(self.values)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the attributes."""
        return tuple(attribute.name for attribute in self.attributes)

    def index(self, name: str) -> int:
        """Column of an attribute; an unknown name is refused."""
        return attribute_index(self.attributes, name)

    def select(self, names: Sequence[str]) -> AttributeTable:
        """Return some of the attributes, in the order given."""
        columns = [self.index(name) for name in names]
        return AttributeTable(
            tuple(self.attributes[column] for column in columns), self.values[:, columns]
        )

    def rows(self, rows: NDArray[np.int64] | Sequence[int]) -> Tensor:
        """Conditions of some images, float32 (B,A).

        Args:
            rows: (B,) numbers of the images.
        """
        return self.values[torch.as_tensor(np.asarray(rows, np.int64))]

    def code(self, **wanted: object) -> Tensor:
        """Condition of named values, float32 (A,); see `parse_condition`."""
        return self.parse(wanted)[0]

    def parse(self, wanted: Mapping[str, object]) -> Tensor:
        """Condition of named values, float32 (1,A); see `parse_condition`."""
        return parse_condition(self.attributes, wanted)

    def describe(self, y: Tensor) -> list[dict[str, str]]:
        """Names of the values in y (B,A); see `describe_conditions`."""
        return describe_conditions(self.attributes, y)


def attribute_index(attributes: Sequence[Attribute], name: str) -> int:
    """Return the place of an attribute.

    Raises:
        ConfigurationError: There is none of that name.
    """
    names = [attribute.name for attribute in attributes]
    check_choice("attribute", name, names)
    return names.index(name)


def encode_value(attribute: Attribute, value: object) -> float:
    """Turn a value in words into the number that y holds.

    Args:
        attribute: Whose value it is.
        value: Name of a value, or a number in the attribute's own unit; `None` and "" are unknown.
            Of an attribute with the values `BINARY` also 0, -1, false (no) and 1, true (yes).

    Returns:
        Index or standardised value; nan for unknown.

    Raises:
        ConfigurationError: Not a value of this attribute.
    """
    text = "" if value is None else str(value).strip()
    if not text:
        return math.nan
    if attribute.is_continuous:
        return (_read_number(attribute, text) - attribute.mean) / attribute.std
    if attribute.values == BINARY:
        text = _SPELLINGS.get(text.lower(), text)
    if text not in attribute.values:
        raise ConfigurationError(
            f"attribute {attribute.name!r}: unknown value {str(value)!r}; expected one of "
            f"{', '.join(attribute.values)}"
        )
    return float(attribute.values.index(text))


def parse_condition(attributes: Sequence[Attribute], wanted: Mapping[str, object]) -> Tensor:
    """Turn named values into a condition.

    Args:
        attributes: A of them.
        wanted: Value by attribute name, see `encode_value`; those left out are unknown.

    Returns:
        float32 (1,A).

    Raises:
        ConfigurationError: Unknown attribute or value; names it.
    """
    y = torch.full((1, len(attributes)), math.nan, dtype=torch.float32)
    for name, value in wanted.items():
        column = attribute_index(attributes, name)
        y[0, column] = encode_value(attributes[column], value)
    return y


def describe_conditions(attributes: Sequence[Attribute], y: Tensor) -> list[dict[str, str]]:
    """Turn conditions into named values; the inverse of `parse_condition`.

    Args:
        attributes: A of them.
        y: (B,A).

    Returns:
        B mappings from attribute name to value, without the unknown ones. Continuous values are in
        the attribute's own unit, to six significant digits.
    """
    check_conditions(attributes, y)
    return [
        {
            attribute.name: _name_value(attribute, code)
            for attribute, code in zip(attributes, row, strict=True)
            if not math.isnan(code)
        }
        for row in y.tolist()
    ]


def check_conditions(attributes: Sequence[Attribute], y: Tensor) -> None:
    """Refuse what is not a condition on these attributes.

    Args:
        attributes: A of them.
        y: Floating-point (B,A).

    Raises:
        ConfigurationError: Another shape or type, an index out of range or an infinite value; names
            the attribute and the value.
    """
    if y.ndim != 2 or y.shape[1] != len(attributes) or not y.is_floating_point():
        raise ConfigurationError(
            f"conditions of type {y.dtype} and shape {tuple(y.shape)}: expected floating point and "
            f"(B, {len(attributes)}), one column per attribute"
        )
    counts = torch.tensor([len(a.values) or math.inf for a in attributes], device=y.device)
    continuous = counts.isinf()
    fits = torch.where(continuous, y.isfinite(), (y >= 0) & (y < counts) & (y == y.floor()))
    # One look at the result: on an accelerator each costs a wait.
    wrong = ~(fits | y.isnan())
    if not wrong.any():
        return
    row, column = wrong.nonzero()[0].tolist()
    attribute = attributes[column]
    expected = "a finite number" if attribute.is_continuous else f"0 to {len(attribute.values) - 1}"
    raise ConfigurationError(
        f"attribute {attribute.name!r} of condition {row} = {y[row, column].item()!r}: expected "
        f"{expected}, or nan for unknown"
    )


def _read_number(attribute: Attribute, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ConfigurationError(
            f"attribute {attribute.name!r}: unknown value {text!r}; expected a finite number"
        )
    return number


def _name_value(attribute: Attribute, code: float) -> str:
    if attribute.is_continuous:
        return f"{code * attribute.std + attribute.mean:.6g}"
    return attribute.values[int(code)]
