"""Parameters as text: ``--params`` read with the types that the parameters have, and written again.

YAML would make numbers of a folder named 2024 or 0012 and a truth value of one named no, cut a path at
`` #`` and read 0100 as 64. Here a value becomes what its parameter is declared to be and nothing else.
"""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from condvae.ground.configuration import ConfigurationError
from pipelines.parameters.check import SECTIONS, VALUES
from pipelines.parameters.overlay import leaves, override

__all__ = ["read_parameters_text", "write_parameters_text"]

# What follows a comma where another parameter begins.
_NAME = r"[A-Za-z_]\w*(?:\.[^=,]+)?\s*="
_INTEGER = r"[+-]?\d+"
_FLOAT = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?\.?(inf(inity)?|nan)"
_NOTHING = ("", "~", "null")
_TRUTH = {
    **dict.fromkeys(("true", "yes", "on"), True),
    **dict.fromkeys(("false", "no", "off"), False),
}


class _Quoted(str):
    """Text that stands in quotes inside a list or mapping: it is nothing else."""


class _Loader(yaml.BaseLoader):
    """Makes nothing but lists, mappings and text."""

    def construct_scalar(self, node: yaml.ScalarNode) -> str:
        text = str(super().construct_scalar(node))
        return _Quoted(text) if node.style in ("'", '"') else text


def read_parameters_text(text: str) -> dict[str, Any]:
    """Read ``name=value,name=value``; names are dotted, the result is nested.

    A comma ends a value only where another ``name=`` follows, so that paths may hold commas. A value in
    quotes is taken as it stands between them; one in brackets is a list or mapping in YAML's notation.
    Text stays text wherever the parameter is declared as text; where it may be nothing too, ``null`` or
    no value at all is nothing.

    Raises:
        ConfigurationError: An item is no ``name=value``; or a name is given a value and parts.
    """
    found: dict[str, Any] = {}
    for name, value, quoted in _split(text):
        keys = [key.strip() for key in name.split(".")]
        if not all(keys):
            raise ConfigurationError(f"{name!r}: expected a name before '='")
        nested: Any = value if quoted else _convert(value, _hint_of(keys))
        for key in reversed(keys):
            nested = {key: nested}
        found = override(found, nested)
    return found


def write_parameters_text(parameters: Mapping[str, Any]) -> str:
    """The text that `read_parameters_text` makes the same parameters of; empty for none."""
    return ",".join(f"{name}={_write(name, value)}" for name, value in leaves(parameters))


def _split(text: str) -> Iterator[tuple[str, str, bool]]:
    """Names, values and whether these were in quotes."""
    rest = text.strip().rstrip(",")
    while rest:
        name, equals, rest = rest.partition("=")
        if not equals or "," in name:
            raise ConfigurationError(f"{name.split(',')[0].strip()!r}: expected name=value")
        rest = rest.lstrip()
        value, quoted = _take_value(rest)
        rest = rest[len(value) :].lstrip().removeprefix(",").lstrip()
        yield name.strip(), value[1:-1] if quoted else value.strip(), quoted


def _take_value(text: str) -> tuple[str, bool]:
    """The value that `text` begins with, as it is written, and whether it is in quotes."""
    ends = [*(match.start() for match in re.finditer(rf",(?=\s*{_NAME})", text)), len(text)]
    if text[:1] in ("'", '"'):
        for end in ends:
            value = text[:end].rstrip()
            if len(value) > 1 and value[-1] == text[0]:
                return value, True
    if text[:1] in ("[", "{"):  # a comma and a name may be part of it
        for end in ends:
            if _read_collection(text[:end].rstrip()) is not None:
                return text[:end], False
    return text[: ends[0]], False


def _read_collection(text: str) -> list[Any] | dict[str, Any] | None:
    """A list or mapping whose values are text; None where it is neither."""
    if text[:1] not in ("[", "{"):
        return None
    try:
        found = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        return None
    return found if isinstance(found, (list, dict)) else None


def _hint_of(keys: list[str]) -> Any:
    """The declared type of a parameter; `Any` where there is none."""
    if keys[0] == "tasks":  # tasks.<pipeline>.<section>...
        keys = keys[2:]
    if not keys:
        return Any
    hint = SECTIONS.get(keys[0], VALUES.get(keys[0], Any))
    for key in keys[1:]:
        hint = next((part for option in _options(hint) if (part := _part_of(option, key))), Any)
    return hint


def _part_of(hint: Any, key: str) -> Any:
    """The type of what `hint` holds under a key; None where it holds nothing of that name."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return typing.get_type_hints(hint).get(key)
    arguments = typing.get_args(hint)
    return arguments[1] if typing.get_origin(hint) is dict and arguments else None


def _options(hint: Any) -> tuple[Any, ...]:
    """The types of a union, text last: it takes everything."""
    if isinstance(hint, tuple):
        options = hint
    elif typing.get_origin(hint) in (typing.Union, types.UnionType):
        options = typing.get_args(hint)
    else:
        options = (hint,)
    return tuple(sorted(options, key=lambda option: option in (str, Any)))


def _convert(value: Any, hint: Any) -> Any:
    """Text, or a collection of texts, as `hint` says; as it is where it is nothing of the kind."""
    if isinstance(value, _Quoted):
        return str(value)
    for option in _options(hint):
        found = _convert_one(value, option)
        if found is not _NOT_THIS:
            return found
    return value


_NOT_THIS = object()


def _convert_one(value: Any, hint: Any) -> Any:  # noqa: PLR0911 - a case a type
    collection = _read_collection(value) if isinstance(value, str) else value
    if hint is Any:
        return _guess(value, collection)
    if collection is not None and hint is not str:
        return _convert_collection(collection, hint)
    if not isinstance(value, str):
        return _NOT_THIS
    if hint is type(None) and value.lower() in _NOTHING:
        return None
    if hint is bool and value.lower() in _TRUTH:
        return _TRUTH[value.lower()]
    if hint in (int, float) and re.fullmatch(_INTEGER, value):
        return int(value)
    if hint is float and re.fullmatch(_FLOAT, value, re.IGNORECASE):
        return float(value.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return value if hint is str else _NOT_THIS


def _convert_collection(values: Any, hint: Any) -> Any:
    """A list or mapping with its values as the type says."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(values, dict):
        if origin is not dict and hint is not dict and not dataclasses.is_dataclass(hint):
            return _NOT_THIS
        return {key: _convert(value, _part_of(hint, key) or Any) for key, value in values.items()}
    if origin not in (tuple, list):
        return _NOT_THIS
    if len(arguments) == 1 or arguments[1:] == (Ellipsis,):
        arguments = arguments[:1] * len(values)
    return [
        _convert(value, arguments[i] if i < len(arguments) else Any)
        for i, value in enumerate(values)
    ]


def _guess(value: Any, collection: Any) -> Any:
    """A value of a parameter whose type nobody declares; numbers are those written as numbers are."""
    if isinstance(collection, dict):
        return {key: _convert(part, Any) for key, part in collection.items()}
    if isinstance(collection, list):
        return [_convert(part, Any) for part in collection]
    if value in ("true", "false"):
        return value == "true"
    if value in _NOTHING:
        return None
    if re.fullmatch(r"[+-]?0\d.*", value):
        return value
    found = _convert(value, float)
    return value if isinstance(found, float) and found - found != 0 else found


def _write(name: str, value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    if not isinstance(value, str):
        return text
    # Read with another parameter behind it, as it may stand in the command.
    plain = [(name, text, False), ("seed", "0", False)]
    keys = name.split(".")
    safe = list(_split(f"{name}={text},seed=0")) == plain and _convert(text, _hint_of(keys)) == text
    return text if safe else f'"{text}"' if "'" in text else f"'{text}'"
