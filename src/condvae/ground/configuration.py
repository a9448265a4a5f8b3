"""Configuration: frozen dataclasses read from mappings; unknown keys and wrong types are refused."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

__all__ = ["ConfigurationError", "check_choice", "check_positive", "check_seed", "read_config"]

T = TypeVar("T")


class ConfigurationError(ValueError):
    """A parameter that is unknown, of the wrong type or out of range; the message names it."""


def check_choice(name: str, value: object, choices: typing.Iterable[object]) -> None:
    """Raise `ConfigurationError` unless `value` is one of `choices`."""
    choices = list(choices)
    if value not in choices:
        expected = ", ".join(map(str, choices))
        close = difflib.get_close_matches(str(value), [str(c) for c in choices], n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ConfigurationError(f"{name} = {value!r}: expected one of {expected}{hint}")


def check_positive(name: str, value: float, *, zero: bool = False) -> None:
    """Raise `ConfigurationError` unless `value` > 0, or >= 0 when `zero` is true."""
    if not (value > 0 or (zero and value == 0)):
        raise ConfigurationError(f"{name} = {value!r}: expected {'>= 0' if zero else '> 0'}")


def check_seed(name: str, value: int) -> None:
    """Raise `ConfigurationError` unless `value` is one that every generator takes, 0 to 2^63 - 1."""
    if not 0 <= value < 2**63:
        raise ConfigurationError(f"{name} = {value!r}: expected 0 to 2^63 - 1")


def read_config(cls: type[T], values: Mapping[str, Any] | None, where: str) -> T:
    """Build the dataclass `cls` from a mapping.

    Integers are taken where floats are expected, lists where tuples are; nothing else is converted.
    Nested dataclasses are read from nested mappings.

    Args:
        cls: A dataclass; its `__post_init__` may check ranges and raise `ConfigurationError`.
        values: Keys and values, `None` for all defaults.
        where: Dotted name of the mapping, for messages (``training``).

    Raises:
        ConfigurationError: Unknown key, missing key, wrong type or value out of range.
    """
    if values is None:
        values = {}
    if not isinstance(values, Mapping):
        raise ConfigurationError(f"{where} = {values!r}: expected a mapping of parameters")
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    arguments = {}
    for key, value in values.items():
        if key not in fields:
            close = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"did you mean {where}.{close[0]}?" if close else f"known: {', '.join(fields)}"
            raise ConfigurationError(f"unknown parameter {where}.{key} ({hint})")
        arguments[key] = _convert(value, hints[key], f"{where}.{key}")
    for key, field in fields.items():
        required = (
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        )
        if required and key not in arguments:
            raise ConfigurationError(f"missing parameter {where}.{key}")
    try:
        return cls(**arguments)
    except ConfigurationError as error:
        message = str(error)
        raise ConfigurationError(
            message if message.startswith(f"{where}.") else f"{where}.{message}"
        ) from None


def _convert(value: Any, hint: Any, where: str) -> Any:  # noqa: PLR0911, PLR0912 - a case a type
    """Check `value` against a type hint; convert int -> float, list -> tuple, mapping -> dataclass."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        errors: dict[bool, str] = {}
        for option in arguments:
            try:
                return _convert(value, option, where)
            except ConfigurationError as error:
                errors.setdefault(dataclasses.is_dataclass(option), str(error))
        # Of a mapping the dataclass says what is wrong with it.
        raise ConfigurationError(
            errors.get(isinstance(value, Mapping)) or next(iter(errors.values()))
        )
    if hint is Any:
        return value
    if hint is type(None):
        if value is None:
            return None
    elif dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return read_config(hint, value, where)
    elif origin is tuple:
        if isinstance(value, (list, tuple)):
            if len(arguments) == 2 and arguments[1] is Ellipsis:
                return tuple(
                    _convert(v, arguments[0], f"{where}[{i}]") for i, v in enumerate(value)
                )
            if len(value) == len(arguments):
                pairs = enumerate(zip(value, arguments, strict=True))
                return tuple(_convert(v, h, f"{where}[{i}]") for i, (v, h) in pairs)
            raise ConfigurationError(f"{where} = {value!r}: expected {len(arguments)} values")
    elif origin is dict or hint is dict:
        if isinstance(value, Mapping):
            if not arguments:
                return dict(value)
            return {str(k): _convert(v, arguments[1], f"{where}.{k}") for k, v in value.items()}
    elif hint is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    elif hint is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    elif isinstance(hint, type) and isinstance(value, hint):
        return value
    name = getattr(hint, "__name__", str(hint)) if origin is None else str(hint)
    if hint is str and isinstance(value, (bool, int, float)):
        name += "; in a file of parameters text that looks like something else stands in quotes"
    raise ConfigurationError(f"{where} = {value!r}: expected {name}")
