"""Published masks against the figures of their publications and of measured generators.

The measured means, medians and bin shares come from at least 600 masks of the published generators
and are rounded to two digits; a test allows three standard errors of the difference and half a digit.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math

import numpy as np
import pytest

from condvae.ground.configuration import ConfigurationError, read_config
from condvae.masks import kinds as masks_module
from condvae.masks import published as published_masks
from condvae.masks.kinds import bin_of, hole_range_of, patches
from condvae.masks.published import (
    LAMA_SETTINGS,
    MAT_SETTINGS,
    PUBLISHED_KINDS,
    NoMaskInRangeError,
    free_form_published,
    lama,
    mat,
    patches_missing,
    pic_irregular,
    pic_regular,
    repaint,
)
from condvae.masks.sampling import (
    ALL_MASK_KINDS,
    MaskConfig,
    draw_mask_in_bin,
    draw_masks,
    reachable_bins,
)

MEASURED = 600  # masks behind each measured figure, at least
WITHOUT_RANDOMNESS = {
    "repaint_half",
    "repaint_expand",
    "repaint_every_second_line",
    "repaint_super_resolve",
    "pic_centre",
}


def rng(seed=0):
    return np.random.default_rng(seed)


def holes(count, draw):
    return np.array([1 - draw().mean() for _ in range(count)])


def check_mean(shares, measured):
    error = shares.std() * math.sqrt(1 / len(shares) + 1 / MEASURED)
    assert shares.mean() == pytest.approx(measured, abs=3 * error + 0.005)


def check_share(share, count, measured):
    error = math.sqrt(measured * (1 - measured) * (1 / count + 1 / MEASURED))
    assert share == pytest.approx(measured, abs=3 * error + 0.005)


class Recorder:
    """Takes the place of the brush and keeps what was to be drawn."""

    def __init__(self):
        self.strokes = []

    def __call__(self, draw, path, width):
        self.strokes.append((path, width))


@pytest.fixture
def brush(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(masks_module, "stroke_path", recorder)
    monkeypatch.setattr(published_masks, "stroke_path", recorder)
    return recorder


# ---- names and sampling --------------------------------------------------------------------------


def test_the_masks_of_the_default_configuration_have_not_changed():
    # Hashes from before the published kinds came in: old runs and manifests must come out the same.
    for size, expected in (
        (16, "cea1c8f2e376fb9dec004ababd9bb4c76f0078786c04842127ca793f4fc505ce"),
        (32, "b4709b7016b155b81deea6436e9b7fe4a6581ebfe0480c645becbb16ebb239d2"),
    ):
        masks = draw_masks(MaskConfig(), size, 200, seed=5)
        assert hashlib.sha256(np.packbits(masks).tobytes()).hexdigest() == expected
    masks = draw_masks(MaskConfig(stratified=False), 16, 200, seed=5)
    expected = "90a4930db05af4bac6716642eb66371106559a4e7d4a60976d56f803a0596d52"
    assert hashlib.sha256(np.packbits(masks).tobytes()).hexdigest() == expected


def test_every_protocol_has_its_name():
    assert set(PUBLISHED_KINDS) == WITHOUT_RANDOMNESS | {
        "free_form_published",
        "comodgan",
        "patches_missing",
        *(f"lama_{kind}_{side}" for kind in ("thin", "medium", "thick") for side in (256, 512)),
        *(f"mat_{kind}_{side}" for kind in ("large", "small") for side in (256, 512)),
        "repaint_wide",
        "repaint_narrow",
        "pic_regular",
        "pic_irregular",
    }
    assert all(name == kind.name for name, kind in ALL_MASK_KINDS.items())
    assert set(PUBLISHED_KINDS) < set(ALL_MASK_KINDS)


@pytest.mark.parametrize("kind", PUBLISHED_KINDS)
def test_masks_are_square_bool_and_fixed_by_the_generator(kind):
    draw = PUBLISHED_KINDS[kind].draw
    for size in (64, 65) if kind == "pic_irregular" else (3, 32, 65):
        first, again, other = rng(4), rng(4), rng(5)
        masks = [draw(first, size, (0.0, 1.0)) for _ in range(6)]
        for mask in masks:
            assert mask.dtype == bool
            assert mask.shape == (size, size)
            np.testing.assert_array_equal(mask, draw(again, size, (0.0, 1.0)))
        if size > 3:
            others = [draw(other, size, (0.0, 1.0)) for _ in range(6)]
            same = np.array_equal(masks, others)
            assert same == (kind in WITHOUT_RANDOMNESS)


@pytest.mark.parametrize("kind", sorted(set(PUBLISHED_KINDS) - {"pic_irregular"}))
def test_a_side_of_one_pixel_is_refused(kind):
    with pytest.raises(ConfigurationError, match="mask size 1: expected at least 2 pixels"):
        PUBLISHED_KINDS[kind].draw(rng(), 1, (0.0, 1.0))


def test_the_configuration_takes_them_by_name():
    values = {"kinds": {"lama_thick_256": 1, "repaint_half": 1.0}, "stratified": False}
    config = read_config(MaskConfig, values, "masks")
    masks = draw_masks(config, 32, 60, seed=1)
    left = repaint(rng(), 32, "half")
    share = np.mean([(mask == left).all() for mask in masks])
    assert 0.25 < share < 0.75
    assert masks.mean((1, 2)).min() > 0.4
    with pytest.raises(ConfigurationError, match="did you mean 'lama_thick_256'"):
        read_config(MaskConfig, {"kinds": {"lama_thick256": 1}}, "masks")


def test_bins_that_they_reach():
    assert reachable_bins("repaint_super_resolve", 32) == (1,)
    assert reachable_bins("repaint_expand", 32) == (0,)
    assert reachable_bins("lama_thick_256", 32) == (2, 3, 4)  # at most half is hidden
    assert reachable_bins("free_form_published", 16) == (0, 1, 2, 3, 4)


def test_bins_in_which_the_published_free_form_finds_nothing(monkeypatch):
    monkeypatch.setattr(published_masks, "_MOST_TRIES", 200)
    reachable_bins.cache_clear()
    assert reachable_bins("free_form_published", 2) == (3,)  # one of four pixels hidden
    reachable_bins.cache_clear()


def test_stratified_draws_of_the_published_free_form():
    config = MaskConfig(kinds={"free_form_published": 1.0})
    masks = draw_masks(config, 32, 15, seed=2)
    assert np.bincount([bin_of(m.mean()) for m in masks]).tolist() == [3] * 5
    assert masks.any((1, 2)).all()  # the published rule never hides everything
    mask = draw_mask_in_bin(config, 64, 1, rng())
    assert 0.2 < mask.mean() < 0.4


# ---- CoModGAN's free form ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "count", "mean", "median"),
    [(32, 400, 0.83, 0.94), (64, 400, 0.87, 0.95), (128, 400, 0.81, 0.87), (512, 200, 0.65, 0.69)],
)
def test_free_form_hole_shares(size, count, mean, median):
    generator = rng(1)
    shares = holes(count, lambda: free_form_published(generator, size))
    check_mean(shares, mean)
    slack = 3 * 0.5 * math.sqrt(1 / count + 1 / MEASURED)
    assert (shares < median - 0.005).mean() < 0.5 + slack
    assert (shares < median + 0.005).mean() > 0.5 - slack
    if size in (32, 64):
        check_share((shares > 0.8).mean(), count, {32: 0.70, 64: 0.78}[size])


def test_free_form_bins_at_256_pixels():
    generator, count = rng(2), 500
    shares = holes(count, lambda: free_form_published(generator, 256))
    check_mean(shares, 0.72)
    found = np.histogram(shares, [0, 0.2, 0.4, 0.6, 0.8, 1])[0] / count
    for share, measured in zip(found, (0.01, 0.06, 0.14, 0.36, 0.42), strict=True):
        check_share(share, count, measured)


@pytest.mark.parametrize("index", range(5))
def test_free_form_stays_strictly_inside_the_range(index):
    generator, (low, high) = rng(3), hole_range_of(index)
    shares = holes(15, lambda: free_form_published(generator, 50, (low, high)))
    assert low < shares.min() <= shares.max() < high
    assert len(set(shares)) > 10


def test_free_form_draws_again_on_the_very_ends_of_the_range(monkeypatch):
    grades = iter([20, 40, 100, 0, 30, 20])

    def give(*arguments):
        return np.arange(100).reshape(10, 10) >= next(grades)

    monkeypatch.setattr(published_masks, "free_form", give)
    assert free_form_published(rng(), 10, (0.2, 0.4)).sum() == 70
    assert next(grades) == 20


def test_free_form_gives_up_with_a_message(monkeypatch):
    monkeypatch.setattr(published_masks, "_MOST_TRIES", 50)
    with pytest.raises(NoMaskInRangeError) as error:
        free_form_published(rng(), 2, (0.0, 0.2))
    assert "free form, 2 pixels, hole share strictly between 0.0 and 0.2" in str(error.value)
    with pytest.raises(ConfigurationError, match=r"hole_range = \(0.4, 0.2\)"):
        free_form_published(rng(), 16, (0.4, 0.2))


@pytest.mark.parametrize("size", [32, 256])
def test_the_brush_of_the_free_form_has_12_to_48_pixels_at_every_size(brush, size):
    generator = rng(4)
    for _ in range(60):  # strokes are not drawn: the rectangles alone decide on acceptance
        free_form_published(generator, size)
    widths = np.array([width for _, width in brush.strokes])
    assert (widths.min(), widths.max()) == (12, 47)
    assert widths.mean() == pytest.approx(29.5, abs=4 * 10.4 / math.sqrt(len(widths)))
    steps = np.array([len(path) - 1 for path, _ in brush.strokes])
    assert (steps.min(), steps.max()) == (4, 17)
    assert steps.mean() == pytest.approx(10.5, abs=4 * 4.03 / math.sqrt(len(steps)))


def test_strokes_of_the_free_form_are_zigzags(brush):
    generator, radius = rng(5), math.sqrt(2) * 256 / 8
    for _ in range(60):
        free_form_published(generator, 256)
    lengths = []
    for path, _ in brush.strokes:
        points = np.array(path)
        inside = (points > 0).all(1) & (points < 256).all(1)
        for number, (dx, dy) in enumerate(np.diff(points, axis=0)):
            length = math.hypot(dx, dy)
            if not inside[number : number + 2].all():
                continue
            lengths.append(length)
            if length > 20:
                # 2 pi / 5 give or take 2 pi / 15, and rounding; the first step and every second
                # one after it go up.
                angle = abs(math.degrees(math.atan2(dy, dx)))
                assert 48 - 5 < angle < 96 + 5
                assert (dy < 0) == (number % 2 == 0)
    assert max(lengths) <= 2 * radius + 2
    # Strokes that stay inside are short ones rather, so the mean falls a little short of the radius.
    assert 0.75 * radius < np.mean(lengths) < 1.02 * radius


def test_a_low_range_has_at_most_three_strokes(brush, monkeypatch):
    counts = []
    monkeypatch.setattr(
        masks_module, "_cut_rectangles", lambda d, r, count, *_: counts.append(count)
    )
    monkeypatch.setattr(published_masks, "_draw_until", lambda draw, accept, what: draw())
    strokes = []
    for seed in range(80):
        brush.strokes.clear()
        free_form_published(rng(seed), 64, (0.0, 0.2))
        strokes.append(len(brush.strokes))
    assert set(strokes) == {0, 1, 2, 3}
    assert set(counts[::2]) == {0, 1}  # small rectangles
    assert set(counts[1::2]) == {0}  # large ones


# ---- MAT -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "count", "mean"),
    [("large_512", 180, 0.40), ("small_512", 180, 0.21), ("large_256", 300, 0.41)],
)
def test_mat_hole_shares(name, count, mean):
    generator = rng(6)
    check_mean(holes(count, lambda: mat(generator, MAT_SETTINGS[name][0], name)), mean)


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("large_512", (4, 2, 8)),
        ("small_512", (2, 1, 3)),
        ("large_256", (3, 1, 7)),
        ("small_256", (1, 1, 2)),
    ],
)
def test_mat_counts(brush, monkeypatch, name, most):
    counts = []
    monkeypatch.setattr(
        masks_module, "_cut_rectangles", lambda d, r, count, *_: counts.append(count)
    )
    monkeypatch.setattr(published_masks, "_draw_until", lambda draw, accept, what: draw())
    strokes = []
    for seed in range(100):
        brush.strokes.clear()
        mat(rng(seed), 64, name)
        strokes.append(len(brush.strokes))
    assert set(counts[::2]) == set(range(most[0] + 1))
    assert set(counts[1::2]) == set(range(most[1] + 1))
    assert set(strokes) == set(range(most[2] + 1))


# ---- LaMa ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "filtered", "mean"),
    [
        ("thin_256", False, 0.29),
        ("medium_256", False, 0.24),
        ("thick_256", False, 0.40),
        ("thick_256", True, 0.27),
        ("thick_512", False, 0.46),
        ("thick_512", True, 0.27),
    ],
)
def test_lama_hole_shares(name, filtered, mean):
    generator = rng(7)
    side = LAMA_SETTINGS[name].side
    shares = holes(180, lambda: lama(generator, side, name, filtered))
    check_mean(shares, mean)
    assert (shares.max() <= 0.5) == filtered


# Published: strokes, widths, lengths, boxes, their sides and margin; the code draws one stroke more.
LAMA_PUBLISHED = {
    "thin_256": ((4, 50), (5, 14), (10, 49), None),
    "thin_512": ((4, 70), (5, 24), (10, 109), None),
    "medium_256": ((4, 5), (5, 54), (10, 109), ((1, 5), (10, 50), 0)),
    "medium_512": ((4, 10), (5, 104), (10, 209), ((1, 5), (30, 150), 0)),
    "thick_256": ((1, 5), (5, 104), (10, 209), ((1, 3), (30, 150), 10)),
    "thick_512": ((1, 5), (5, 254), (10, 459), ((1, 4), (30, 300), 10)),
}


def lama_strokes(segments):
    """Join segments that go on where the one before ended."""
    strokes = []
    for (start, end), width in segments:
        if strokes and strokes[-1][-1][0][1] == start:
            strokes[-1].append(((start, end), width))
        else:
            strokes.append([((start, end), width)])
    return strokes


@pytest.mark.parametrize("name", LAMA_PUBLISHED)
def test_lama_strokes(brush, name):
    (fewest, most), (thin, thick), (short, long), boxes = LAMA_PUBLISHED[name]
    side, numbers, sizes, widths, lengths, without = int(name[-3:]), set(), set(), [], [], 0
    for seed in range(120):
        brush.strokes.clear()
        lama(rng(seed), side, name, filtered=False)
        strokes = lama_strokes(brush.strokes)
        without += not strokes
        numbers.add(len(strokes))
        for number, stroke in enumerate(strokes):
            sizes.add(len(stroke))
            for ((x0, y0), (x1, y1)), width in stroke:
                widths.append(width)
                assert (x1 <= x0) if number % 2 == 0 else (x1 >= x0)
                if min(x1, y1) > 0 and max(x1, y1) < side:
                    length = math.hypot(x1 - x0, y1 - y0)
                    lengths.append(length)
                    angle = abs(math.atan2(x1 - x0, y1 - y0))
                    nearest = min(abs(angle - 0.01 - turn) for turn in range(4))
                    assert nearest < 2 / length
    assert numbers - {0} <= set(range(fewest, most + 2))
    assert max(numbers) > 0.9 * most
    assert sizes == {1, 2, 3, 4, 5}
    # OpenCV draws a line of thickness 5 seven pixels wide, and one of thickness 6 too.
    drawn = [2 * math.ceil(thickness / 2) + 1 for thickness in range(thin, thick + 1)]
    assert set(widths) <= set(drawn)
    assert (min(widths), max(widths)) == pytest.approx((drawn[0], drawn[-1]), abs=4)
    spread = np.std(drawn) / math.sqrt(len(widths))
    assert np.mean(widths) == pytest.approx(np.mean(drawn), abs=4 * spread)
    assert short - 1.5 <= min(lengths) < short + 3
    assert 0.8 * long < max(lengths) <= long + 2
    if boxes is None:
        assert without == 0
    else:
        assert without / 120 == pytest.approx(0.3 / 1.3, abs=3 * 0.04)


@pytest.mark.parametrize("name", [name for name, values in LAMA_PUBLISHED.items() if values[3]])
def test_lama_boxes(monkeypatch, name):
    numbers, (least, largest), margin = LAMA_PUBLISHED[name][3]
    assert LAMA_SETTINGS[name].boxes == numbers
    monkeypatch.setattr(published_masks, "_LAMA_BOX_SHARE", 1.0)
    one = dataclasses.replace(LAMA_SETTINGS[name], boxes=(1, 1))
    monkeypatch.setitem(LAMA_SETTINGS, name, one)
    side, sides, ends = int(name[-3:]), [], []
    for seed in range(150):
        hole = ~lama(rng(seed), side, name, filtered=False)
        rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
        assert hole.sum() == len(rows) * len(columns)
        sides += [len(rows), len(columns)]
        ends += [rows[0], columns[0], side - 1 - rows[-1], side - 1 - columns[-1]]
    assert least <= min(sides) <= max(sides) <= largest
    error = (largest - least) / math.sqrt(12 * len(sides))
    assert np.mean(sides) == pytest.approx((least + largest) / 2, abs=3 * error)
    assert margin <= min(ends) <= margin + 3


def test_lama_at_another_size_keeps_pixels_and_shares():
    for seed in range(10):
        whole = lama(rng(seed), 256, "thick_256")
        np.testing.assert_array_equal(lama(rng(seed), 64, "thick_256"), whole[2::4, 2::4])
        twice = lama(rng(seed), 512, "thick_256")
        np.testing.assert_array_equal(twice, np.kron(whole, np.ones((2, 2), dtype=bool)))
    first, second = rng(8), rng(8)
    small = holes(60, lambda: lama(first, 32, "thin_256"))
    large = holes(60, lambda: lama(second, 256, "thin_256"))
    np.testing.assert_allclose(small, large, atol=0.05)
    assert small.mean() == pytest.approx(large.mean(), abs=0.005)


def test_unknown_protocol_names_are_refused():
    with pytest.raises(ConfigurationError, match="LaMa masks = 'thick': expected one of thin_256"):
        lama(rng(), 256, "thick")
    with pytest.raises(ConfigurationError, match="MAT masks = 'large': expected one of large_256"):
        mat(rng(), 256, "large")
    with pytest.raises(ConfigurationError, match="RePaint masks = 'wide': expected one of half"):
        repaint(rng(), 256, "wide")


# ---- IPA's complement, RePaint, PIC --------------------------------------------------------------


def test_patches_missing_is_the_complement_of_patches():
    first, second = rng(9), rng(9)
    shares = []
    for _ in range(1000):
        mask = patches_missing(first, 64)
        np.testing.assert_array_equal(mask, ~patches(second, 64))
        shares.append(mask.mean())
    check_mean(1 - np.array(shares), 0.155)
    check_share(np.mean(np.array(shares) == 1), 1000, 0.17)


def test_repaint_by_hand():
    half, expand, lines, stride = (
        repaint(rng(), 8, name) for name in ("half", "expand", "every_second_line", "super_resolve")
    )
    np.testing.assert_array_equal(half, [[1, 1, 1, 1, 0, 0, 0, 0]] * 8)
    seen = np.zeros((8, 8))
    seen[3:5, 3:5] = 1
    np.testing.assert_array_equal(expand, seen)
    np.testing.assert_array_equal(lines, [[1] * 8, [0] * 8] * 4)
    np.testing.assert_array_equal(stride, [[1, 0] * 4, [0] * 8] * 4)


def test_repaint_shares_at_256_pixels():
    expected = {"half": 0.5, "every_second_line": 0.5, "super_resolve": 0.75, "expand": 0.9375}
    for name, hole in expected.items():
        assert 1 - repaint(rng(), 256, name).mean() == hole
    assert repaint(rng(), 256, "expand")[96:160, 96:160].all()


def test_repaint_wide_and_narrow_are_lamas():
    for name, same in (("repaint_wide", "lama_thick_256"), ("repaint_narrow", "lama_thin_256")):
        mask = PUBLISHED_KINDS[name].draw(rng(3), 256, (0.0, 1.0))
        np.testing.assert_array_equal(mask, PUBLISHED_KINDS[same].draw(rng(3), 256, (0.0, 1.0)))


def test_pic_centre_is_a_quarter():
    mask = PUBLISHED_KINDS["pic_centre"].draw(rng(), 64, (0.0, 1.0))
    hole = np.zeros((64, 64), dtype=bool)
    hole[16:48, 16:48] = True
    np.testing.assert_array_equal(mask, ~hole)


def test_pic_regular_agrees_with_its_definition():
    generator, size = rng(10), 48
    slow = []
    for _ in range(1000):
        seen, count = set(), int(generator.integers(1, 6))
        for _ in range(count):
            y, x = generator.integers(0, int(size * count / (count + 1)) + 1, size=2)
            bottom = y + generator.integers(size // (count + 7), size - y + 1)
            right = x + generator.integers(size // (count + 7), size - x + 1)
            seen.update((i, j) for i in range(y, bottom) for j in range(x, right))
        slow.append(len(seen) / size**2)
    shares = holes(1000, lambda: pic_regular(generator, size))
    for quantile in (0.1, 0.5, 0.9):
        level = np.quantile(slow, quantile)
        assert (shares <= level).mean() == pytest.approx(quantile, abs=0.05)
    assert shares.mean() == pytest.approx(np.mean(slow), abs=0.02)


@pytest.mark.parametrize(("size", "mean"), [(64, 0.948), (256, 0.531)])
def test_pic_irregular_hole_shares(size, mean):
    # 1,500 masks of the same distribution drawn with OpenCV.
    generator = rng(11)
    check_mean(holes(200, lambda: pic_irregular(generator, size)), mean)


def test_pic_irregular_shapes(brush, monkeypatch):
    radii = []
    monkeypatch.setattr(
        published_masks.ImageDraw.ImageDraw, "circle", lambda self, at, r, fill: radii.append(r)
    )
    numbers, lines, arcs = [], 0, []
    for seed in range(150):
        before = len(brush.strokes) + len(radii)
        pic_irregular(rng(seed), 256)
        numbers.append(len(brush.strokes) + len(radii) - before)
    for path, _ in brush.strokes:
        lines += len(path) == 2
        if len(path) > 2:
            arcs.append(path)
    total = sum(numbers)
    assert (min(numbers), max(numbers)) == pytest.approx((16, 64), abs=2)
    assert 16 <= min(numbers) <= max(numbers) <= 64
    for share, expected in ((lines, 0.6), (len(radii), 0.2), (len(arcs), 0.2)):
        assert share / total == pytest.approx(expected, abs=4 * 0.5 / math.sqrt(total))
    assert (min(radii), max(radii)) == (4, 20)
    assert {width for _, width in brush.strokes} == set(range(5, 22, 2))
    spans = [max(math.dist(path[0], point) for point in path) for path in arcs]
    assert max(spans) <= 2 * 256 + 3


def test_pic_irregular_refuses_small_images():
    with pytest.raises(
        ConfigurationError, match="pic_irregular at 32 pixels: expected at least 64"
    ):
        draw_masks(MaskConfig(kinds={"pic_irregular": 1.0}), 32, 5, seed=0)
