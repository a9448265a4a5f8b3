from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from condvae.ground.configuration import (
    ConfigurationError,
    check_choice,
    check_positive,
    read_config,
)


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5

    def __post_init__(self) -> None:
        check_positive("rate", self.rate)


@dataclass(frozen=True)
class Outer:
    steps: int
    name: str = "a"
    fast: bool = False
    rate: float = 1.0
    limit: float | None = None
    pair: tuple[int, float] = (1, 2.0)
    sizes: tuple[int, ...] = ()
    weights: dict[str, float] = field(default_factory=dict)
    anything: Any = None
    inner: Inner = field(default_factory=Inner)


def read(**values):
    return read_config(Outer, {"steps": 3, **values}, "outer")


def test_defaults_and_whole_mapping():
    assert read() == Outer(3)
    assert read_config(Inner, None, "inner") == Inner()
    full = read(
        name="b",
        fast=True,
        rate=2.5,
        limit=1.0,
        pair=(3, 4.0),
        sizes=(1, 2),
        weights={"x": 1.0},
        anything=[1],
        inner={"rate": 0.25},
    )
    assert full == Outer(
        3, "b", True, 2.5, 1.0, (3, 4.0), (1, 2), {"x": 1.0}, [1], Inner(rate=0.25)
    )


def test_only_these_conversions():
    config = read(rate=2, limit=3, pair=[1, 2], sizes=[4], weights={"x": 1})
    assert isinstance(config.rate, float)
    assert isinstance(config.limit, float)
    assert config.pair == (1, 2.0)
    assert isinstance(config.pair[1], float)
    assert config.sizes == (4,)
    assert isinstance(config.weights["x"], float)


def test_optional_takes_none_and_nothing_else_does():
    assert read(limit=None).limit is None
    with pytest.raises(ConfigurationError, match=r"outer\.rate = None: expected float"):
        read(rate=None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": True}, r"outer\.steps = True: expected int"),
        ({"steps": 3.0}, r"outer\.steps = 3\.0: expected int"),
        ({"steps": "3"}, r"outer\.steps = '3': expected int"),
        ({"rate": True}, r"outer\.rate = True: expected float"),
        ({"rate": "0.1"}, r"outer\.rate = '0\.1': expected float"),
        ({"limit": "no"}, r"outer\.limit = 'no': expected float"),
        ({"fast": 1}, r"outer\.fast = 1: expected bool"),
        ({"fast": "yes"}, r"outer\.fast = 'yes': expected bool"),
        ({"name": 1}, r"outer\.name = 1: expected str; in a file of parameters .* in quotes"),
        ({"pair": [1]}, r"outer\.pair = \[1\]: expected 2 values"),
        ({"pair": [1, "b"]}, r"outer\.pair\[1\] = 'b': expected float"),
        ({"sizes": [1, 2.5]}, r"outer\.sizes\[1\] = 2\.5: expected int"),
        ({"sizes": 4}, r"outer\.sizes = 4: expected tuple"),
        ({"weights": {"x": "y"}}, r"outer\.weights\.x = 'y': expected float"),
        ({"inner": 3}, r"outer\.inner = 3: expected a mapping"),
        ({"inner": {"rate": "fast"}}, r"outer\.inner\.rate = 'fast': expected float"),
        ({"inner": {"rate": -1.0}}, r"^outer\.inner\.rate = -1\.0: expected > 0"),
        (
            {"inner": {"rat": 1.0}},
            r"unknown parameter outer\.inner\.rat \(did you mean outer\.inner\.rate",
        ),
    ],
)
def test_wrong_values_are_named(values, message):
    with pytest.raises(ConfigurationError, match=message):
        read(**values)


def test_unknown_key_suggests_the_nearest_or_lists_all():
    with pytest.raises(ConfigurationError, match=r"outer\.step \(did you mean outer\.steps\?\)"):
        read(step=4)
    with pytest.raises(ConfigurationError, match=r"outer\.zzz \(known: steps, name, fast"):
        read(zzz=4)


def test_missing_key_is_named():
    with pytest.raises(ConfigurationError, match=r"missing parameter outer\.steps"):
        read_config(Outer, {}, "outer")


def test_not_a_mapping():
    with pytest.raises(ConfigurationError, match=r"outer = \[1\]: expected a mapping"):
        read_config(Outer, [1], "outer")


def test_errors_are_value_errors():
    assert issubclass(ConfigurationError, ValueError)


def test_check_choice():
    check_choice("colour", "red", ("red", "blue"))
    with pytest.raises(
        ConfigurationError, match=r"colour = 'blu': .* red, blue \(did you mean 'blue'"
    ):
        check_choice("colour", "blu", ("red", "blue"))
    with pytest.raises(ConfigurationError, match=r"bits = 7: expected one of 5, 8$"):
        check_choice("bits", 7, (5, 8))


@pytest.mark.parametrize("value", [0, -1, -0.5, float("nan")])
def test_check_positive_refuses(value):
    with pytest.raises(ConfigurationError, match=r"n = .*: expected > 0"):
        check_positive("n", value)


def test_check_positive_accepts():
    check_positive("n", 1e-9)
    check_positive("n", 0, zero=True)
    with pytest.raises(ConfigurationError, match=r"n = -1: expected >= 0"):
        check_positive("n", -1, zero=True)
