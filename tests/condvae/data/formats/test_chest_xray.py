from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

from condvae.data import DataConfig, prepare_images
from condvae.data.formats.chest_xray import FINDINGS
from condvae.data.sources import open_source
from condvae.ground.configuration import ConfigurationError

TABLE = "Data_Entry_2017_v2020.csv"


@pytest.fixture
def config(tmp_path):
    return DataConfig(
        name="xray",
        source="chest_xray14",
        path=str(tmp_path / "raw"),
        image_size=16,
        channels=3,
        fit="resize",
        split="official",
    )


def test_pictures_findings_and_lists(config, stand_ins, tmp_path):
    pixels, findings, splits = stand_ins.chest_xray(tmp_path / "raw")
    store = prepare_images(config, tmp_path / "store")
    assert [r.split.replace("validation", "train") for r in store.records] == splits
    assert len(store.indices("validation")) == 1
    assert not store.validation_is_test
    assert store.attribute_names == FINDINGS
    for row, text in zip(store.attributes, findings, strict=True):
        present = {name for name, value in zip(FINDINGS, row, strict=True) if value}
        assert present == set(text.split("|")) - {"No Finding"}
    expected = Image.fromarray(pixels[3]).resize((16, 16), Image.Resampling.LANCZOS)
    for channel in range(3):
        np.testing.assert_array_equal(store.pixels[3, ..., channel], np.asarray(expected))


def test_there_are_14_findings_without_repetition():
    assert len(set(FINDINGS)) == 14


def test_pictures_with_transparency_are_read(config, stand_ins, tmp_path):
    # Some of the official files are RGBA.
    pixels, _, _ = stand_ins.chest_xray(tmp_path / "raw", size=16)
    path = tmp_path / "raw" / "images" / "00000001_000.png"
    Image.fromarray(pixels[0]).convert("RGBA").save(path)
    store = prepare_images(config, tmp_path / "store")
    np.testing.assert_array_equal(store.pixels[0, ..., 1], pixels[0])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("No Finding,", "Nothing,", "line 4: Finding Labels 'Nothing'; expected 'No Finding' or"),
        ("No Finding,", "No Finding|Mass,", "line 4: Finding Labels 'No Finding|Mass'"),
        ("Hernia,", ",", "line 5: Finding Labels ''"),
        ("00000002_001.png,Hernia", "00000002_0", "line 5: Image Index '00000002_0'"),
        ("00000002_001.png,Hernia", '"00000002_001.png,Hernia', "not a readable CSV file"),
        ("00000002_001.png", "../../secret.png", "line 5: Image Index '../../secret.png'"),
        ("00000002_001.png", "00000002_000.png", "no picture, or one listed twice"),
        ("00000002_001.png", "00000009_001.png", "1 of the 10 pictures in Data_Entry"),
        ("Finding Labels", "Findings", "no column Finding Labels"),
        ("Hernia", "Her\0nia", TABLE),
    ],
)
def test_broken_rows_are_named_and_nothing_is_prepared(
    config, stand_ins, tmp_path, old, new, message
):
    stand_ins.chest_xray(tmp_path / "raw")
    path = tmp_path / "raw" / TABLE
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigurationError) as error:
        prepare_images(config, tmp_path / "store")
    assert message in str(error.value)
    assert not (tmp_path / "store").exists()


def test_a_table_that_ends_in_the_middle_of_a_row_is_refused(config, stand_ins, tmp_path):
    stand_ins.chest_xray(tmp_path / "raw")
    path = tmp_path / "raw" / TABLE
    text = path.read_text()
    path.write_text(text[: text.rindex("00000005_001.png") + 12])
    with pytest.raises(ConfigurationError, match="line 11: Image Index"):
        open_source(config)


def test_lists_must_part_the_table(config, stand_ins, tmp_path):
    stand_ins.chest_xray(tmp_path / "raw")
    path = tmp_path / "raw" / "test_list.txt"
    names = path.read_text().split()
    for content, message in (
        ([*names, "00000099_000.png"], "1 names are not in Data_Entry_2017_v2020.csv"),
        (names[:-1], "1 of 10 pictures are in no list"),
        ([*names, "00000001_000.png"], "in another list too"),
    ):
        path.write_text("\n".join(content))
        with pytest.raises(ConfigurationError) as error:
            open_source(config)
        assert message in str(error.value)
    path.unlink()
    with pytest.raises(ConfigurationError, match=r"test_list\.txt: no such file"):
        open_source(config)
    assert open_source(dataclasses.replace(config, split="random")).count == 10


def test_a_missing_folder_is_named(config, stand_ins, tmp_path):
    stand_ins.chest_xray(tmp_path / "raw")
    (tmp_path / "raw" / "images").rename(tmp_path / "raw" / "pictures")
    with pytest.raises(ConfigurationError, match="no folder 'images' with the pictures"):
        open_source(config)
