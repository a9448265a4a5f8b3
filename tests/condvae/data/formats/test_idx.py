from __future__ import annotations

import gzip

import numpy as np
import pytest

from condvae.data import DataConfig, prepare_images
from condvae.data.sources import open_source
from condvae.data.splits import official_split
from condvae.ground.configuration import ConfigurationError


@pytest.fixture
def config(tmp_path):
    return DataConfig(
        name="mnist", source="mnist", path=str(tmp_path / "raw"), image_size=32, split="official"
    )


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("source", ["mnist", "fashion_mnist"])
def test_files_are_prepared_packed_or_not(stand_ins, tmp_path, packed, source):
    pixels, labels = stand_ins.idx(tmp_path / "raw", packed=packed)
    config = DataConfig(source=source, path=str(tmp_path / "raw"), image_size=32, split="official")
    store = prepare_images(config, tmp_path / "store")
    np.testing.assert_array_equal(store.pixels[:, 2:30, 2:30, 0], pixels)
    assert not store.pixels[:, :2].any()
    np.testing.assert_array_equal(store.labels, labels)
    expected = official_split(source, [24, 6])
    for split in ("train", "validation", "test"):
        np.testing.assert_array_equal(store.indices(split), np.sort(expected[split]))
    assert store.class_names[9] == {"mnist": "9", "fashion_mnist": "Ankle boot"}[source]


def test_a_random_split_mixes_both_parts(stand_ins, tmp_path):
    stand_ins.idx(tmp_path / "raw", train=60, test=60)
    config = DataConfig(source="mnist", path=str(tmp_path / "raw"), image_size=32)
    test = prepare_images(config, tmp_path / "store").indices("test")
    assert (test < 60).any()
    assert (test >= 60).any()


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
def test_a_truncated_file_is_named_and_nothing_is_left(config, stand_ins, tmp_path, packed, share):
    stand_ins.idx(tmp_path / "raw", packed=packed)
    path = next((tmp_path / "raw").glob("t10k-images*"))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ConfigurationError, match="t10k-images"):
        prepare_images(config, tmp_path / "store")
    assert not any((tmp_path / "store").glob("*"))
    assert not any((tmp_path / "store").glob(".*"))


def test_labels_must_be_as_many_as_pictures(config, stand_ins, tmp_path):
    stand_ins.idx(tmp_path / "raw")
    path = tmp_path / "raw" / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 2, 1, 1])))
    with pytest.raises(ConfigurationError, match="2 labels for the 24 pictures in train-images"):
        open_source(config)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(20), "it begins with 89 50 4e 47"),
        (bytes([0, 0, 13, 3]) + bytes(12), "not an IDX file of bytes with 3 dimensions"),
        (bytes([0, 0, 8, 3]) + bytes(12), "has type uint8 and shape (0, 0, 0)"),
        (bytes([0, 0, 8, 3, 0, 0, 0, 1]) + b"\xff" * 8, "ends early"),
    ],
)
def test_other_files_are_refused(config, stand_ins, tmp_path, content, message):
    stand_ins.idx(tmp_path / "raw", packed=False)
    (tmp_path / "raw" / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(ConfigurationError) as error:
        open_source(config)
    assert "train-images-idx3-ubyte" in str(error.value)
    assert message in str(error.value)


def test_a_picture_bomb_is_refused_by_its_header(config, stand_ins, tmp_path):
    stand_ins.idx(tmp_path / "raw")
    path = tmp_path / "raw" / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 3, 0, 0, 0, 1]) + b"\x00\x01\x00\x00" * 2))
    with pytest.raises(
        ConfigurationError, match=r"shape \(1, 65536, 65536\); expected pictures of at"
    ):
        open_source(config)


def test_missing_files_are_named(config, stand_ins, tmp_path):
    stand_ins.idx(tmp_path / "raw")
    (tmp_path / "raw" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ConfigurationError, match=r"neither t10k-labels-idx1-ubyte nor .*\.gz"):
        open_source(config)
