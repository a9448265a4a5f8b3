from __future__ import annotations

import numpy as np
import pytest

from condvae.ground.configuration import ConfigurationError
from condvae.masks.kinds import (
    MASK_KINDS,
    OBSERVED_BINS,
    bin_name,
    bin_of,
    centre_box,
    decode_runs,
    encode_runs,
    free_form,
    half,
    hole_range_of,
    patches,
    rectangles,
)


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("kind", MASK_KINDS)
@pytest.mark.parametrize("size", [2, 3, 7, 16, 33])
def test_masks_are_square_bool_and_fixed_by_the_generator(kind, size):
    draw = MASK_KINDS[kind].draw
    generator = rng(4)
    masks = [draw(generator, size, (0.0, 1.0)) for _ in range(20)]
    again = rng(4)
    for mask in masks:
        assert mask.dtype == bool
        assert mask.shape == (size, size)
        np.testing.assert_array_equal(mask, draw(again, size, (0.0, 1.0)))
    if kind not in ("blank", "centre_box"):
        assert len({mask.tobytes() for mask in masks}) > 1


def test_free_form_at_256_pixels_has_the_published_shares():
    # The published generator: 0.27 to 0.28 observed, 1/6/14/36/42 % of masks in the five hole bins.
    generator = rng()
    shares = np.array([free_form(generator, 256).mean() for _ in range(600)])
    assert shares.mean() == pytest.approx(0.275, abs=0.03)
    bins = np.bincount([bin_of(s) for s in shares], minlength=5) / 600
    np.testing.assert_allclose(bins, [0.42, 0.36, 0.14, 0.06, 0.01], atol=0.06)


def test_free_form_brush_follows_the_size():
    # The published generator, whose brush has 12 to 48 pixels and which draws empty masks again, is
    # 0.172 to 0.18 observed at 32 pixels, with 70 to 71 % of the masks under 20 %.
    generator = rng()
    fixed = np.array(
        [free_form(generator, 32, brush=(12 / 32, 48 / 32)).mean() for _ in range(2500)]
    )
    fixed = fixed[(fixed > 0) & (fixed < 1)]
    assert fixed.mean() == pytest.approx(0.175, abs=0.025)
    assert (fixed < 0.2).mean() == pytest.approx(0.705, abs=0.05)
    scaled = [free_form(generator, 32).mean() for _ in range(600)]
    assert np.mean(scaled) == pytest.approx(0.28, abs=0.03)  # as at 256 pixels


def test_free_form_draws_fewer_holes_for_a_low_hole_range():
    generator = rng()
    shares = [free_form(generator, 64, (0.0, 0.2)).mean() for _ in range(300)]
    # At most one small rectangle (under a quarter) and three strokes.
    assert np.mean(shares) > 0.75
    middle = [free_form(generator, 64, (0.2, 0.4)).mean() for _ in range(300)]
    assert 0.4 < np.mean(middle) < 0.6


def test_free_form_is_not_led_astray_by_rounding():
    assert 1 - 0.8 < 0.2  # and so 10 * (1 - 0.8) is not quite 2
    for seed in range(20):
        expected = free_form(rng(seed), 32, (0.0, 0.2))
        np.testing.assert_array_equal(free_form(rng(seed), 32, (0.0, 1 - 0.8)), expected)


def test_free_form_flips_along_both_axes():
    # Strokes run to the right before the flip: without flips left and right would differ.
    generator = rng()
    mean = np.mean([free_form(generator, 16) for _ in range(2000)], axis=0)
    np.testing.assert_allclose(mean, mean[:, ::-1], atol=0.05)
    np.testing.assert_allclose(mean, mean[::-1], atol=0.05)


def test_patches_have_the_published_shares():
    generator = rng()
    shares = np.array([patches(generator, 128).mean() for _ in range(4000)])
    assert shares.mean() == pytest.approx(0.155, abs=0.006)
    assert (shares == 0).mean() == pytest.approx(1 / 6, abs=0.02)
    assert shares.max() <= 5 * 45**2 / 128**2


def test_a_patch_is_a_square_of_a_third_of_the_side_that_may_hang_over():
    generator = rng()
    sides = set()
    for _ in range(6000):
        mask = patches(generator, 20)  # side 7
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if mask.any() and mask.sum() == len(rows) * len(columns):  # a single rectangle
            sides.add((len(rows), len(columns)))
    # Whole or cut at a border, in every way; two of them can look like one longer rectangle.
    assert {(height, width) for height in range(1, 8) for width in range(1, 8)} <= sides


def test_rectangles_are_one_to_five_holes():
    generator = rng()
    masks = [rectangles(generator, 16) for _ in range(2000)]
    assert all(not mask.all() for mask in masks)
    single = [
        mask for mask in masks if (~mask).sum() == ((~mask).any(1).sum() * (~mask).any(0).sum())
    ]
    # A fifth are single rectangles, and some of the others look like one.
    assert 0.2 < len(single) / 2000 < 0.35
    for mask in single:
        assert (~mask).any(0).sum() >= 2
    sides = {int((~mask).any(0).sum()) for mask in single}
    assert max(sides) >= 12


def test_half_shows_each_half_as_often():
    generator = rng()
    masks = [half(generator, 6) for _ in range(4000)]
    counts = {}
    for mask in masks:
        counts[mask.tobytes()] = counts.get(mask.tobytes(), 0) + 1
    assert len(counts) == 4
    assert all(abs(count - 1000) < 150 for count in counts.values())
    left = np.zeros((6, 6), dtype=bool)
    left[:, :3] = True
    assert set(counts) == {left.tobytes(), (~left).tobytes(), left.T.tobytes(), (~left.T).tobytes()}


def test_centre_box_by_hand():
    expected = np.ones((8, 8), dtype=bool)
    expected[2:6, 2:6] = False
    np.testing.assert_array_equal(centre_box(rng(), 8), expected)


@pytest.mark.parametrize(
    ("share", "index"),
    [(0, 0), (0.1999, 0), (0.2, 1), (0.4, 2), (0.5999, 2), (0.6, 3), (0.8, 4), (0.99, 4), (1, 4)],
)
def test_bins_are_half_open_and_the_last_is_closed(share, index):
    assert bin_of(share) == index


def test_bins_of_exact_shares():
    for observed in range(101):
        mask = np.arange(100) < observed
        assert bin_of(float(mask.mean())) == min(observed // 20, 4)


def test_bin_names_and_hole_ranges():
    assert [bin_name(i) for i in range(5)] == ["0_20", "20_40", "40_60", "60_80", "80_100"]
    assert [hole_range_of(i) for i in range(5)] == [
        (0.8, 1.0),
        (0.6, 0.8),
        (0.4, 0.6),
        (0.2, 0.4),
        (0.0, 0.2),
    ]
    assert len(OBSERVED_BINS) == 5


def test_runs_by_hand():
    mask = np.array([[0, 0, 1], [1, 1, 0], [0, 0, 1]], dtype=bool)
    assert encode_runs(mask) == [2, 3, 3, 1]
    assert encode_runs(~mask) == [0, 2, 3, 3, 1]
    assert encode_runs(np.zeros((2, 2), dtype=bool)) == [4]
    assert encode_runs(np.ones((2, 2), dtype=bool)) == [0, 4]


def test_runs_come_back_exactly():
    generator = rng()
    for _ in range(300):
        size = int(generator.integers(2, 20))
        mask = generator.random((size, size)) < generator.random()
        np.testing.assert_array_equal(decode_runs(encode_runs(mask), size), mask)


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([2, 1], r"add up to 3: expected 2 \* 2 = 4"),
        ([], "add up to 0"),
        ([1, 0, 3], "run length 0 at position 1"),
        ([-1, 5], "run length -1 at position 0"),
        ([1.0, 3], "run length 1.0 at position 0"),
        ([True, 3], "run length True at position 0"),
        ("22", "expected a list of integers"),
    ],
)
def test_bad_runs_are_refused(runs, message):
    with pytest.raises(ConfigurationError, match=message):
        decode_runs(runs, 2)


def test_bad_arguments_are_named():
    with pytest.raises(ConfigurationError, match="mask size 1: expected at least 2"):
        free_form(rng(), 1)
    with pytest.raises(ConfigurationError, match=r"hole_range = \(0.5, 0.5\)"):
        free_form(rng(), 8, (0.5, 0.5))
    with pytest.raises(ConfigurationError, match=r"brush = \(0.2, 0.1\)"):
        free_form(rng(), 8, brush=(0.2, 0.1))
    with pytest.raises(ConfigurationError, match=r"observed share 1.5"):
        bin_of(1.5)
    with pytest.raises(ConfigurationError, match="observed share nan"):
        bin_of(float("nan"))
    with pytest.raises(ConfigurationError, match="bin 5: expected 0 to 4"):
        bin_name(5)
    with pytest.raises(ConfigurationError, match="uint8"):
        encode_runs(np.ones((2, 2), dtype=np.uint8))
