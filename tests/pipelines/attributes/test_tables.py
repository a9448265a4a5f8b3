"""Attributes in words are the attributes that were gathered."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch

from condvae.data import DataConfig, prepare_images
from condvae.data.attributes import gather_attributes, held_out
from condvae.ground.attributes import Attribute, AttributeTable
from condvae.ground.configuration import ConfigurationError
from pipelines.attributes.choices import (
    change_attribute,
    choose_conditions,
    choose_hold_out,
    find_ties,
)
from pipelines.attributes.tables import (
    AttributedImages,
    describe_attributes,
    tabulate_attributes,
)
from pipelines.catalog.validation import GXValidator

COMBINATION = {"class": 3, "odd": "yes"}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return prepare_images(DataConfig(limit=60), tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def gathered(images):
    table = gather_attributes(images, ["class", "odd", "size:continuous"])
    table.values[4, :] = torch.nan
    return table, held_out(table, [COMBINATION])


def test_words_and_codes_are_the_same(images, gathered, tmp_path):
    table, held = gathered
    frame = tabulate_attributes(images, table, held)
    assert frame["attribute_class"].iloc[0] == str(images.labels[0])
    assert frame.iloc[4].filter(like="attribute_").isna().all()
    frame.to_parquet(tmp_path / "table.parquet")
    facts = json.loads(json.dumps(describe_attributes(images, table, held, [COMBINATION])))
    known = AttributedImages.read(images, pd.read_parquet(tmp_path / "table.parquet"), facts)
    assert known.table.attributes == table.attributes
    torch.testing.assert_close(known.table.values, table.values, equal_nan=True, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(known.held_out, images.labels == 3)
    assert facts["hold_out"] == [{"class": "3", "odd": "yes"}]
    GXValidator("attributes").validate(frame)


def test_training_sees_nothing_that_is_held_out(images, gathered):
    table, held = gathered
    facts = describe_attributes(images, table, held, [])
    known = AttributedImages.read(images, tabulate_attributes(images, table, held), facts)
    training = known.training_images()
    seen = np.concatenate([training.training_rows, training.validation_rows])
    assert 3 in images.labels[images.indices("train")]
    assert 3 not in images.labels[seen]
    assert not set(seen) & set(images.indices("test"))
    left = sum(facts["held_out"][s] for s in ("train", "validation"))
    assert len(seen) == facts["images"]["train"] + facts["images"]["validation"] - left
    assert known.pixels(np.array([5])).shape == (1, 1, 16, 16)


def test_attributes_of_other_images_are_refused(images, gathered):
    table, held = gathered
    frame = tabulate_attributes(images, table, held)
    facts = describe_attributes(images, table, held, [])
    with pytest.raises(ConfigurationError, match=r"attributes of 60 images with fingerprint ffff"):
        AttributedImages.read(images, frame, {**facts, "data": "f" * 64})
    with pytest.raises(ConfigurationError, match=r"attributes of 59 images"):
        AttributedImages.read(images, frame[1:], facts)


def test_attributes_that_give_each_other_away_are_found():
    attributes = (
        Attribute("class", ("a", "b", "c")),
        Attribute("round", ("no", "yes")),
        Attribute("big", ("no", "yes")),
        Attribute("weight"),
    )
    # `round` is a function of the class; `big` is not, but for the last row, which is unknown.
    rows = [[0, 0, 0], [0, 0, 1], [1, 1, 0], [1, 1, 1], [2, 0, 0], [2, 0, 1], [2, 1, torch.nan]]
    values = torch.tensor([[*row, 0.5] for row in rows[:-1]] + [[2, torch.nan, 1, 0.1]])
    found = find_ties(AttributeTable(attributes, values), np.arange(7))
    assert found == {"class": {"round"}, "round": {"class"}, "big": set(), "weight": set()}


def test_what_a_value_settles_changes_with_it():
    attributes = (
        Attribute("class", ("a", "b", "c")),
        Attribute("round", ("no", "yes")),
        Attribute("big", ("no", "yes")),
    )
    rows = [[0, 0, 0], [0, 0, 1], [1, 1, 0], [1, torch.nan, 1], [2, 0, 0], [2, 0, 1]]
    table, every = AttributeTable(attributes, torch.tensor(rows)), np.arange(6)
    ties = find_ties(table, every)
    y = torch.tensor([[0, 0, 1.0], [2, 0, torch.nan]])
    # Class b is round, whatever was round before; big has nothing to do with either.
    before, after = change_attribute(table, every, y, "class", "b", ties["class"])
    torch.testing.assert_close(before, y, equal_nan=True)
    expected = torch.tensor([[1, 1, 1.0], [1, 1, torch.nan]])
    torch.testing.assert_close(after, expected, equal_nan=True)
    # Two classes are not round: which one it becomes is open, and so unknown on both sides.
    before, after = change_attribute(table, every, y, "round", "no", ties["round"])
    nan = torch.nan
    torch.testing.assert_close(before, torch.tensor([[nan, 0, 1], [nan, 0, nan]]), equal_nan=True)
    torch.testing.assert_close(after, before, equal_nan=True)
    # One is: it becomes that.
    before, after = change_attribute(table, every, y, "round", "yes", ties["round"])
    torch.testing.assert_close(before, y, equal_nan=True)
    torch.testing.assert_close(after, torch.tensor([[1, 1, 1], [1, 1, nan]]), equal_nan=True)
    # Images that do not count settle nothing.
    before, after = change_attribute(table, np.array([0, 4]), y, "class", "b", ties["class"])
    assert after[:, 1].isnan().all()
    assert before[:, 1].isnan().all()


def test_combinations_are_chosen_by_counts():
    names, slants = ("a", "b", "c", "d", "e", "f"), ("left", "right", "none")
    attributes = (
        Attribute("round", ("no", "yes")),
        Attribute("class", names),
        Attribute("slant", slants),
    )
    # Images of each class by slant: of b nothing is between 15 and 50 %; of d two are.
    counts = [(7, 2, 1), (9, 1, 0), (5, 5, 0), (4, 3, 3), (8, 0, 2), (3, 7, 0)]
    rows = [
        [float(c > 2), c, slant]
        for c, own in enumerate(counts)
        for slant, count in enumerate(own)
        for _ in range(count)
    ]
    table = AttributeTable(attributes, torch.tensor(rows))
    found = choose_hold_out(table, np.arange(len(rows)))
    # Of a, c, d, e, f four that are evenly spaced; `round` follows from the class.
    assert found == [
        {"class": "a", "slant": "right"},
        {"class": "c", "slant": "left"},
        {"class": "e", "slant": "none"},
        {"class": "f", "slant": "left"},
    ]
    assert choose_hold_out(table.select(["class", "round"]), np.arange(9)) == []
    assert choose_hold_out(table.select(["class"]), np.arange(9)) == []


def test_conditions_are_what_the_data_set_offers(images):
    digits = ("class", "odd", "at_least_five", "slant", "thickness", "size")
    assert choose_conditions(images, csv=False) == digits
    assert choose_conditions(images, csv=True) == ("all",)
    named = dataclasses.replace(images, class_names=("a", "b"))
    assert choose_conditions(named, csv=False) == ("class", *digits[3:])
    bare = dataclasses.replace(images, class_names=())
    assert choose_conditions(bare, csv=False) == digits[3:]
    faces = dataclasses.replace(bare, attribute_names=("Smiling",))
    assert choose_conditions(faces, csv=False) == ("all",)
