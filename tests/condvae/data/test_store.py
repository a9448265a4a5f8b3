from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import re

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from condvae.data import DataConfig, image_sha256, open_images, prepare_images
from condvae.ground.configuration import ConfigurationError

SPLITS = ("train", "validation", "test")


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (60, 5, 4, 3), dtype=np.uint8)


@pytest.fixture
def config(tmp_path, images):
    np.savez(tmp_path / "source.npz", images=images, labels=np.arange(60) % 3)
    return DataConfig(
        name="noise", source="npz", path=str(tmp_path / "source.npz"), image_size=6, channels=3
    )


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "store" / "noise"


def stamps(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_digits_are_enlarged_by_pillow_bicubic(tmp_path):
    store = prepare_images(DataConfig(limit=100), tmp_path)
    assert store.pixels.shape == (100, 16, 16, 1)
    assert store.pixels.dtype == np.uint8
    digits = load_digits()
    for record in store.records[::10]:
        i = int(re.fullmatch(r"digits\[(\d+)\]", record.origin)[1])
        small = np.array([[round(v * 255 / 16) for v in row] for row in digits.images[i]], np.uint8)
        expected = Image.fromarray(small).resize((16, 16), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(store.pixels[record.row, ..., 0], np.asarray(expected))
        assert record.label == digits.target[i]
        assert (record.width, record.height) == (8, 8)


def test_pixels_records_and_labels_agree(config, folder, images):
    store = prepare_images(config, folder)
    assert isinstance(store.pixels, np.memmap)
    assert not store.pixels.flags.writeable
    assert [record.row for record in store.records] == list(range(60))
    for record, pixels in zip(store.records, store.pixels, strict=True):
        assert record.sha256 == image_sha256(pixels)
        np.testing.assert_array_equal(pixels[:5, 1:5], images[record.row])
        assert not pixels[5].any()
        assert (record.width, record.height, record.mode) == (4, 5, "RGB")
        np.testing.assert_allclose(record.mean, pixels.reshape(-1, 3).mean(axis=0))
    np.testing.assert_array_equal(store.labels, np.arange(60) % 3)
    assert store.labels.dtype == np.int64
    assert store.class_names == ("0", "1", "2")


def test_the_splits_are_a_partition(config, folder):
    store = prepare_images(config, folder)
    rows = [store.indices(split) for split in SPLITS]
    assert all(part.dtype == np.int64 and len(part) for part in rows)
    np.testing.assert_array_equal(np.sort(np.concatenate(rows)), np.arange(60))
    with pytest.raises(ConfigurationError, match=r"split = 'tset'.*did you mean 'test'"):
        store.indices("tset")


def test_adding_pictures_moves_none(config, folder, images, tmp_path):
    before = {r.sha256: r.split for r in prepare_images(config, folder).records}
    more = np.concatenate([images[::-1], 255 - images])
    np.savez(config.path, images=more)
    after = {r.sha256: r.split for r in prepare_images(config, folder).records}
    assert len(after) == 120
    assert {key: after[key] for key in before} == before


def test_training_moments_are_those_of_the_training_pixels(config, folder, monkeypatch):
    monkeypatch.setattr("condvae.data.store.MOMENT_ROWS", 7)
    store = prepare_images(config, folder)
    values = np.asarray(store.pixels)[store.indices("train")].astype(np.float64)
    assert store.training_moments() == pytest.approx((values.mean(), values.std()), rel=1e-12)


def test_duplicates_are_dropped_counted_and_named(config, folder, images, caplog):
    repeated = np.concatenate([images, images[[3, 4]], images[[3]]])
    np.savez(config.path, images=repeated)
    with caplog.at_level(logging.WARNING):
        store = prepare_images(config, folder)
    assert store.duplicates_dropped == 3
    assert len(store.records) == len(store.pixels) == 60
    assert store.pixels.shape == np.load(folder / "images.npy").shape
    assert "images[60] = images[3]" in caplog.text
    assert json.loads((folder / "meta.json").read_text())["duplicates_dropped"] == 3
    assert open_images(folder).duplicates_dropped == 3


def test_a_data_set_without_labels_has_none(config, folder, images):
    np.savez(config.path, images=images)
    store = prepare_images(config, folder)
    assert store.labels is None
    assert store.class_names == ()


def test_the_subset_is_random_and_seeded(config, tmp_path, images):
    # Sorted by class, so the first rows would all be of one class.
    np.savez(config.path, images=images, labels=np.arange(60) // 20)
    origins = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        limited = dataclasses.replace(config, limit=30, seed=seed)
        store = prepare_images(limited, tmp_path / name)
        assert len(store.records) == 30
        assert set(store.labels) == {0, 1, 2}
        origins[name] = [record.origin for record in store.records]
    assert origins["a"] == origins["b"]
    assert origins["a"] != origins["c"]


def test_a_limit_beyond_the_source_takes_all(config, folder):
    assert len(prepare_images(dataclasses.replace(config, limit=999), folder).records) == 60


def test_progress_counts_all_pictures_read(config, folder):
    calls = []
    prepare_images(config, folder, lambda done, total: calls.append((done, total)))
    assert calls == [(i, 60) for i in range(1, 61)]


def test_preparing_again_rewrites_nothing(config, folder):
    first = prepare_images(config, folder)
    before = stamps(folder)
    assert set(before) == {"images.npy", "records.json", "meta.json"}
    second = prepare_images(config, folder)
    assert stamps(folder) == before
    assert (second.records, second.fingerprint) == (first.records, first.fingerprint)


@pytest.mark.parametrize("change", ["config", "source"])
def test_a_change_is_prepared_anew(config, folder, images, change):
    first = prepare_images(config, folder)
    if change == "config":
        config = dataclasses.replace(config, image_size=8)
    else:
        np.savez(config.path, images=images // 2)
    second = prepare_images(config, folder)
    assert second.fingerprint != first.fingerprint
    assert second.images_sha256 != first.images_sha256


def test_the_fingerprint_ignores_name_and_path_but_not_the_split(config, folder, tmp_path):
    first = prepare_images(config, folder)
    moved = tmp_path / "elsewhere.npz"
    moved.write_bytes((tmp_path / "source.npz").read_bytes())
    renamed = dataclasses.replace(config, name="other", path=str(moved))
    assert prepare_images(renamed, tmp_path / "other").fingerprint == first.fingerprint
    reseeded = dataclasses.replace(config, seed=1)
    assert prepare_images(reseeded, tmp_path / "seed").fingerprint != first.fingerprint


def test_images_sha256_is_of_the_file(config, folder):
    store = prepare_images(config, folder)
    expected = hashlib.sha256((folder / "images.npy").read_bytes()).hexdigest()
    assert store.images_sha256 == expected


@pytest.mark.parametrize("renames_before_the_kill", range(3))
def test_a_killed_run_is_repaired_by_the_next(
    config, folder, tmp_path, monkeypatch, renames_before_the_kill
):
    prepare_images(config, folder)
    changed = dataclasses.replace(config, fit="resize")
    count = 0

    def replace(source, target, rename=os.replace):
        nonlocal count
        if count == renames_before_the_kill:
            raise KeyboardInterrupt
        count += 1
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("condvae.ground.files.os.replace", replace)
        with pytest.raises(KeyboardInterrupt):
            prepare_images(changed, folder)
    if renames_before_the_kill == 0:
        assert open_images(folder).config == config  # nothing was touched yet
    else:
        with pytest.raises(ConfigurationError, match="kedro run --pipeline=data_preparation"):
            open_images(folder)
    (folder / ".images.npy.abc.tmp").write_bytes(b"left by SIGKILL")
    repaired = prepare_images(changed, folder)
    assert repaired.fingerprint == prepare_images(changed, tmp_path / "fresh").fingerprint
    assert set(stamps(folder)) == {"images.npy", "records.json", "meta.json"}


@pytest.mark.parametrize("name", ["images.npy", "records.json", "meta.json"])
@pytest.mark.parametrize("damage", ["missing", "cut", "changed"])
def test_damage_is_named_and_repaired(config, folder, name, damage):
    first = prepare_images(config, folder)
    content = (folder / name).read_bytes()
    if damage == "missing":
        (folder / name).unlink()
    elif damage == "cut":
        (folder / name).write_bytes(content[:-20])
    elif name == "meta.json":
        (folder / name).write_text('{"format_version": 99}')
    else:
        (folder / name).write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    with pytest.raises(ConfigurationError) as error:
        open_images(folder)
    assert str(folder) in str(error.value)
    assert "kedro run --pipeline=data_preparation" in str(error.value)
    assert prepare_images(config, folder).fingerprint == first.fingerprint


def test_nothing_prepared_is_said_with_the_command(tmp_path):
    with pytest.raises(ConfigurationError, match=r"none: no prepared images .*data_preparation"):
        open_images(tmp_path / "none")


def test_equal_pictures_are_named_as_the_cause_of_an_empty_split(config, folder, images):
    np.savez(config.path, images=np.repeat(images[:1], 120, axis=0))
    equal = dataclasses.replace(config, duplicates="keep")
    with pytest.raises(ConfigurationError, match="the 120 images are 1 different ones"):
        prepare_images(equal, folder)


def test_labels_are_of_the_pictures_that_were_used(tmp_path, caplog):
    raw = tmp_path / "raw"
    rng = np.random.default_rng(0)
    for number, name in enumerate(("ant", "bee", "cat")):
        (raw / name).mkdir(parents=True)
        for k in range(30 if name != "bee" else 0):
            pixels = rng.integers(0, 256, (8, 8), np.uint8)
            pixels[0, 0] = number
            Image.fromarray(pixels).save(raw / name / f"{k}.png")
    (raw / "bee" / "broken.png").write_bytes(b"no picture")
    (raw / "__MACOSX" / "ant").mkdir(parents=True)
    (raw / "__MACOSX" / "ant" / "._0.png").write_bytes(b"x")
    (raw / "ant" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (raw / "ant" / "moving.gif").write_bytes(b"GIF89a")
    (raw / "dog").symlink_to(raw / "cat")  # a linked folder is a class like any other
    (raw / "empty").mkdir()
    settings = {
        "name": "a",
        "source": "image_folder",
        "path": str(raw),
        "image_size": 8,
        "channels": 1,
    }
    chosen = DataConfig(**settings, unreadable="skip", duplicates="keep")
    with caplog.at_level(logging.INFO):
        store = prepare_images(chosen, tmp_path / "store")
    assert store.class_names == ("ant", "cat", "dog")
    for record, pixels in zip(store.records, store.pixels, strict=True):
        assert record.origin.startswith(store.class_names[record.label])
        assert pixels[0, 0, 0] == {"ant": 0, "cat": 2, "dog": 2}[store.class_names[record.label]]
    assert "no classes, as no picture in them could be used: bee" in caplog.text
    assert "3 classes: ant (30), cat (30), dog (30)" in caplog.text
    assert "1 broken links (ant/gone.png)" in caplog.text
    assert store.left_aside == {
        "__MACOSX": "hidden, or left by file managers",
        "ant/gone.png": "broken links",
        "ant/moving.gif": "ending .gif",
        "empty": "empty folders",
    }
    assert store.unreadable_skipped == ("bee/broken.png",)
    assert store.describe()["classes"] == ["ant", "cat", "dog"]


def test_an_empty_split_is_refused_and_nothing_is_left(config, folder, images):
    np.savez(config.path, images=images[:2])
    with pytest.raises(ConfigurationError, match=r"no images in .*\(2 images, validation_share"):
        prepare_images(config, folder)
    assert list(folder.iterdir()) == []


def test_a_picture_too_large_is_named(config, folder):
    with pytest.raises(ConfigurationError, match=r"4x5 is larger .*\(picture images\[0\]\)"):
        prepare_images(dataclasses.replace(config, image_size=4), folder)


def test_a_folder_with_unreadable_pictures(tmp_path, folder, images):
    source = tmp_path / "pictures"
    for i, pixels in enumerate(images):
        path = source / ("even" if i % 2 == 0 else "odd") / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    (source / "odd" / "broken.png").write_text("no picture")
    config = DataConfig(source="image_folder", path=str(source), image_size=6, unreadable="skip")
    store = prepare_images(config, folder)
    assert store.class_names == ("even", "odd")
    assert store.unreadable_skipped == ("odd/broken.png",)
    assert len(store.records) == 60
    for record in store.records:
        assert record.label == int(record.origin.split("/")[1][:2]) % 2
    with pytest.raises(ConfigurationError, match=r"broken\.png"):
        prepare_images(dataclasses.replace(config, unreadable="stop"), tmp_path / "stop")
    assert list((tmp_path / "stop").iterdir()) == []


def test_many_digits_of_the_row_count_fit_the_header(config, folder, images):
    # The header is written for the expected number of rows and rewritten for the true one.
    np.savez(config.path, images=np.concatenate([images] * 20))
    store = prepare_images(config, folder)
    assert (len(store.records), store.duplicates_dropped) == (60, 1140)
    assert (folder / "images.npy").stat().st_size == 128 + 60 * 6 * 6 * 3


def test_duplicates_may_be_kept_or_refused(config, folder, images, tmp_path):
    np.savez(config.path, images=np.concatenate([images, images[[3]]]))
    kept = prepare_images(dataclasses.replace(config, duplicates="keep"), folder)
    assert (len(kept.records), kept.duplicates_kept, kept.duplicates_dropped) == (61, 1, 0)
    # A random split is one of contents: identical pictures cannot be parted.
    assert kept.records[60].split == kept.records[3].split
    assert kept.duplicates_across_splits == 0
    np.testing.assert_array_equal(kept.pixels[60], kept.pixels[3])
    with pytest.raises(ConfigurationError, match=r"images\[60\] is identical to images\[3\]"):
        prepare_images(dataclasses.replace(config, duplicates="stop"), tmp_path / "stop")


def test_a_store_of_before_there_were_splits_and_attributes_stays_valid(config, folder):
    first = prepare_images(config, folder)
    meta = json.loads((folder / "meta.json").read_text())
    for key in ("split", "crop", "duplicates"):
        del meta["config"][key]
    for key in ("duplicates_kept", "duplicates_across_splits", "validation_is_test"):
        del meta[key]
    (folder / "meta.json").write_text(json.dumps(meta))
    before = stamps(folder)
    again = prepare_images(config, folder)
    assert stamps(folder) == before
    assert (again.fingerprint, again.config) == (first.fingerprint, config)


def test_cutting_comes_before_fitting(config, folder, images):
    store = prepare_images(dataclasses.replace(config, crop=4), folder)
    np.testing.assert_array_equal(store.pixels[:, 1:5, 1:5], images[:, :4])
    assert (store.records[0].width, store.records[0].height) == (4, 5)
