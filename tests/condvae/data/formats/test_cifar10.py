from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from condvae.data import DataConfig, prepare_images
from condvae.data.formats.cifar10 import read_batch
from condvae.data.sources import open_source
from condvae.ground.configuration import ConfigurationError


@pytest.fixture
def config(tmp_path):
    return DataConfig(
        name="cifar10",
        source="cifar10",
        path=str(tmp_path / "raw"),
        image_size=32,
        channels=3,
        split="official",
    )


@pytest.fixture
def batches(tmp_path):
    return tmp_path / "raw" / "cifar-10-batches-py"


def test_batches_are_prepared_in_order_with_the_official_split(config, stand_ins, tmp_path):
    pixels, labels = stand_ins.cifar10(tmp_path / "raw")
    store = prepare_images(config, tmp_path / "store")
    np.testing.assert_array_equal(store.pixels, pixels)
    np.testing.assert_array_equal(store.labels, labels)
    assert store.class_names[3] == "cat"
    assert store.records[7].origin == "data_batch_2[1]"
    train, validation = train_test_split(np.arange(30), test_size=3, random_state=11172018)
    np.testing.assert_array_equal(store.indices("train"), np.sort(train))
    np.testing.assert_array_equal(store.indices("validation"), np.sort(validation))
    np.testing.assert_array_equal(store.indices("test"), np.arange(30, 36))


def test_a_subset_keeps_each_pictures_split(config, stand_ins, tmp_path):
    import dataclasses

    stand_ins.cifar10(tmp_path / "raw", per_batch=20)
    whole = {r.sha256: r.split for r in prepare_images(config, tmp_path / "whole").records}
    few = prepare_images(dataclasses.replace(config, limit=60), tmp_path / "few")
    assert len(few.records) == 60
    assert all(whole[record.sha256] == record.split for record in few.records)


def test_the_folder_itself_may_be_named(config, stand_ins, tmp_path, batches):
    import dataclasses

    pixels, _ = stand_ins.cifar10(tmp_path / "raw")
    source = open_source(dataclasses.replace(config, path=str(batches)))
    np.testing.assert_array_equal([image.pixels for image in source.read([0, 35])], pixels[[0, 35]])


def test_files_of_todays_pickle_are_read_too(tmp_path):
    data = np.arange(2 * 3072, dtype=np.uint32).astype(np.uint8).reshape(2, 3072)
    for protocol in (3, 4):
        path = tmp_path / f"batch_{protocol}"
        path.write_bytes(pickle.dumps({"data": data, "labels": [1, 2]}, protocol=protocol))
        pixels, labels = read_batch(path)
        np.testing.assert_array_equal(pixels[1, 0, 5], data[1, [5, 1029, 2053]])
        assert labels.tolist() == [1, 2]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("keys", [str, str.encode])
def test_batches_that_python_3_has_saved_again_are_read(tmp_path, protocol, keys):
    data = np.arange(2 * 3072, dtype=np.uint32).astype(np.uint8).reshape(2, 3072)
    batch = {keys("data"): data, keys("labels"): [1, 2], keys("filenames"): [b"a.png", b"b.png"]}
    (tmp_path / "batch").write_bytes(pickle.dumps(batch, protocol=protocol))
    pixels, labels = read_batch(tmp_path / "batch")
    np.testing.assert_array_equal(pixels.transpose(0, 3, 1, 2).reshape(2, -1), data)
    assert labels.tolist() == [1, 2]


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_runs_code_is_refused_before_it_does(config, stand_ins, tmp_path, batches):
    stand_ins.cifar10(tmp_path / "raw")
    stand_ins.python2_pickle(
        batches / "data_batch_3", {"data": Evil(tmp_path / "trap"), "labels": []}
    )
    with pytest.raises(ConfigurationError, match=r"data_batch_3: .*asks for (posix|nt)\.mkdir"):
        prepare_images(config, tmp_path / "store")
    assert not (tmp_path / "trap").exists()
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_batch_is_named_and_nothing_is_prepared(
    config, stand_ins, tmp_path, batches, share
):
    stand_ins.cifar10(tmp_path / "raw")
    whole = (batches / "data_batch_5").read_bytes()
    (batches / "data_batch_5").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ConfigurationError, match=r"data_batch_5: not a readable batch"):
        prepare_images(config, tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([1, 2], "no array 'data'"),
        ({"data": np.zeros((2, 3071), np.uint8), "labels": [0, 0]}, "shape (N, 3072)"),
        ({"data": np.zeros((2, 3072)), "labels": [0, 0]}, "no array 'data' of type uint8"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [0]}, "expected integers and (2,)"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 10]}, "label 10; expected 0 to 9"),
        ({"data": np.zeros((2, 3072), np.uint8)}, "expected integers and (2,)"),
    ],
)
def test_other_contents_are_refused(tmp_path, stand_ins, batch, message):
    stand_ins.python2_pickle(tmp_path / "batch", batch)
    with pytest.raises(ConfigurationError) as error:
        read_batch(tmp_path / "batch")
    assert message in str(error.value)


def test_missing_batches_are_named(config, stand_ins, tmp_path, batches):
    stand_ins.cifar10(tmp_path / "raw")
    (batches / "test_batch").unlink()
    with pytest.raises(ConfigurationError, match=r"no test_batch; expected the files of cifar-10"):
        open_source(config)


def test_files_that_are_not_the_official_ones_are_named_in_the_log(
    config, stand_ins, tmp_path, caplog
):
    stand_ins.cifar10(tmp_path / "raw")
    open_source(config)
    assert "not the official files of cifar10 by their MD5 sums: data_batch_1" in caplog.text
