from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

from condvae.data import DataConfig, open_images, prepare_images
from condvae.data.sources import open_source
from condvae.ground.configuration import ConfigurationError


@pytest.fixture
def config(tmp_path):
    return DataConfig(
        name="celeba64",
        source="celeba",
        path=str(tmp_path / "raw"),
        image_size=64,
        channels=3,
        fit="resize",
        crop=140,
        split="official",
    )


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_pictures_attributes_and_partition(config, stand_ins, tmp_path):
    names, attributes, splits = stand_ins.celeba(tmp_path / "raw")
    store = prepare_images(config, tmp_path / "store")
    assert [record.origin for record in store.records] == [f"img_align_celeba/{n}" for n in names]
    assert [record.split for record in store.records] == splits
    assert store.attributes.dtype == np.uint8
    assert isinstance(store.attributes, np.memmap)
    np.testing.assert_array_equal(store.attributes, attributes)
    assert store.attribute_names == tuple(f"Attribute_{j}" for j in range(40))
    assert store.labels is None
    assert not store.validation_is_test
    again = open_images(tmp_path / "store")
    np.testing.assert_array_equal(again.attributes, attributes)
    assert again.fingerprint == store.fingerprint


def test_layout_of_kaggle_is_the_same_data(config, stand_ins, tmp_path):
    names, attributes, splits = stand_ins.celeba(tmp_path / "raw")
    raw = tmp_path / "raw"
    for name, header in (("list_attr_celeba", None), ("list_eval_partition", ["partition"])):
        lines = [line.split() for line in (raw / f"{name}.txt").read_text().splitlines()]
        _, columns = (lines.pop(0), lines.pop(0)) if header is None else (None, header)
        table = [["image_id", *columns], *lines]
        (raw / f"{name}.csv").write_text("".join(",".join(row) + "\n" for row in table))
        (raw / f"{name}.txt").unlink()
    (raw / "img_align_celeba").rename(raw / "pictures")
    (raw / "img_align_celeba").mkdir()
    (raw / "pictures").rename(raw / "img_align_celeba" / "img_align_celeba")
    store = prepare_images(config, tmp_path / "store")
    assert [record.origin.split("/")[-1] for record in store.records] == names
    assert [record.split for record in store.records] == splits
    assert store.attribute_names == tuple(f"Attribute_{j}" for j in range(40))
    np.testing.assert_array_equal(store.attributes, attributes)


def test_the_cut_is_the_one_of_torchvision(config, stand_ins, tmp_path):
    from torchvision.transforms import CenterCrop

    stand_ins.celeba(tmp_path / "raw")
    noise = stand_ins.random_pixels(218, 178, 3)
    path = tmp_path / "raw" / "img_align_celeba" / "000003.jpg"
    Image.fromarray(noise).save(path, quality=95)
    store = prepare_images(config, tmp_path / "store")
    with Image.open(path) as picture:
        cut = CenterCrop(140)(picture.convert("RGB"))
    expected = np.asarray(cut.resize((64, 64), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(store.pixels[2], expected)
    assert (store.records[2].width, store.records[2].height) == (178, 218)


def test_a_dropped_duplicate_takes_its_attributes_along(config, stand_ins, tmp_path):
    names, attributes, _ = stand_ins.celeba(tmp_path / "raw")
    folder = tmp_path / "raw" / "img_align_celeba"
    (folder / names[5]).write_bytes((folder / names[1]).read_bytes())
    dropped = prepare_images(dataclasses.replace(config, duplicates="drop"), tmp_path / "store")
    np.testing.assert_array_equal(dropped.attributes, np.delete(attributes, 5, axis=0))
    with pytest.raises(ConfigurationError, match=rf"duplicates = 'stop'.*{names[5]} .*{names[1]}"):
        prepare_images(dataclasses.replace(config, duplicates="stop"), tmp_path / "stop")
    assert list((tmp_path / "stop").iterdir()) == []


def test_attributes_change_the_fingerprint(config, stand_ins, tmp_path):
    stand_ins.celeba(tmp_path / "raw")
    first = prepare_images(config, tmp_path / "store")
    path = tmp_path / "raw" / "list_attr_celeba.txt"
    head, rows = path.read_text().split("000001.jpg ")
    path.write_text(head + "000001.jpg " + rows.replace("-1", " 1", 1))
    second = prepare_images(config, tmp_path / "store")
    assert second.images_sha256 == first.images_sha256
    assert second.fingerprint != first.fingerprint


def test_damaged_attributes_are_named(config, stand_ins, tmp_path):
    stand_ins.celeba(tmp_path / "raw")
    prepare_images(config, tmp_path / "store")
    path = tmp_path / "store" / "attributes.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"attributes\.npy does not have the sha256"):
        open_images(tmp_path / "store")


def test_a_set_without_attributes_leaves_none_of_the_one_before(config, stand_ins, tmp_path):
    stand_ins.celeba(tmp_path / "raw")
    prepare_images(config, tmp_path / "store")
    store = prepare_images(DataConfig(limit=60), tmp_path / "store")
    assert store.attributes is None
    assert not (tmp_path / "store" / "attributes.npy").exists()


def test_the_partition_is_needed_for_the_official_split_only(config, stand_ins, tmp_path):
    stand_ins.celeba(tmp_path / "raw")
    (tmp_path / "raw" / "list_eval_partition.txt").unlink()
    assert open_source(dataclasses.replace(config, split="random")).count == 12
    with pytest.raises(ConfigurationError, match=r"list_eval_partition\.txt: no such file"):
        open_source(config)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("list_attr_celeba.txt", "12\n", "13\n", "12 pictures, but its first line says 13"),
        ("list_attr_celeba.txt", "12\n", "", "line 1: expected the number of pictures"),
        ("list_attr_celeba.txt", "000004.jpg", "", "line 6: expected a file name and 40 values"),
        (
            "list_attr_celeba.txt",
            "000004.jpg",
            "000004.jpg 0",
            "line 6: expected a file name and 40",
        ),
        ("list_attr_celeba.txt", "000002.jpg", "000001.jpg", "a picture is listed twice"),
        ("list_attr_celeba.txt", "000002.jpg", "900002.jpg", "1 of the 12 pictures in list_attr"),
        ("list_eval_partition.txt", "000005.jpg 0\n", "", "1 pictures have no line, e.g. 000005"),
        ("list_eval_partition.txt", "000005.jpg 0", "000005.jpg 3", "line 5: expected a file name"),
        ("list_eval_partition.txt", "000005.jpg 0", "000005.jpg", "line 5: expected a file name"),
    ],
)
def test_broken_lists_are_named_and_nothing_is_prepared(
    config, stand_ins, tmp_path, file, old, new, message
):
    stand_ins.celeba(tmp_path / "raw")
    edit(tmp_path / "raw" / file, old, new)
    with pytest.raises(ConfigurationError) as error:
        prepare_images(config, tmp_path / "store")
    assert message in str(error.value)
    assert file in str(error.value)
    assert not (tmp_path / "store").exists()


def test_a_picture_smaller_than_the_cut_is_named(config, stand_ins, tmp_path):
    stand_ins.celeba(tmp_path / "raw")
    small = stand_ins.random_pixels(1, 218, 139, 3)
    stand_ins.save_pictures(tmp_path / "raw" / "img_align_celeba", ["000007.jpg"], small)
    with pytest.raises(ConfigurationError, match=r"crop = 140: a picture of 139x218 .*000007\.jpg"):
        prepare_images(config, tmp_path / "store")
    assert list((tmp_path / "store").iterdir()) == []
