"""Foreign images are what their names say, and files of them are opened or refused by name."""

from __future__ import annotations

import numpy as np
import pytest

from condvae.data.foreign import FOREIGN, make_foreign, name_of_foreign, open_foreign
from condvae.ground.configuration import ConfigurationError


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), dtype=np.uint8)


def test_changed_images(images):
    for name in FOREIGN:
        found = make_foreign(name, images, 0)
        assert found.dtype == np.uint8
        assert found.shape == images.shape
        assert np.array_equal(found, make_foreign(name, images, 0))
    assert np.array_equal(make_foreign("flipped", images, 0)[3, 0, 1], images[3, -1, 1])
    assert np.array_equal(make_foreign("rotated", images, 0)[3, 0, 0], images[3, 0, -1])
    assert np.array_equal(make_foreign("inverted", images, 0).astype(int), 255 - images.astype(int))


def test_drawn_images(images):
    constant = make_foreign("constant", images, 0)
    assert (constant == constant[:, :1, :1]).all()
    assert len(np.unique(constant[:, 0, 0], axis=0)) > 10
    noise = make_foreign("noise", images, 0)
    assert not np.array_equal(noise, make_foreign("noise", images, 1))
    # 960 uniform values: their mean lies within five standard errors of 127.5.
    assert abs(noise.mean() - 127.5) < 5 * 73.9 / np.sqrt(noise.size)


def test_unknown_set_is_refused(images):
    with pytest.raises(ConfigurationError, match="set of foreign images = 'flip'"):
        make_foreign("flip", images, 0)


def test_images_of_an_npz_file(tmp_path, images):
    np.savez(tmp_path / "street numbers.npz", images=images)
    assert np.array_equal(open_foreign(tmp_path / "street numbers.npz", (4, 4, 3)), images)
    assert name_of_foreign(tmp_path / "street numbers.npz") == "street_numbers"
    np.savez(tmp_path / "grey.npz", images=images[..., 0])
    assert open_foreign(tmp_path / "grey.npz", (4, 4, 1)).shape == (20, 4, 4, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"pictures": np.zeros((2, 4, 4, 3), np.uint8)}, "no array 'images'"),
        ({"images": np.zeros((2, 5, 4, 3), np.uint8)}, r"shape \(2, 5, 4, 3\); expected uint8"),
        ({"images": np.zeros((2, 4, 4, 3))}, "images of type float64"),
        ({"images": np.zeros((0, 4, 4, 3), np.uint8)}, "N >= 1"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    np.savez(tmp_path / "a.npz", **content)
    with pytest.raises(ConfigurationError, match=message):
        open_foreign(tmp_path / "a.npz", (4, 4, 3))


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="no such file or folder"):
        open_foreign(tmp_path / "b.npz", (4, 4, 3))
