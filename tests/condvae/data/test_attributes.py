"""Attributes of prepared images are what labels, pixels and files say."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from condvae.data import DataConfig, prepare_images
from condvae.data.attributes import gather_attributes, held_out
from condvae.data.measures import TERCILES, measure_images
from condvae.ground.attributes import BINARY, Attribute, AttributeTable
from condvae.ground.configuration import ConfigurationError

NAN = np.nan


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return prepare_images(DataConfig(limit=400), tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def faces(digits):
    """The digits with published attributes in place of labels."""
    attributes = np.random.default_rng(0).integers(0, 2, (len(digits.records), 3), np.uint8)
    names = ("Smiling", "Young", "size")
    return dataclasses.replace(digits, class_names=(), attribute_names=names, attributes=attributes)


@pytest.fixture
def folder(tmp_path):
    """Images of a folder, prepared, and the file names in it."""
    rng = np.random.default_rng(0)
    names = [f"{'ab'[i % 2]}/{i}.png" for i in range(30)]
    for name in names:
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    config = DataConfig(
        name="mine",
        source="image_folder",
        path=str(tmp_path / "pictures"),
        image_size=8,
        channels=3,
    )
    return prepare_images(config, tmp_path / "store"), names


def write_csv(path, header, rows):
    path.write_text("\n".join(",".join(map(str, row)) for row in (header, *rows)))
    return path


def test_labels_and_what_follows_from_them(digits):
    table = gather_attributes(digits, ["odd", "class", "at_least_five"])
    assert table.attributes == (
        Attribute("odd", BINARY),
        Attribute("class", tuple("0123456789")),
        Attribute("at_least_five", BINARY),
    )
    target = load_digits().target
    origins = [int(re.fullmatch(r"digits\[(\d+)\]", r.origin)[1]) for r in digits.records]
    expected = [[target[i] % 2, target[i], target[i] >= 5] for i in origins]
    np.testing.assert_array_equal(table.values, expected)
    assert table.describe(table.values[:1])[0]["class"] == str(target[origins[0]])


@pytest.mark.parametrize("name", TERCILES)
def test_terciles_are_those_of_the_training_split(digits, name):
    table = gather_attributes(digits, [name])
    assert table.attributes == (Attribute(name, TERCILES[name]),)
    thirds, measured = table.values[:, 0].numpy(), measure_images(name, digits.pixels)
    training = digits.indices("train")
    counts = np.bincount(thirds[training].astype(int), minlength=3)
    assert counts.sum() == len(training)
    assert counts.max() - counts.min() <= 2
    for lower, upper in ((0, 1), (1, 2)):
        assert measured[thirds == lower].max() < measured[thirds == upper].min()
    # The other splits lie between the same limits and do not move them.
    pixels = np.array(digits.pixels)
    others = np.concatenate([digits.indices("validation"), digits.indices("test")])
    pixels[others] = pixels[others[0]]
    changed = gather_attributes(dataclasses.replace(digits, pixels=pixels), [name])
    np.testing.assert_array_equal(changed.values[training], table.values[training])


def test_measures_as_numbers(digits):
    table = gather_attributes(digits, ["slant:continuous", "size"])
    slant = table.attributes[0]
    assert (slant.name, slant.is_continuous) == ("slant", True)
    training = digits.indices("train")
    measured = measure_images("slant", digits.pixels)
    assert slant.mean == pytest.approx(measured[training].mean())
    assert slant.std == pytest.approx(measured[training].std())
    np.testing.assert_allclose(
        table.values[:, 0], (measured - slant.mean) / slant.std, rtol=1e-4, atol=1e-5
    )
    assert table.attributes[1].values == TERCILES["size"]


def test_black_images_have_unknown_shape(digits):
    pixels = np.array(digits.pixels)
    pixels[5] = 0
    images = dataclasses.replace(digits, pixels=pixels)
    table = gather_attributes(images, ["class", "slant", "thickness", "size:continuous"])
    assert table.values[5].isnan().tolist() == [False, True, True, True]
    assert int(table.values.isnan().sum()) == 3


def test_published_attributes_come_before_measures(faces):
    table = gather_attributes(faces, ["Young", "size"])
    assert table.attributes == (Attribute("Young", BINARY), Attribute("size", BINARY))
    np.testing.assert_array_equal(table.values, faces.attributes[:, 1:])
    table = gather_attributes(faces, ["all", "brightness", "Young"])
    assert table.names == ("Smiling", "size", "brightness", "Young")
    np.testing.assert_array_equal(table.values[:, [0, 3, 1]], faces.attributes)


def test_columns_of_a_file(folder, tmp_path):
    images, names = folder
    rows = [(name, ("red", "fair")[i % 2], i, i // 15) for i, name in enumerate(names)]
    rows[4] = (names[4], "", 4, "")
    path = write_csv(tmp_path / "it.csv", ("file", "hair", "age", "class"), rows[::-1])
    place = {name: i for i, name in enumerate(names)}
    order = [place[record.origin] for record in images.records]
    table = gather_attributes(images, ["all", "brightness"], path)
    assert table.names == ("hair", "age", "class", "brightness")
    hair, age, chosen, _ = table.attributes
    assert (hair.values, chosen.values) == (("fair", "red"), BINARY)
    ages = np.array(order)[images.indices("train")]
    assert (age.mean, age.std) == (pytest.approx(ages.mean()), pytest.approx(ages.std()))
    for row, i in enumerate(order):
        expected = {"hair": ("red", "fair")[i % 2], "class": ("no", "yes")[i // 15]}
        found = table.describe(table.values)[row]
        assert float(found["age"]) == pytest.approx(i, abs=1e-4)
        assert {k: v for k, v in found.items() if k in expected} == ({} if i == 4 else expected)
    declared = gather_attributes(images, ["hair:red|fair|grey", "class"], path)
    assert declared.attributes[0].values == ("red", "fair", "grey")


@pytest.mark.parametrize(
    ("header", "broken", "wanted", "message"),
    [
        (("file", "hair"), None, "hiar", "columns of .*it.csv.* = 'hiar'.*did you mean 'hair'"),
        (("file", "hair"), ("a/0.png",), "hair", r"line 2: row 'a/0.png' has 1 cells; expected 2"),
        (
            ("file", "hair"),
            ("a/0.jpg", "red"),
            "hair",
            "1 of 30 images have no row, e.g. 'a/0.png'",
        ),
        (("file", "hair"), ("b/1.png", "red"), "hair", "line 3: a second row for 'b/1.png'"),
        (("file", "hair"), ("a/0.png", "rde"), "hair:red|fair", "line 2: .*'hair'.*value 'rde'"),
        (("file", "hair"), None, "hair:continuous", "'hair': unknown value 'red'"),
    ],
)
def test_broken_files_are_refused(folder, tmp_path, header, broken, wanted, message):
    images, names = folder
    rows = [(name, "red") for name in names]
    path = write_csv(tmp_path / "it.csv", header, [broken or rows[0], *rows[1:]])
    with pytest.raises(ConfigurationError, match=message):
        gather_attributes(images, [wanted], path)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (["class", "slent"], "attribute = 'slent': expected one of class, odd.*'slant'"),
        (["all"], "attribute 'all': the data set 'digits' has no attributes of its own"),
        ([], r"attributes = \[\]: expected at least one name"),
        (["class", "class"], r"attributes = \['class', 'class'\].*each once"),
        (["slant", "slant:continuous"], "each once"),
        (["class:continuous"], "attribute 'class:continuous': expected 'class'"),
        (["slant:left|right"], r"'slant:left\|right': expected 'slant' or 'slant:continuous'"),
    ],
)
def test_unknown_requests_are_refused(digits, wanted, message):
    with pytest.raises(ConfigurationError, match=message):
        gather_attributes(digits, wanted)


def test_only_digits_are_odd(digits, faces):
    clothes = dataclasses.replace(digits, class_names=tuple("ABCDEFGHIJ"))
    with pytest.raises(ConfigurationError, match="attribute = 'odd'"):
        gather_attributes(clothes, ["odd"])
    assert gather_attributes(clothes, ["class"]).attributes[0].values == tuple("ABCDEFGHIJ")
    with pytest.raises(ConfigurationError, match="attribute = 'class'"):
        gather_attributes(faces, ["class"])


def test_equal_images_cannot_be_sorted(digits):
    same = dataclasses.replace(digits, pixels=np.repeat(digits.pixels[:1], 400, axis=0))
    with pytest.raises(ConfigurationError, match=r"thickness of .* does not part into thirds"):
        gather_attributes(same, ["thickness"])
    with pytest.raises(ConfigurationError, match=r"'thickness'.*do not differ"):
        gather_attributes(same, ["thickness:continuous"])


def test_held_out_combinations_leave_training(digits):
    table = gather_attributes(digits, ["class", "slant", "thickness"])
    combinations = [
        {"class": 3, "slant": "right"},
        {"class": "2", "thickness": "medium", "slant": "left"},
    ]
    held = held_out(table, combinations)
    assert (held.dtype, held.shape) == (np.bool_, (len(digits.records),))
    words = table.describe(table.values)
    expected = [
        (w["class"], w["slant"]) == ("3", "right")
        or (w["class"], w["thickness"], w["slant"]) == ("2", "medium", "left")
        for w in words
    ]
    np.testing.assert_array_equal(held, expected)
    training = digits.indices("train")
    kept = training[~held[training]]
    assert 0 < len(kept) < len(training)
    for combination in combinations:
        y = table.parse(combination)[0]
        named = ~y.isnan()
        assert not (table.rows(kept)[:, named] == y[named]).all(dim=1).any()
    assert not held_out(table, []).any()


def test_unknown_values_are_held_out_of_nothing():
    attributes = (Attribute("a", ("x", "y")), Attribute("b", BINARY), Attribute("c"))
    values = torch.tensor([[0, 1, 0], [0, NAN, 0], [NAN, 1, 0], [1, 1, NAN]])
    table = AttributeTable(attributes, values)
    assert held_out(table, [{"a": "x", "b": True}]).tolist() == [True, False, False, False]
    assert held_out(table, [{"a": "x", "b": 1}, {"a": "y", "b": "yes"}]).sum() == 2


@pytest.mark.parametrize(
    ("combination", "message"),
    [
        ({"a": "x", "d": "yes"}, "attribute = 'd': expected one of a, b, c"),
        ({"a": "z", "b": "yes"}, "attribute 'a': unknown value 'z'"),
        ({"a": "y", "b": "yes"}, r"combination \{'a': 'y', 'b': 'yes'\}: none of the 2 images"),
        ({"a": "x", "c": 0.5}, "'c' is continuous"),
        ({"a": "x"}, r"\{'a': 'x'\}: expected known values of at least two"),
        ({"a": "x", "b": None}, "expected known values of at least two"),
        ({}, "expected known values of at least two"),
    ],
)
def test_combinations_that_make_no_sense_are_refused(combination, message):
    attributes = (Attribute("a", ("x", "y")), Attribute("b", BINARY), Attribute("c"))
    table = AttributeTable(attributes, torch.tensor([[0, 1, 0.5], [1, 0, 0.5]]))
    with pytest.raises(ConfigurationError, match=message):
        held_out(table, [combination])
