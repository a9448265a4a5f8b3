from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from condvae.data.canvas import convert_channels, crop_centre, fit_to_canvas
from condvae.ground.configuration import ConfigurationError


def random_picture(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_colour_becomes_grey_by_the_601_weights_in_fixed_point():
    colour = random_picture(9, 7, 3)
    # The weights 0.299, 0.587, 0.114 in units of 1/65536, rounded to the nearest level.
    expected = (colour.astype(int) @ [19595, 38470, 7471] + 32768) >> 16
    np.testing.assert_array_equal(convert_channels(colour, 1)[..., 0], expected)


def test_grey_becomes_three_equal_channels_and_back_without_change():
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    colour = convert_channels(grey, 3)
    assert colour.shape == (16, 16, 3)
    for channel in range(3):
        np.testing.assert_array_equal(colour[..., channel], grey)
    np.testing.assert_array_equal(convert_channels(colour, 1)[..., 0], grey)


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 1)])
def test_grey_shapes_gain_a_channel(shape):
    picture = random_picture(*shape)
    np.testing.assert_array_equal(convert_channels(picture, 1), picture.reshape(5, 4, 1))


def test_padding_centres_on_black_and_keeps_every_pixel():
    picture = random_picture(3, 2, 1)
    canvas = fit_to_canvas(picture, 6, "pad")
    expected = np.zeros((6, 6, 1), np.uint8)
    expected[1:4, 2:4] = picture  # the odd row of black goes below
    np.testing.assert_array_equal(canvas, expected)


def test_a_picture_larger_than_the_canvas_is_refused():
    with pytest.raises(ConfigurationError, match=r"9x5 is larger .* 8x8; use fit: resize"):
        fit_to_canvas(random_picture(5, 9, 1), 8, "pad")


@pytest.mark.parametrize(
    ("size", "kernel", "other"),
    [
        (24, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS),
        (6, Image.Resampling.LANCZOS, Image.Resampling.BICUBIC),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_resizing_takes_the_right_kernel(size, kernel, other, channels):
    picture = random_picture(12, 12, channels)
    image = Image.fromarray(picture.squeeze())
    result = fit_to_canvas(picture, size, "resize").squeeze()
    np.testing.assert_array_equal(result, np.asarray(image.resize((size, size), kernel)))
    assert not np.array_equal(result, np.asarray(image.resize((size, size), other)))


@pytest.mark.parametrize("transposed", [False, True])
def test_resizing_brings_the_short_side_to_size_and_cuts_the_centre(transposed):
    # Three squares side by side: only the middle one remains.
    picture = np.repeat(np.array([10, 200, 90], np.uint8), 4)[None, :, None].repeat(4, axis=0)
    picture = picture.transpose(1, 0, 2) if transposed else picture
    middle = fit_to_canvas(picture, 8, "resize")
    assert middle.shape == (8, 8, 1)
    assert (middle[2:-2, 2:-2] > 190).all()
    same_size = fit_to_canvas(picture, 4, "resize")
    np.testing.assert_array_equal(same_size, np.full((4, 4, 1), 200))


def test_a_picture_of_the_right_size_is_left_alone():
    picture = random_picture(8, 8, 3)
    for fit in ("pad", "resize"):
        np.testing.assert_array_equal(fit_to_canvas(picture, 8, fit), picture)


@pytest.mark.parametrize("shape", [(9, 6, 3), (6, 9, 1), (4, 4, 3)])
def test_the_middle_square_is_cut_out(shape):
    picture = random_picture(*shape)
    top, left = (shape[0] - 4) // 2, (shape[1] - 4) // 2
    expected = [[picture[top + i, left + j] for j in range(4)] for i in range(4)]
    np.testing.assert_array_equal(crop_centre(picture, 4), expected)


def test_a_picture_smaller_than_the_square_is_refused():
    with pytest.raises(ConfigurationError, match=r"crop = 5: a picture of 4x9 is smaller"):
        crop_centre(random_picture(9, 4, 3), 5)
