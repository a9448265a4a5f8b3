from __future__ import annotations

import re
import weakref

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from condvae.data import DataConfig, prepare_images
from condvae.data.formats import photographs
from condvae.data.records import assign_split
from condvae.data.sources import open_source
from condvae.ground.configuration import ConfigurationError
from condvae.ground.pictures import UnreadablePictureError, read_picture

SPLITS = ("train", "validation", "test")


def config(path, **options):
    values = {"image_size": 8, "channels": 3, "validation_share": 0.2, "test_share": 0.3}
    return DataConfig(source="photographs", path=path and str(path), **(values | options))


def numbered(count, height, width):
    """Photographs in which every pixel has a colour that no other pixel of any of them has."""
    numbers = np.arange(count * height * width, dtype=np.uint32).reshape(count, height, width)
    return np.stack([numbers >> 16, numbers >> 8 & 255, numbers & 255], -1).astype(np.uint8)


def save_all(folder, pixels):
    folder.mkdir(exist_ok=True)
    for i, picture in enumerate(pixels):
        Image.fromarray(picture).save(folder / f"{i:02}.png")


def read_all(source):
    return list(source.read(range(source.count)))


def pixels_by_split(config, folder):
    """The colours that each split has seen, from the source's own pixels."""
    split = {record.origin: record.split for record in prepare_images(config, folder).records}
    seen = {name: set() for name in SPLITS}
    for patch in read_all(open_source(config)):
        seen[split[patch.origin]].update(map(tuple, patch.pixels.reshape(-1, 3).tolist()))
    return seen


@pytest.mark.parametrize(
    ("count", "height", "width"),
    [(1, 70, 93), (2, 64, 48), (5, 40, 33), (24, 20, 31)],
    ids=["one", "two", "five", "many"],
)
def test_no_pixel_of_one_split_is_in_another(tmp_path, count, height, width):
    save_all(tmp_path / "raw", numbered(count, height, width))
    seen = pixels_by_split(config(tmp_path / "raw"), tmp_path / "store")
    assert all(seen.values())
    assert not seen["train"] & seen["test"]
    assert not seen["train"] & seen["validation"]
    assert not seen["validation"] & seen["test"]


def test_nor_in_the_bundled_photographs(tmp_path):
    bundled = config(None, image_size=32, validation_share=0.1)
    split = {r.origin: r.split for r in prepare_images(bundled, tmp_path).records}
    seen = {(photo, name): np.zeros((427, 640), bool) for photo in "cf" for name in SPLITS}
    for origin, name in split.items():
        rows, columns = re.fullmatch(r"[a-z.]+\[(\d+:\d+),(\d+:\d+)\]", origin).groups()
        (top, bottom), (left, right) = (map(int, part.split(":")) for part in (rows, columns))
        seen[origin[0], name][top:bottom, left:right] = True
    for photo in "cf":
        assert all(seen[photo, name].any() for name in SPLITS)
        assert sum(seen[photo, name].astype(int) for name in SPLITS).max() == 1


def test_the_bundled_photographs_are_those_of_scikit_learn():
    originals = dict(zip(("china.jpg", "flower.jpg"), load_sample_images().images, strict=True))
    source = open_source(config(None, image_size=32))
    assert source.class_names == ()
    sides = set()
    for patch in list(source.read(range(0, source.count, 7))):
        name, top, left = re.fullmatch(r"(.+)\[(\d+):\d+,(\d+):\d+\]", patch.origin).groups()
        side = len(patch.pixels)
        cut = originals[name][int(top) : int(top) + side, int(left) : int(left) + side]
        np.testing.assert_array_equal(patch.pixels, cut)
        sides.add(side)
    assert sides == {32, 64, 128}


def test_many_photographs_stay_whole_and_few_are_divided(tmp_path):
    save_all(tmp_path, numbered(photographs.FEWEST_REGIONS, 16, 33))
    groups = {patch.origin[:6]: patch.group for patch in read_all(open_source(config(tmp_path)))}
    assert len(set(groups.values())) == len(groups) == photographs.FEWEST_REGIONS
    (tmp_path / "00.png").unlink()
    patches = read_all(open_source(config(tmp_path)))
    # 2 x 4 blocks of 8 would be more than are asked for; of 16 there are 1 x 2 in each of 19.
    assert len({patch.group for patch in patches}) == 2 * (photographs.FEWEST_REGIONS - 1)


def test_patches_show_detail_and_the_whole_and_cover_every_pixel(tmp_path):
    whole = numbered(photographs.FEWEST_REGIONS, 35, 51)
    save_all(tmp_path, whole)
    source = open_source(config(tmp_path))
    patches = read_all(source)
    assert {patch.pixels.shape for patch in patches} == {(8, 8, 3), (16, 16, 3), (32, 32, 3)}
    assert len({patch.origin for patch in patches}) == source.count
    for side in (8, 16, 32):
        colours = {tuple(c) for p in patches if len(p.pixels) == side for c in p.pixels[0].tolist()}
        left = {tuple(c) for c in whole[:, 0, 0].tolist()}
        # 35 = 32 + 3: a single row of positions, which is centred.
        assert (left <= colours) == (side < 32)
    every = {tuple(c) for p in patches for c in p.pixels.reshape(-1, 3).tolist()}
    assert len(every) == whole[..., 0].size


def test_a_large_photograph_gives_a_bounded_number(tmp_path):
    save_all(tmp_path, np.zeros((photographs.FEWEST_REGIONS, 256, 256, 3), np.uint8))
    per_photograph = open_source(config(tmp_path)).count / photographs.FEWEST_REGIONS
    sides = 6  # 8 to 256
    assert 3 * 64 < per_photograph <= sides * photographs.MOST_POSITIONS**2


def test_copies_and_renamed_photographs_share_their_splits(tmp_path):
    pictures = numbered(photographs.FEWEST_REGIONS, 16, 16)
    save_all(tmp_path / "a", pictures)
    save_all(tmp_path / "b", np.concatenate([pictures[::-1], pictures]))
    a, b = (read_all(open_source(config(tmp_path / name))) for name in "ab")
    group = {patch.pixels.tobytes(): patch.group for patch in a}
    assert len({patch.group for patch in b}) == len(pictures)
    assert all(group[patch.pixels.tobytes()] == patch.group for patch in b)


def test_any_choice_of_patches_is_the_same_as_reading_all(tmp_path):
    save_all(tmp_path, numbered(3, 20, 24))
    source = open_source(config(tmp_path))
    every = read_all(source)
    chosen = [0, 3, source.count // 2, source.count - 2, source.count - 1]
    for one, same in zip(source.read(chosen), (every[i] for i in chosen), strict=True):
        assert (one.origin, one.group) == (same.origin, same.group)
        np.testing.assert_array_equal(one.pixels, same.pixels)


def test_one_photograph_is_held_at_a_time(tmp_path, monkeypatch):
    save_all(tmp_path, numbered(4, 20, 20))
    held = []

    def read_counting(path):
        assert not [array for array in held if array() is not None]
        # A copy of its own, which nothing but the source refers to.
        pixels = read_picture(path).copy()
        held.append(weakref.ref(pixels))
        return pixels

    monkeypatch.setattr(photographs, "read_picture", read_counting)
    for _ in open_source(config(tmp_path)).read(range(0, 40, 2)):
        pass
    assert len(held) > 1


def test_grey_and_turned_photographs_are_read_upright(tmp_path):
    pixels = np.arange(10 * 20, dtype=np.uint8).reshape(10, 20)
    exif = Image.Exif()
    exif[0x0112] = 6  # the first row is the right side
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    upright = np.rot90(pixels, -1)
    for patch in read_all(open_source(config(tmp_path))):
        top, left = map(int, re.search(r"\[(\d+):\d+,(\d+):", patch.origin).groups())
        np.testing.assert_array_equal(patch.pixels, upright[top : top + 8, left : left + 8])


@pytest.mark.parametrize("damage", ["header", "body", "small"])
def test_unusable_photographs_stop_or_are_skipped(tmp_path, damage, caplog):
    raw = tmp_path / "raw"
    save_all(raw, numbered(24, 16, 16))
    if damage == "small":
        Image.new("RGB", (40, 7)).save(raw / "11.png")
    else:
        noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(raw / "11.png")
        whole = (raw / "11.png").read_bytes()
        (raw / "11.png").write_bytes(whole[: 20 if damage == "header" else len(whole) // 2])
    message = r"40x7 pixels; expected at least 8x8" if damage == "small" else "cannot be read"
    with pytest.raises(UnreadablePictureError, match=rf"11\.png: {message}"):
        prepare_images(config(raw), tmp_path / "store")
    skipping = config(raw, unreadable="skip")
    store = prepare_images(skipping, tmp_path / "store")
    assert {record.origin[:2] for record in store.records} == {
        f"{i:02}" for i in range(24) if i != 11
    }
    source = open_source(skipping)
    # One entry for each patch that was asked for: preparation counts by them how far it is.
    assert len(list(source.read(range(source.count)))) + len(source.unreadable) == source.count
    assert source.unreadable == ["11.png"] * (5 * 5 + 1 if damage == "body" else 1)
    assert caplog.text.count("skipped: ") == 2  # by preparing and by reading, not by patch


def test_patches_are_resized_whatever_the_fit(tmp_path):
    save_all(tmp_path / "raw", numbered(24, 16, 16))
    store = prepare_images(config(tmp_path / "raw", fit="pad"), tmp_path / "store")
    large = [record for record in store.records if record.width == 16]
    assert len(large) == 24
    for record in large:
        original = Image.open(tmp_path / "raw" / record.origin[:6])
        expected = np.asarray(original.resize((8, 8), Image.Resampling.LANCZOS))
        np.testing.assert_array_equal(store.pixels[record.row], expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": ""}, "path = '': source 'photographs' needs a path"),
        ({"crop": 4}, "crop = 4: source 'photographs' cuts patches of its own"),
        ({"split": "official"}, "source 'photographs' has no published split"),
    ],
)
def test_what_does_not_go_with_patches_is_refused(options, message):
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        config(**({"path": None} | options))


def test_missing_and_empty_folders_are_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"nowhere'.*no such folder"):
        open_source(config(tmp_path / "nowhere"))
    with pytest.raises(ConfigurationError, match="no images found"):
        open_source(config(tmp_path))


def test_pictures_without_a_group_are_split_by_their_own_content(tmp_path):
    digits = DataConfig(limit=60)
    store = prepare_images(digits, tmp_path)
    shares = (digits.validation_share, digits.test_share, digits.seed)
    assert [r.split for r in store.records] == [
        assign_split(r.sha256, *shares) for r in store.records
    ]
