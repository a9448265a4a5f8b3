from __future__ import annotations

import tracemalloc
from fractions import Fraction

import numpy as np
import pytest

from condvae.completion.geometry import Placement, fill_hole
from condvae.data.canvas import fit_to_canvas

SIZES = [(16, 16), (32, 16), (40, 33), (17, 16), (100, 47), (9, 13), (16, 200)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_box_is_what_fit_to_canvas_cuts_out(height, width):
    # Resampling keeps a linear picture linear away from its borders.
    placement = Placement(height, width, 16)
    left, top, right, bottom = placement.box
    for axis, (start, stop, side) in enumerate([(top, bottom, height), (left, right, width)]):
        ramp = np.linspace(0, 200, side)
        picture = np.broadcast_to(ramp[:, None] if axis == 0 else ramp, (height, width))
        canvas = fit_to_canvas(np.rint(picture).astype(np.uint8)[..., None], 16, "resize")
        found = canvas[..., 0].mean(axis=1 - axis)
        centres = start + (np.arange(16) + 0.5) * (stop - start) / 16 - 0.5
        expected = centres * 200 / (side - 1)
        np.testing.assert_allclose(found[4:12], expected[4:12], atol=1.5)


def brute_force(mask, placement):
    """Pixel by pixel, in exact numbers."""
    height, width, size = placement.height, placement.width, placement.size
    short = min(height, width)
    sides = []
    for side in (height, width):
        resized = round(side * size / short)
        sides.append((Fraction(side, resized), (resized - size) // 2))
    (row_scale, top), (column_scale, left) = sides
    result = np.ones((size, size), dtype=bool)
    for row, column in np.argwhere(~mask):
        for i in range(size):
            for j in range(size):
                result[i, j] &= not (
                    (top + i) * row_scale < row + 1
                    and row < (top + i + 1) * row_scale
                    and (left + j) * column_scale < column + 1
                    and column < (left + j + 1) * column_scale
                )
    return result


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_pixel_is_observed_when_every_pixel_it_covers_is(height, width):
    placement = Placement(height, width, 8)
    mask = np.random.default_rng(height).random((height, width)) > 8 / (height * width)
    mask[height // 2, width // 2] = False
    shrunk = placement.shrink_mask(mask)
    np.testing.assert_array_equal(shrunk, brute_force(mask, placement))
    assert not shrunk.all()


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_mask_of_the_canvas_covers_the_centres_of_pixels(height, width):
    placement = Placement(height, width, 8)
    mask = np.random.default_rng(0).random((8, 8)) > 0.3
    enlarged = placement.enlarge_mask(mask)
    left, top, right, bottom = placement.box
    for row in range(height):
        for column in range(width):
            i = int(np.floor((row + 0.5 - top) / (bottom - top) * 8 + 1e-9))
            j = int(np.floor((column + 0.5 - left) / (right - left) * 8 + 1e-9))
            inside = 0 <= i < 8 and 0 <= j < 8
            assert enlarged[row, column] == (mask[i, j] if inside else True)


def test_whole_numbers_lose_nothing():
    mask = np.random.default_rng(1).random((8, 8)) > 0.5
    placement = Placement(24, 48, 8)
    np.testing.assert_array_equal(placement.shrink_mask(placement.enlarge_mask(mask)), mask)


def test_hole_is_filled_with_the_mean_of_the_smallest_block():
    pixels = np.array([[10, 20, 200, 9], [30, 9, 9, 9], [9, 9, 60, 60], [9, 9, 60, 100]])
    mask = pixels != 9
    filled = fill_hole(pixels.astype(np.uint8)[..., None], mask)[..., 0]
    everything = np.mean([10, 20, 30, 200, 60, 60, 60, 100])
    assert filled[1, 1] == 20
    assert filled[0, 3] == filled[1, 2] == 200
    assert filled[3, 0] == round(everything)
    np.testing.assert_array_equal(filled[mask], pixels[mask])


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (16, 9), (1, 12)])
def test_filling_does_not_look_into_the_hole(shape):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    mask = rng.random(shape) > 0.6
    mask[0, 0] = False
    other = np.where(mask[..., None], pixels, rng.integers(0, 256, pixels.shape)).astype(np.uint8)
    assert not np.array_equal(pixels, other)
    np.testing.assert_array_equal(fill_hole(pixels, mask), fill_hole(other, mask))
    constant = np.where(mask[..., None], 77, other).astype(np.uint8)
    assert (fill_hole(constant, mask) == (77 if mask.any() else 0)).all()


def test_a_large_photo_is_filled_in_a_few_times_its_size():
    pixels = np.full((2000, 3000, 3), 90, dtype=np.uint8)
    mask = np.ones((2000, 3000), dtype=bool)
    mask[500:1500, 1000:] = False
    tracemalloc.start()
    filled = fill_hole(pixels, mask)
    Placement(2000, 3000, 256).shrink_mask(mask)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (filled == 90).all()
    assert peak < 6 * pixels.nbytes
