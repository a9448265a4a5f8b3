from __future__ import annotations

import numpy as np
import pytest

from condvae.data import DataConfig, prepare_images
from condvae.data.sources import open_source
from condvae.data.splits import official_split
from condvae.ground.configuration import ConfigurationError


def make_config(tmp_path, size=64):
    return DataConfig(
        name="imagenet",
        source=f"imagenet{size}",
        path=str(tmp_path / "raw"),
        image_size=size,
        channels=3,
        split="official",
    )


def check_split(store, counts):
    expected = official_split("imagenet64", counts)
    for split in ("train", "validation", "test"):
        np.testing.assert_array_equal(store.indices(split), np.sort(expected[split]))


@pytest.mark.parametrize("size", [32, 64])
def test_folders_of_pictures(stand_ins, tmp_path, size):
    pixels = stand_ins.imagenet_pictures(tmp_path / "raw", size)
    store = prepare_images(make_config(tmp_path, size), tmp_path / "store")
    np.testing.assert_array_equal(store.pixels, pixels)
    assert store.labels is None
    assert store.records[20].origin == f"valid_{size}x{size}/00001.png"
    check_split(store, [20, 5])


@pytest.mark.parametrize("size", [32, 64])
def test_downsampled_batches_in_the_order_of_their_numbers(stand_ins, tmp_path, size):
    pixels, labels = stand_ins.imagenet_batches(tmp_path / "raw", size)
    store = prepare_images(make_config(tmp_path, size), tmp_path / "store")
    np.testing.assert_array_equal(store.pixels, pixels)
    np.testing.assert_array_equal(store.labels, labels)
    assert store.records[2].origin == "train_data_batch_2.npz[0]"
    assert len(store.class_names) == 1000
    check_split(store, [22, 3])


def test_chosen_rows_are_found_across_batches(stand_ins, tmp_path):
    pixels, _ = stand_ins.imagenet_batches(tmp_path / "raw", 32)
    source = open_source(make_config(tmp_path, 32))
    chosen = [1, 4, 5, 21, 22, 24]
    images = list(source.read(chosen))
    np.testing.assert_array_equal([image.pixels for image in images], pixels[chosen])


def test_a_picture_of_another_size_is_named(stand_ins, tmp_path):
    stand_ins.imagenet_pictures(tmp_path / "raw", 64)
    big = stand_ins.random_pixels(1, 70, 70, 3)
    stand_ins.save_pictures(tmp_path / "raw", ["train_64x64/0000003.png"], big)
    with pytest.raises(ConfigurationError, match=r"70x70 .*\(picture train_64x64/0000003\.png\)"):
        prepare_images(make_config(tmp_path), tmp_path / "store")
    assert list((tmp_path / "store").iterdir()) == []


@pytest.mark.parametrize("missing", ["train_data_batch_4", "val_data", "train_data_batch_1"])
def test_missing_batches_are_named(stand_ins, tmp_path, missing):
    stand_ins.imagenet_batches(tmp_path / "raw", 32)
    (tmp_path / "raw" / f"{missing}.npz").unlink()
    with pytest.raises(ConfigurationError, match=rf"{missing}\.npz"):
        open_source(make_config(tmp_path, 32))


def test_a_missing_part_of_the_pictures_is_named(stand_ins, tmp_path):
    import shutil

    stand_ins.imagenet_pictures(tmp_path / "raw", 32)
    shutil.rmtree(tmp_path / "raw" / "valid_32x32")
    with pytest.raises(ConfigurationError, match=r"valid_32x32'?: no images found"):
        open_source(make_config(tmp_path, 32))


@pytest.mark.parametrize("share", [0.1, 0.6, 0.97])
def test_a_truncated_batch_is_named_and_nothing_is_left(stand_ins, tmp_path, share):
    stand_ins.imagenet_batches(tmp_path / "raw", 32)
    path = tmp_path / "raw" / "train_data_batch_7.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ConfigurationError, match=r"train_data_batch_7\.npz: not a readable npz"):
        prepare_images(make_config(tmp_path, 32), tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"data": np.zeros((2, 3072), np.uint8)}, "no array 'labels'"),
        ({"data": np.zeros((2, 3072)), "labels": [1, 1]}, "type float64"),
        (
            {"data": np.zeros((2, 192), np.uint8), "labels": [1, 1]},
            "shape (2, 192); expected uint8",
        ),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 1]}, "label -1; expected 0 to 999"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [1, 1001]}, "label 1000"),
    ],
)
def test_other_contents_are_refused(stand_ins, tmp_path, arrays, message):
    stand_ins.imagenet_batches(tmp_path / "raw", 32)
    np.savez(tmp_path / "raw" / "train_data_batch_2.npz", **arrays)
    with pytest.raises(ConfigurationError) as error:
        open_source(make_config(tmp_path, 32))
    assert "train_data_batch_2.npz" in str(error.value)
    assert message in str(error.value)


def test_neither_form_is_said(tmp_path):
    (tmp_path / "raw").mkdir()
    with pytest.raises(ConfigurationError, match="neither folders train_64x64 and valid_64x64"):
        open_source(make_config(tmp_path))
