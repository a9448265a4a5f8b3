"""Pictures on another scale are refused at every door, and dark ones are not taken for them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from condvae.data import DataConfig, prepare_images
from condvae.ground.configuration import ConfigurationError, check_seed
from condvae.ground.images import check_scale, odd_values

RNG = np.random.default_rng(0)
ONES = RNG.integers(0, 2, (80, 8, 8, 1), np.uint8)
BINARY = ONES * np.uint8(255)


@pytest.mark.parametrize("highest", [0, 2, 16, 255])
def test_other_values_are_grey_levels(highest):
    check_scale(highest, "a")


def test_values_of_zero_and_one_are_refused():
    with pytest.raises(ConfigurationError, match=r"a\.png: no value above 1.*multiply by 255"):
        check_scale(int(ONES.max()), "a.png")


@pytest.mark.parametrize(
    ("pixels", "found"),
    [
        (BINARY, []),
        (RNG.integers(0, 256, (5, 8, 8, 3), np.uint8), []),
        (np.zeros((1, 8, 8, 1), np.uint8), ["it: every channel has one value everywhere, 0"]),
        (np.repeat(BINARY[:1], 3, axis=0), ["it: all 3 pictures are equal"]),
        (ONES * np.uint8(16), ["it: no value above 16; expected grey levels from 0 to 255"]),
        (
            np.concatenate([BINARY, np.full_like(BINARY, 9)], axis=-1),
            ["it: channel 1 has one value everywhere, 9"],
        ),
    ],
)
def test_odd_values_are_named(pixels, found):
    assert odd_values(pixels, "it") == found


def prepare(tmp_path, images):
    np.savez(tmp_path / "a.npz", images=images)
    settings = {"name": "a", "source": "npz", "path": str(tmp_path / "a.npz"), "duplicates": "keep"}
    return prepare_images(
        DataConfig(**settings, image_size=8, channels=images.shape[-1]), tmp_path / "store"
    )


def test_sets_of_images_on_another_scale_are_refused_and_nothing_is_left(tmp_path):
    with pytest.raises(ConfigurationError, match="all 80 images: no value above 1"):
        prepare(tmp_path, ONES)
    assert not list((tmp_path / "store").glob("*.npy"))


def test_black_pictures_among_others_are_images(tmp_path, caplog):
    images = BINARY.copy()
    images[3] = 0
    assert len(prepare(tmp_path, images).records) == 80
    assert "one value" not in caplog.text


def test_a_channel_that_says_nothing_is_warned_of(tmp_path, caplog):
    images = RNG.integers(0, 256, (80, 8, 8, 3), np.uint8)
    images[..., 2] = 7
    assert prepare(tmp_path, images).warnings == ("channel 2 of all images has one value, 7",)
    assert "channel 2 of all images has one value, 7" in caplog.text


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64])
def test_seeds_that_no_generator_takes_are_refused(seed):
    with pytest.raises(ConfigurationError, match=rf"seed = {seed}: expected 0 to 2\^63 - 1"):
        check_seed("seed", seed)
    check_seed("seed", 2**63 - 1)
    assert torch.Generator().manual_seed(2**63 - 1)
