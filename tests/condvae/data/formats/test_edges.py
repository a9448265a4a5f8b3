from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

from condvae.data import DataConfig, open_images, prepare_images
from condvae.data.sources import open_source
from condvae.ground.configuration import ConfigurationError


def make_config(tmp_path, name="edges2shoes", size=16):
    return DataConfig(
        name=name,
        source=name,
        path=str(tmp_path / "raw"),
        image_size=size,
        channels=3,
        fit="resize",
        split="official",
    )


@pytest.mark.parametrize("name", ["edges2shoes", "edges2handbags"])
def test_the_right_half_is_the_image_the_left_its_condition(stand_ins, tmp_path, name):
    drawings, photos = stand_ins.edges(tmp_path / "raw", name, train=12)
    store = prepare_images(make_config(tmp_path, name), tmp_path / "store")
    np.testing.assert_array_equal(store.pixels, photos)
    np.testing.assert_array_equal(store.condition, drawings)
    assert isinstance(store.condition, np.memmap)
    assert store.records[0].origin == "train/10_AB.png"
    last = np.random.RandomState(42).permutation(12)[-1]
    np.testing.assert_array_equal(store.indices("validation"), [last])
    np.testing.assert_array_equal(store.indices("train"), np.delete(np.arange(12), last))
    np.testing.assert_array_equal(store.indices("test"), [12, 13])
    np.testing.assert_array_equal(open_images(tmp_path / "store").condition, drawings)


def test_both_halves_are_resized_alike(stand_ins, tmp_path):
    drawings, photos = stand_ins.edges(tmp_path / "raw", "edges2shoes", size=32)
    store = prepare_images(make_config(tmp_path), tmp_path / "store")
    for stored, whole in ((store.pixels, photos), (store.condition, drawings)):
        expected = Image.fromarray(whole[0]).resize((16, 16), Image.Resampling.LANCZOS)
        np.testing.assert_array_equal(stored[0], np.asarray(expected))


def test_the_drawing_decides_the_fingerprint_too(stand_ins, tmp_path):
    stand_ins.edges(tmp_path / "raw", "edges2shoes")
    first = prepare_images(make_config(tmp_path), tmp_path / "store")
    path = tmp_path / "raw" / "edges2shoes" / "train" / "1_AB.png"
    with Image.open(path) as picture:
        pixels = np.array(picture)
    pixels[0, 0] ^= 255
    Image.fromarray(pixels).save(path)
    second = prepare_images(make_config(tmp_path), tmp_path / "store")
    assert second.images_sha256 == first.images_sha256
    assert second.fingerprint != first.fingerprint


def test_another_shape_is_refused_or_skipped(stand_ins, tmp_path):
    stand_ins.edges(tmp_path / "raw", "edges2shoes")
    square = stand_ins.random_pixels(1, 16, 16, 3)
    stand_ins.save_pictures(tmp_path / "raw" / "edges2shoes", ["train/2_AB.png"], square)
    config = make_config(tmp_path)
    with pytest.raises(ConfigurationError, match=r"2_AB\.png: 16x16 .*side by side, 32x16"):
        prepare_images(config, tmp_path / "store")
    assert list((tmp_path / "store").iterdir()) == []
    store = prepare_images(dataclasses.replace(config, unreadable="skip"), tmp_path / "store")
    assert store.unreadable_skipped == ("train/2_AB.png",)
    assert len(store.pixels) == len(store.condition) == 7


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_missing_folder_is_named(stand_ins, tmp_path, part):
    import shutil

    stand_ins.edges(tmp_path / "raw", "edges2shoes")
    shutil.rmtree(tmp_path / "raw" / "edges2shoes" / part)
    with pytest.raises(ConfigurationError, match=rf"edges2shoes/{part}'?: no images found"):
        open_source(make_config(tmp_path))
