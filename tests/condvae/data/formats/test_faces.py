from __future__ import annotations

import dataclasses
import logging
import tracemalloc

import numpy as np
import pytest

from condvae.data import DataConfig, prepare_images
from condvae.data.sources import open_source
from condvae.data.splits import official_split
from condvae.ground.configuration import ConfigurationError


@pytest.fixture
def config(tmp_path):
    return DataConfig(
        name="ffhq", source="ffhq", path=str(tmp_path / "raw"), image_size=8, channels=3,
        split="official",
    )  # fmt: skip


def save_array(folder, array, name="ffhq-256.npy"):
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / name, array)


@pytest.mark.parametrize("layout", ["pictures", "array", "array_itself"])
def test_every_layout_gives_the_same_store(config, stand_ins, tmp_path, layout):
    if layout == "pictures":
        pixels = stand_ins.ffhq_pictures(tmp_path / "raw")
    else:
        pixels = stand_ins.random_pixels(20, 8, 8, 3)
        save_array(tmp_path / "raw", pixels)
    if layout == "array_itself":
        config = dataclasses.replace(config, path=str(tmp_path / "raw" / "ffhq-256.npy"))
    store = prepare_images(config, tmp_path / "store")
    np.testing.assert_array_equal(store.pixels, pixels)
    expected = official_split("ffhq", [20])
    np.testing.assert_array_equal(store.indices("train"), np.sort(expected["train"]))
    np.testing.assert_array_equal(store.indices("test"), np.sort(expected["test"]))
    np.testing.assert_array_equal(store.indices("validation"), store.indices("test"))
    assert store.validation_is_test
    assert {record.split for record in store.records} == {"train", "test"}


def test_larger_pictures_are_brought_to_size(config, stand_ins, tmp_path):
    from PIL import Image

    pixels = stand_ins.ffhq_pictures(tmp_path / "raw", size=32)
    store = prepare_images(dataclasses.replace(config, fit="resize"), tmp_path / "store")
    expected = Image.fromarray(pixels[7]).resize((8, 8), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(store.pixels[7], np.asarray(expected))


def test_celebahq_takes_both_layouts_but_has_no_official_split(config, stand_ins, tmp_path):
    pixels = stand_ins.random_pixels(60, 8, 8, 3)
    save_array(tmp_path / "raw", pixels, "celebahq.npy")
    config = dataclasses.replace(config, source="celebahq", split="random")
    array = dataclasses.replace(config, path=str(tmp_path / "raw" / "celebahq.npy"))
    np.testing.assert_array_equal(prepare_images(array, tmp_path / "a").pixels, pixels)
    stand_ins.save_pictures(tmp_path / "raw", [f"{i:05d}.png" for i in range(60)], pixels)
    store = prepare_images(config, tmp_path / "b")
    np.testing.assert_array_equal(store.pixels, pixels)
    assert not store.validation_is_test
    stand_ins.save_pictures(tmp_path / "top/CelebAMask-HQ/mask", ["1.png"], pixels[:1])
    stand_ins.save_pictures(tmp_path / "top/CelebAMask-HQ/CelebA-HQ-img", ["0.png"], pixels[:1])
    assert open_source(dataclasses.replace(config, path=str(tmp_path / "top"))).count == 1
    with pytest.raises(ConfigurationError, match="'celebahq' has no published split"):
        dataclasses.replace(config, split="official")


@pytest.mark.parametrize("share", [0.0, 0.05, 0.9])
def test_a_truncated_array_is_named_and_nothing_is_left(config, stand_ins, tmp_path, share):
    save_array(tmp_path / "raw", stand_ins.random_pixels(20, 8, 8, 3))
    path = tmp_path / "raw" / "ffhq-256.npy"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(
        ConfigurationError, match=r"ffhq-256\.npy: (\d+ bytes too short|not a read)"
    ):
        prepare_images(config, tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 8, 8, 3)), "type float64 and shape (3, 8, 8, 3); expected uint8"),
        (np.zeros((3, 3, 8, 8), np.uint8), "shape (3, 3, 8, 8)"),
        (np.asfortranarray(np.zeros((3, 8, 8, 3), np.uint8)), "column by column"),
        (np.array([None, {}]), "holds Python objects, which are never unpickled"),
    ],
)
def test_other_arrays_are_refused(config, tmp_path, array, message):
    save_array(tmp_path / "raw", array)
    with pytest.raises(ConfigurationError) as error:
        open_source(config)
    assert message in str(error.value)


def test_duplicates_are_kept_in_the_official_split_and_reported(
    config, stand_ins, tmp_path, caplog
):
    pixels = stand_ins.random_pixels(20, 8, 8, 3)
    split = official_split("ffhq", [20])
    held_out, first, second = split["test"][0], *split["train"][:2]
    pixels[held_out] = pixels[second] = pixels[first]
    save_array(tmp_path / "raw", pixels)
    with caplog.at_level(logging.WARNING):
        store = prepare_images(config, tmp_path / "store")
    assert len(store.records) == 20
    assert (store.duplicates_kept, store.duplicates_dropped) == (2, 0)
    order = sorted([held_out, first, second])
    across = sum((row == held_out) != (order[0] == held_out) for row in order[1:])
    assert store.duplicates_across_splits == across >= 1
    np.testing.assert_array_equal(store.indices("test"), np.sort(split["test"]))
    assert "kept 2 exact duplicates" in caplog.text
    assert f"{across} of the duplicates are in another split" in caplog.text


def test_memory_does_not_grow_with_the_pixels(config, tmp_path):
    """Twice the pixels cost what their records cost, a small share of the pixels themselves."""

    def peak_bytes(count):
        folder = tmp_path / str(count)
        rng = np.random.default_rng(0)
        save_array(folder, rng.integers(0, 256, (count, 64, 64, 3), dtype=np.uint8))
        sized = dataclasses.replace(config, path=str(folder), image_size=64)
        tracemalloc.start()
        prepare_images(sized, tmp_path / f"store_{count}")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak_bytes(20)  # what is imported and cached once
    few, many = peak_bytes(300), peak_bytes(600)
    record_bytes = (many - few) / 300
    # For the 70,000 pictures of FFHQ-256 that is below 300 MB; their pixels are 13.8 GB.
    assert record_bytes < 4000
    assert few < 300 * 64 * 64 * 3 / 2
