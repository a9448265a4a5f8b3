"""Conditions in words and in numbers are the same; what does not fit is refused by name."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from condvae.ground.attributes import (
    BINARY,
    Attribute,
    AttributeTable,
    check_conditions,
    describe_conditions,
    encode_value,
    parse_condition,
)
from condvae.ground.configuration import ConfigurationError, read_config

NAN = math.nan
ATTRIBUTES = (
    Attribute("class", ("0", "1", "2", "3")),
    Attribute("slant", ("left", "upright", "right")),
    Attribute("odd", BINARY),
    Attribute("age", mean=40.0, std=10.0),
)


@pytest.fixture
def table():
    values = [[3, 2, 1, 0.5], [0, NAN, 0, NAN], [NAN, 1, NAN, -2]]
    return AttributeTable(ATTRIBUTES, torch.tensor(values))


def test_words_become_indices_and_standardised_numbers(table):
    y = table.parse({"class": "3", "slant": "right", "age": 45})
    assert y.dtype == torch.float32
    np.testing.assert_array_equal(y, [[3, 2, NAN, 0.5]])
    np.testing.assert_array_equal(table.code(odd=False, slant="left"), [NAN, 0, 0, NAN])
    np.testing.assert_array_equal(table.parse({}), np.full((1, 4), NAN))
    np.testing.assert_array_equal(table.parse({"slant": None, "age": ""}), np.full((1, 4), NAN))


def test_describing_is_the_inverse_of_parsing(table):
    described = table.describe(table.values)
    assert described[0] == {"class": "3", "slant": "right", "odd": "yes", "age": "45"}
    assert described[1] == {"class": "0", "odd": "no"}
    parsed = torch.cat([parse_condition(ATTRIBUTES, words) for words in described])
    np.testing.assert_array_equal(parsed, table.values)
    assert describe_conditions(ATTRIBUTES, table.values[:0]) == []


@pytest.mark.parametrize(
    ("value", "code"),
    [("no", 0), ("0", 0), (-1, 0), (False, 0), ("Yes", 1), ("1", 1), ("1.0", 1), (True, 1)],
)
def test_spellings_of_binary_values(value, code):
    assert encode_value(Attribute("odd", BINARY), value) == code


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"slent": "right"}, "attribute = 'slent'.*did you mean 'slant'"),
        (
            {"slant": "rihgt"},
            "'slant': unknown value 'rihgt'; expected one of left, upright, right",
        ),
        ({"class": 4}, "'class': unknown value '4'"),
        ({"class": "yes"}, "'class': unknown value 'yes'"),
        ({"odd": "2"}, "'odd': unknown value '2'; expected one of no, yes"),
        ({"age": "old"}, "'age': unknown value 'old'; expected a finite number"),
        ({"age": "inf"}, "'age': unknown value 'inf'"),
    ],
)
def test_unknown_names_and_values_are_refused(table, wanted, message):
    with pytest.raises(ConfigurationError, match=message):
        table.parse(wanted)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (1, 3.0, "'slant' of condition 1 = 3.0: expected 0 to 2, or nan"),
        (1, -1.0, "'slant' of condition 1 = -1.0"),
        (0, 0.5, "'class' of condition 1 = 0.5: expected 0 to 3"),
        (0, math.inf, "'class' of condition 1 = inf"),
        (3, math.inf, "'age' of condition 1 = inf: expected a finite number"),
    ],
)
def test_values_out_of_range_are_refused(table, column, value, message):
    wrong = table.values.clone()
    wrong[1, column] = value
    with pytest.raises(ConfigurationError, match=message):
        AttributeTable(ATTRIBUTES, wrong)


@pytest.mark.parametrize(
    "wrong", [torch.zeros(4), torch.zeros(2, 3), torch.zeros(2, 4, dtype=torch.int64)]
)
def test_other_shapes_and_types_are_refused(wrong):
    with pytest.raises(ConfigurationError, match=r"expected floating point and \(B, 4\)"):
        check_conditions(ATTRIBUTES, wrong)


def test_selection_and_rows(table):
    part = table.select(["odd", "class"])
    assert part.names == ("odd", "class")
    np.testing.assert_array_equal(part.values, table.values[:, [2, 0]])
    np.testing.assert_array_equal(table.rows(np.array([2, 0])), table.values[[2, 0]])
    assert table.rows([]).shape == (0, 4)
    assert (len(table), table.index("odd")) == (3, 2)
    with pytest.raises(ConfigurationError, match="attribute = 'size'"):
        table.select(["size"])


def test_broken_attributes_are_refused(table):
    with pytest.raises(ConfigurationError, match="attributes a, a: expected different names"):
        AttributeTable((Attribute("a"), Attribute("a")), torch.zeros(1, 2))
    with pytest.raises(ConfigurationError, match=r"torch\.float64: expected torch\.float32"):
        AttributeTable(ATTRIBUTES, table.values.double())
    with pytest.raises(ConfigurationError, match=r"'a' with values \('x', 'x'\)"):
        Attribute("a", ("x", "x"))
    with pytest.raises(ConfigurationError, match="std of attribute 'a' = 0"):
        Attribute("a", std=0.0)
    with pytest.raises(ConfigurationError, match="name = ''"):
        Attribute("")


def test_attributes_survive_json():
    for attribute in ATTRIBUTES:
        stored = json.loads(json.dumps(dataclasses.asdict(attribute)))
        assert read_config(Attribute, stored, "attribute") == attribute
