"""Slant, thickness, size and brightness of shapes for which they are known."""

from __future__ import annotations

import numpy as np
import pytest

from condvae.data.measures import (
    MEASURES,
    TERCILES,
    fit_terciles,
    measure_images,
    sort_by_terciles,
)
from condvae.ground.configuration import ConfigurationError


def measure(name, *pictures):
    """Measure pictures (H,W)."""
    return measure_images(name, np.stack(pictures)[..., None].astype(np.uint8))


def draw(inside, side=40, level=255, fine=8):
    """Picture of a region given by `inside(x, y)` in pixels from the centre, edges by coverage."""
    places = (np.arange(side * fine) + 0.5) / fine - side / 2
    covered = inside(places[None, :], places[:, None]).reshape(side, fine, side, fine)
    return np.round(level * covered.mean(axis=(1, 3)))


def draw_bar(width, length, degrees=0.0, **options):
    """Bar of the given width, its long side `degrees` from the vertical, tops to the right."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))

    def inside(x, y):
        return (abs(c * x + s * y) <= width / 2) & (abs(-s * x + c * y) <= length / 2)

    return draw(inside, **options)


def draw_ring(radius, width, **options):
    return draw(lambda x, y: abs(np.hypot(x, y) - radius) <= width / 2, **options)


def draw_patch(seed=0):
    """Random ink of 8x8 pixels in the middle of 32x32."""
    picture = np.zeros((32, 32))
    picture[12:20, 12:20] = np.random.default_rng(seed).integers(0, 80, (8, 8))
    return picture


def shear(picture, columns_per_row):
    """Shift row after row to the right, the more the higher it is."""
    rows = range(len(picture))
    return np.stack([np.roll(picture[r], columns_per_row * (16 - r)) for r in rows])


@pytest.mark.parametrize("columns", [-2, -1, 0, 1, 2])
def test_slant_of_sheared_bars_and_ink(columns):
    bar = np.zeros((32, 32))
    bar[12:21, 15:18] = 200
    patch = draw_patch()
    sheared = measure("slant", shear(bar, columns), shear(patch, columns))
    np.testing.assert_allclose(sheared, measure("slant", bar, patch) + columns, atol=1e-12)
    assert sheared[0] == pytest.approx(columns)


@pytest.mark.parametrize("degrees", [-30, -10, 0, 20, 35])
def test_slant_is_the_tangent_of_the_angle(degrees):
    # A thin bar: its own width adds a term of order (width / length)^2.
    slant = measure("slant", draw_bar(1.5, 30, degrees))
    np.testing.assert_allclose(slant, np.tan(np.radians(degrees)), atol=0.01)


def test_slant_changes_sign_in_a_mirror():
    patch = draw_patch()
    there, across, down = measure("slant", patch, patch[:, ::-1], patch[::-1])
    np.testing.assert_allclose([across, down], -there)
    assert abs(there) > 1e-3


@pytest.mark.parametrize("degrees", [0, 17, 30, 45, 60, 90])
@pytest.mark.parametrize("width", [2.5, 3.0, 4.0, 6.0])
def test_thickness_of_bars(width, degrees):
    length = 30
    thickness = measure("thickness", draw_bar(width, length, degrees, side=48))
    np.testing.assert_allclose(thickness, width * length / (width + length), rtol=0.06)


@pytest.mark.parametrize("width", [2.0, 3.0, 4.0, 6.0])
def test_thickness_of_rings_is_their_width(width):
    # Area 2 pi r w over perimeter 4 pi r: the ends of bars are missing.
    measured = measure("thickness", draw_ring(12, width), draw_ring(8, width))
    np.testing.assert_allclose(measured, width, rtol=0.02)


def test_thickness_does_not_depend_on_the_side_one_looks_from():
    patch = draw_patch()
    seen = [np.rot90(patch, k) for k in range(4)] + [patch[::-1], patch.T]
    np.testing.assert_allclose(measure("thickness", *seen), measure("thickness", patch)[0])


def test_ink_at_the_border_has_an_edge_there():
    inner, full = np.zeros((12, 12)), np.full((10, 10), 255)
    inner[1:11, 1:11] = 255
    assert measure("thickness", inner)[0] == pytest.approx(measure("thickness", full)[0])


def test_size_of_rectangles_discs_and_rings():
    block = np.zeros((32, 32))
    block[4:25, 10:17] = 130
    np.testing.assert_allclose(
        measure("size", block), np.sqrt((21**2 - 1 + 7**2 - 1) / 12), rtol=1e-12
    )
    disc = draw(lambda x, y: np.hypot(x, y) <= 10)
    np.testing.assert_allclose(measure("size", disc), 10 / np.sqrt(2), rtol=0.01)
    ring = draw_ring(12, 2)
    np.testing.assert_allclose(measure("size", ring), np.sqrt(12**2 + 1), rtol=0.01)


def test_brightness_is_the_mean_luma():
    grey = np.full((1, 4, 4, 1), 51, np.uint8)
    np.testing.assert_allclose(measure_images("brightness", grey), 0.2)
    colours = np.zeros((3, 2, 2, 3), np.uint8)
    for channel in range(3):
        colours[channel, ..., channel] = 255
    np.testing.assert_allclose(measure_images("brightness", colours), [0.299, 0.587, 0.114])


@pytest.mark.parametrize("name", ["slant", "thickness", "size"])
def test_place_and_strength_of_the_ink_do_not_matter(name):
    patch = draw_patch()
    moved = np.roll(patch, (5, -7), axis=(0, 1))
    np.testing.assert_allclose(measure(name, moved, 3 * patch), measure(name, patch)[0], rtol=1e-10)
    assert measure("brightness", 3 * patch)[0] == pytest.approx(3 * measure("brightness", patch)[0])


@pytest.mark.parametrize("name", MEASURES)
def test_grey_stored_as_colour_is_measured_alike(name):
    grey = draw_patch().astype(np.uint8)[None, ..., None]
    colour = np.repeat(grey, 3, axis=-1)
    np.testing.assert_allclose(measure_images(name, colour), measure_images(name, grey))


@pytest.mark.parametrize("name", MEASURES)
def test_images_without_ink_are_unknown(name):
    black = np.zeros((32, 32))
    measured = measure(name, black, draw_patch(), black)
    assert np.isnan(measured).tolist() == [True, False, True]


def test_ink_in_one_row_has_no_slant():
    row = np.zeros((9, 9))
    row[3, 2:7] = 70
    assert np.isnan(measure("slant", row)[0])
    assert measure("slant", row.T)[0] == 0
    assert measure("size", row)[0] == pytest.approx(np.sqrt(2))


@pytest.mark.parametrize("name", MEASURES)
def test_any_number_of_images(name):
    pixels = np.random.default_rng(0).integers(0, 256, (600, 5, 4, 1), dtype=np.uint8)
    alone = [measure_images(name, pixels[i : i + 1])[0] for i in (0, 255, 256, 599)]
    np.testing.assert_allclose(measure_images(name, pixels)[[0, 255, 256, 599]], alone)
    assert measure_images(name, pixels[:0]).shape == (0,)


def test_unknown_measure_is_refused():
    with pytest.raises(ConfigurationError, match=r"measure = 'slent'.*did you mean 'slant'"):
        measure("slent", draw_patch())
    assert list(TERCILES) == list(MEASURES)


def test_terciles_part_the_known_values():
    measured = np.array([5.0, np.nan, 1, 9, 2, 8, 4, np.nan, 6, 3, 7])
    edges = fit_terciles(measured, "size")
    thirds = sort_by_terciles(measured, edges)
    np.testing.assert_array_equal(thirds, [1, np.nan, 0, 2, 0, 2, 1, np.nan, 1, 0, 2])
    np.testing.assert_array_equal(sort_by_terciles(edges, edges), [0, 1])


@pytest.mark.parametrize("values", [[], [np.nan], [1.0, 1, 1, 1, 2], [1.0, 2, 2, 2, 2], [3.0] * 5])
def test_values_that_do_not_part_into_thirds_are_refused(values):
    with pytest.raises(ConfigurationError, match=r"^size of \d training images does not part"):
        fit_terciles(np.array(values), "size")
