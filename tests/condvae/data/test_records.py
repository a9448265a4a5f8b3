from __future__ import annotations

import hashlib

import numpy as np
import pytest

from condvae.data.records import (
    assign_split,
    image_sha256,
    make_record,
    read_records,
    write_records,
)
from condvae.ground.configuration import ConfigurationError


def make_example(label: int | None = 3, channels: int = 3):
    pixels = np.arange(4 * 5 * channels, dtype=np.uint8).reshape(4, 5, channels)
    return pixels, make_record(
        pixels,
        row=7,
        origin="a/b.png",
        sha256=image_sha256(pixels),
        original_shape=(10, 20, channels),
        split="train",
        label=label,
    )


def test_the_hash_covers_shape_and_bytes():
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 6, 1)
    assert image_sha256(pixels) == hashlib.sha256(b"2x6x1:" + bytes(range(12))).hexdigest()
    assert image_sha256(pixels) != image_sha256(pixels.reshape(6, 2, 1))


def test_the_hash_does_not_depend_on_the_memory_layout():
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 6, 1)
    assert image_sha256(np.asfortranarray(pixels)) == image_sha256(pixels)


def test_statistics_are_per_channel_on_the_stored_pixels():
    _, record = make_example()
    values = np.arange(0, 60, 3, dtype=float)
    for channel in range(3):
        assert record.mean[channel] == pytest.approx((values + channel).mean())
        assert record.std[channel] == pytest.approx(values.std())
    assert (record.width, record.height, record.mode) == (20, 10, "RGB")


def test_split_shares_come_out_within_four_standard_errors():
    hashes = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(20_000)]
    splits = [assign_split(h, 0.1, 0.2, seed=0) for h in hashes]
    for split, share in (("train", 0.7), ("validation", 0.1), ("test", 0.2)):
        tolerance = 4 * (share * (1 - share) / len(hashes)) ** 0.5
        assert splits.count(split) / len(hashes) == pytest.approx(share, abs=tolerance)


def test_split_depends_on_the_seed_and_test_ignores_the_validation_share():
    hashes = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(2_000)]
    first = [assign_split(h, 0.1, 0.2, seed=0) for h in hashes]
    assert first != [assign_split(h, 0.1, 0.2, seed=1) for h in hashes]
    more = [assign_split(h, 0.3, 0.2, seed=0) for h in hashes]
    assert [s == "test" for s in first] == [s == "test" for s in more]


@pytest.mark.parametrize("label", [None, 2])
def test_records_survive_the_disk(tmp_path, label):
    _, record = make_example(label)
    write_records(tmp_path / "r.json", [record, record])
    assert read_records(tmp_path / "r.json") == (record, record)


def test_foreign_fields_are_refused(tmp_path):
    (tmp_path / "r.json").write_text('{"row": [1], "colour": [2]}')
    with pytest.raises(ConfigurationError, match=r"r\.json: fields \['colour', 'row'\]"):
        read_records(tmp_path / "r.json")
