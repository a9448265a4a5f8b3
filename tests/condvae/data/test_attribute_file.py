"""Files of attributes: what their columns become, and what is refused by name."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from condvae.data.attribute_file import encode_column, open_attribute_file, standardise
from condvae.ground.attributes import BINARY, Attribute
from condvae.ground.configuration import ConfigurationError

ORIGINS = ("a.png", "b/c.png", "d.png", "e.png")
NAN = np.nan


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "attributes.csv"
        path.write_bytes(text.encode())
        return path

    return write


@pytest.fixture
def encode(write):
    """Encode a column of the given cells; the first three images are for training."""

    def encode(*cells, declared=""):
        lines = [f"{origin},{cell}" for origin, cell in zip(ORIGINS, cells, strict=True)]
        file = open_attribute_file(write("\n".join(["file,it", *lines])), ORIGINS)
        return encode_column(file, "it", declared, np.arange(3))

    return encode


def test_rows_come_in_the_order_of_the_images(write):
    path = write("file,hair,age\nd.png,grey,70\n\na.png,, 20\ne.png,red,\nb/c.png, fair ,31\n")
    file = open_attribute_file(path, ORIGINS)
    assert file.columns == ("hair", "age")
    assert file.cells == (("", "20"), ("fair", "31"), ("grey", "70"), ("red", ""))
    assert file.places[:2] == (f"{path}, line 4", f"{path}, line 6")
    assert file.ignored == 0


def test_quotes_marks_of_unicode_and_line_ends_of_windows(write):
    text = '\ufefffile,"hair, colour"\r\na.png,"grey, white"\r\n'
    file = open_attribute_file(write(text), ["a.png"])
    assert (file.columns, file.cells) == (("hair, colour",), (("grey, white",),))


def test_rows_without_an_image_are_counted_and_ignored(write, caplog):
    path = write("file,it\nx.png,1\na.png,2\ny.png,oops\n")
    with caplog.at_level(logging.WARNING, "condvae.data.attribute_file"):
        file = open_attribute_file(path, ["a.png"])
    assert (file.cells, file.ignored) == ((("2",),), 2)
    assert f"{path}: 2 rows belong to no prepared image" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,hair\na.png,red\nb.png\n", r"line 3: row 'b.png' has 1 cells; expected 2"),
        ("file,hair\na.png,red,5\n", r"line 2: row 'a.png' has 3 cells; expected 2"),
        (
            "file,hair\nb.png,fair\na.png,red\nb.png,red\n",
            r"line 4: a second row for 'b.png'; the first is line 2",
        ),
        (
            "file,hair\na.png,red\n",
            r"1 of 2 images have no row, e.g. 'b.png'; the rows have names like 'a.png'",
        ),
        ("file,hair\n", r"2 of 2 images have no row, e.g. 'a.png'$"),
        ("", "empty; expected a header"),
        ("file\na.png\nb.png\n", "header 'file'; expected a column of file names, then"),
        ("file,hair,hair\n", "header 'file, hair, hair'.*different names"),
        ("file,hair,\n", "header 'file, hair, '"),
        ('file,hair\na.png,"red\n', "not a readable CSV file"),
    ],
)
def test_broken_files_are_refused(write, text, message):
    path = write(text)
    with pytest.raises(ConfigurationError, match=message) as caught:
        open_attribute_file(path, ["a.png", "b.png"])
    assert str(path) in str(caught.value)


def test_missing_and_binary_files_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"no\.csv: no such file of attributes"):
        open_attribute_file(tmp_path / "no.csv", ORIGINS)
    (tmp_path / "it.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ConfigurationError, match=r"it\.csv: not a readable CSV file"):
        open_attribute_file(tmp_path / "it.csv", ORIGINS)


@pytest.mark.parametrize(
    ("cells", "codes"),
    [
        (("0", "1", "", "1"), (0, 1, NAN, 1)),
        (("-1", "1", "1", "-1"), (0, 1, 1, 0)),
        (("Yes", "no", "NO", ""), (1, 0, 0, NAN)),
        (("True", "False", "", ""), (1, 0, NAN, NAN)),
        # Software that has no empty integers writes them so.
        (("1.0", "", "0.0", "1.0"), (1, NAN, 0, 1)),
        (("1", "1", "1", "1"), (1, 1, 1, 1)),
    ],
)
def test_binary_columns(encode, cells, codes):
    attribute, found = encode(*cells)
    assert attribute == Attribute("it", BINARY)
    np.testing.assert_array_equal(found, codes)


@pytest.mark.parametrize(
    ("cells", "values", "codes"),
    [
        (("red", "fair", "", "grey"), ("fair", "grey", "red"), (2, 0, NAN, 1)),
        (("red", "fair", "n/a", "Unknown"), ("fair", "red"), (1, 0, NAN, NAN)),
        (("yes", "no", "perhaps", "no"), ("no", "perhaps", "yes"), (2, 0, 1, 0)),
        # Two numbers are names, unless they are those of a binary attribute.
        (("2", "7", "2", ""), ("2", "7"), (0, 1, 0, NAN)),
        (("0", "-1", "0", "0"), ("-1", "0"), (1, 0, 1, 1)),
        (("1", "2", "many", "1"), ("1", "2", "many"), (0, 1, 2, 0)),
    ],
)
def test_categorical_columns(encode, cells, values, codes):
    attribute, found = encode(*cells)
    assert attribute == Attribute("it", values)
    np.testing.assert_array_equal(found, codes)


def test_more_than_two_numbers_are_continuous(encode):
    attribute, found = encode("10", "", "20", "1e2")
    assert attribute == Attribute("it", mean=15.0, std=5.0)
    np.testing.assert_allclose(found, [-1, NAN, 1, 17])


def test_two_numbers_are_continuous_on_request(encode):
    attribute, found = encode("0", "1", "", "1", declared="continuous")
    assert attribute == Attribute("it", mean=0.5, std=0.5)
    np.testing.assert_allclose(found, [-1, 1, NAN, 1])


@pytest.mark.parametrize(
    ("cells", "declared", "known"),
    [
        (("10", "NaN", "20", "30"), "", (10, None, 20, 30)),
        (('"1,5"', '"3,5"', "", "4"), "", (1.5, 3.5, None, 4)),
        (("-1", "0", "1", "2"), "continuous?-1", (None, 0, 1, 2)),
        (("-1", "0", "1", "2"), "continuous", (-1, 0, 1, 2)),
        (("-999", "0.5", "1.5", "-2"), "?-999", (None, 0.5, 1.5, -2)),
        # As in any data: numbers below zero, none of them alone on its side.
        (("-1", "-0.5", "0.5", "1"), "", (-1, -0.5, 0.5, 1)),
        (("96", "97", "98", "99"), "", (96, 97, 98, 99)),
    ],
)
def test_numbers_and_what_stands_for_unknown(encode, cells, declared, known):
    attribute, found = encode(*cells, declared=declared)
    assert attribute.is_continuous
    expected = [NAN if number is None else number for number in known]
    np.testing.assert_allclose(found * attribute.std + attribute.mean, expected)


def test_codes_for_unknown_beside_names_of_values(encode):
    attribute, found = encode("-1", "0", "1", "1", declared="no|yes?-1")
    assert attribute == Attribute("it", BINARY)
    np.testing.assert_array_equal(found, [NAN, 0, 1, 1])
    attribute, found = encode("a", "refused", "b", "x", declared="?refused|x")
    assert attribute == Attribute("it", ("a", "b"))
    # A word for a missing value is a value where it is declared as one.
    attribute, found = encode("none", "one", "none", "na", declared="none|one")
    np.testing.assert_array_equal(found, [0, 1, 0, NAN])


def test_what_a_column_was_taken_for_is_logged(encode, caplog):
    with caplog.at_level(logging.INFO, "condvae.data.attribute_file"):
        encode("red", "fair", "NA", "red")
        encode("1", "2", "3", "", declared="continuous")
    assert (
        "column 'it' found: categorical, 2 values: red (2), fair (1); unknown: 'NA' (1)"
        in caplog.text
    )
    assert "column 'it' declared: continuous, 1 to 3; unknown: '' (1)" in caplog.text


def test_declared_values_keep_their_order(encode):
    attribute, found = encode("3", "1", "", "2", declared="3|2|1|0")
    assert attribute == Attribute("it", ("3", "2", "1", "0"))
    np.testing.assert_array_equal(found, [0, 2, NAN, 1])


@pytest.mark.parametrize(
    ("cells", "declared", "message"),
    [
        (
            ("red", "fair", "rde", ""),
            "fair|red",
            r"line 4: attribute 'it': unknown value 'rde'; expected one of fair, red",
        ),
        (
            ("1", "2", "3", "4 years"),
            "continuous",
            r"line 5: attribute 'it': unknown value '4 years'; expected a finite number",
        ),
        (
            ("1", "2", "old", "4"),
            "",
            r"column 'it' holds numbers and the unknown value 'old'.*"
            r"'it:continuous\?old'.*'it:1\|2\|4\|...'",
        ),
        (("-1", "0", "1", "1"), "", r"holds -1 beside 0 to 1: a number, or a code for unknown\?"),
        (("-999", "0.5", "1.5", "-2"), "", r"holds -999 beside -2 to 1\.5.*'it:continuous\?-999'"),
        (("20", "31", "99", "7"), "", "holds 99 beside 7 to 31"),
        (('"1,500"', '"2,250"', "", ""), "", "holds '1,500': thousands or a decimal comma"),
        (("0", "1", "2", "x"), "", r"the unknown value 'x'"),
        (("1", "1", "0", "2"), "no|yes", r"line 5: attribute 'it': unknown value '2'"),
        (("", "", "", ""), "", "column 'it' holds no value"),
        (("5", "5", "", "7"), "continuous", "attribute 'it': the 2 values known of training"),
        (("", "", "", "7"), "continuous", "attribute 'it': the 0 values known of training"),
        (("a", "b", "a", "b"), "a|b|a", "attribute 'it' with values"),
    ],
)
def test_what_does_not_fit_is_refused(encode, cells, declared, message):
    with pytest.raises(ConfigurationError, match=message):
        encode(*cells, declared=declared)


def test_standardised_numbers_have_the_moments_of_the_training_images():
    numbers = np.random.default_rng(0).normal(3, 7, 50)
    numbers[::9] = NAN
    training = np.arange(10, 40)
    attribute, codes = standardise("it", numbers, training)
    np.testing.assert_allclose(np.nanmean(codes[training]), 0, atol=1e-12)
    np.testing.assert_allclose(np.nanstd(codes[training]), 1)
    np.testing.assert_allclose(codes * attribute.std + attribute.mean, numbers)
    with pytest.raises(ConfigurationError, match="do not differ"):
        standardise("it", np.full(50, 0.1), training)
