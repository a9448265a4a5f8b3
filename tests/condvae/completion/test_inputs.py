from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image

from condvae.completion import CompletionSettings, check_pictures, inputs, read_input
from condvae.completion.geometry import fill_hole
from condvae.completion.inputs import find_pictures, left_aside, pair_masks
from condvae.data.canvas import fit_to_canvas
from condvae.ground.configuration import ConfigurationError
from condvae.ground.files import sha256_of_file
from condvae.ground.images import DataContract
from condvae.ground.pictures import UnreadablePictureError
from condvae.masks.files import MaskFileError

GREY = DataContract(1, 16, 100.0, 50.0)
COLOUR = DataContract(3, 16, 100.0, 50.0)
SETTINGS = CompletionSettings()


@pytest.mark.parametrize("size", [(32, 32), (50, 37), (16, 16), (97, 16), (129, 200)])
@pytest.mark.parametrize("mask_of", ["picture", "model"])
def test_nothing_in_the_hole_reaches_what_is_observed(make_picture, make_mask, size, mask_of):
    path = make_picture(size=size, channels=3)
    width, height = size
    hole = (width // 3, height // 3, width // 2 + 1, height // 2 + 1)
    if mask_of == "picture":
        mask = make_mask(size=size, hole=hole)
    else:
        mask = make_mask(size=(16, 16), hole=(5, 5, 9, 9))
    before = read_input(path, mask, COLOUR, SETTINGS)
    pixels = np.array(Image.open(path))
    inside = pixels[hole[1] : hole[3], hole[0] : hole[2]]
    if mask_of == "model":
        # Only pixels that lie well inside the hole of the canvas.
        left, top, right, bottom = before.box
        across, down = (right - left) / 16, (bottom - top) / 16
        inside = pixels[
            int(top + 5.5 * down) : int(top + 8.5 * down) + 1,
            int(left + 5.5 * across) : int(left + 8.5 * across) + 1,
        ]
    inside[:] = 255 - inside
    Image.fromarray(pixels).save(path)
    after = read_input(path, mask, COLOUR, SETTINGS)
    np.testing.assert_array_equal(after.mask, before.mask)
    assert 0 < before.mask.sum() < 256
    np.testing.assert_array_equal(after.pixels[after.mask], before.pixels[before.mask])
    assert not np.array_equal(after.pixels, before.pixels)


def test_plain_resampling_would_leak(make_picture, make_mask):
    # The test above is about something: kernels do reach over the border of the hole.
    path = make_picture(size=(64, 64))
    canvas = read_input(path, make_mask(size=(64, 64), hole=(24, 24, 40, 40)), GREY, SETTINGS)
    pixels = np.array(Image.open(path))
    pixels[24:40, 24:40] = 255 - pixels[24:40, 24:40]
    leaked = fit_to_canvas(pixels[..., None], 16, "resize")
    assert not np.array_equal(leaked[canvas.mask], canvas.pixels[canvas.mask])


def test_far_from_the_hole_pixels_are_those_of_the_data_preparation(make_picture, make_mask):
    path = make_picture(size=(60, 44))
    canvas = read_input(path, make_mask(size=(60, 44), hole=(0, 40, 60, 44)), GREY, SETTINGS)
    expected = fit_to_canvas(np.array(Image.open(path))[..., None], 16, "resize")
    np.testing.assert_array_equal(canvas.pixels[:11], expected[:11])
    assert canvas.mask[:14].all()
    assert not canvas.mask[15].any()
    assert canvas.size == (60, 44)
    assert canvas.warnings == ()


def test_every_kind_of_file_becomes_the_same_canvas(make_picture, make_mask, tmp_path):
    mask = make_mask(size=(16, 20), hole=(0, 16, 16, 20))
    upright = np.array(Image.open(make_picture(size=(16, 20))))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    grey = Image.fromarray(upright)
    alpha = Image.new("L", (16, 20), 255)
    saved = {
        "turned.png": (Image.fromarray(np.rot90(upright)), {"exif": exif}),
        "rgba.png": (Image.merge("RGBA", [grey, grey, grey, alpha]), {}),
        "palette.gif": (grey.convert("P"), {}),
        "grey_alpha.png": (Image.merge("LA", [grey, alpha]), {}),
    }
    for name, (picture, options) in saved.items():
        picture.save(tmp_path / name, **options)
        for contract in (GREY, COLOUR):
            canvas = read_input(tmp_path / name, mask, contract, SETTINGS)
            assert canvas.size == (16, 20)
            np.testing.assert_array_equal(
                canvas.pixels, np.broadcast_to(upright[2:18, :, None], canvas.pixels.shape)
            )
    alpha.paste(0, (0, 0, 16, 10))
    Image.merge("RGBA", [grey, grey, grey, alpha]).save(tmp_path / "half.png")
    half = read_input(tmp_path / "half.png", mask, GREY, SETTINGS)
    assert (half.pixels[:8] == 0).all()


def test_colours_become_the_luma_of_a_grey_model(make_mask, tmp_path):
    Image.new("RGB", (20, 20), (255, 0, 0)).save(tmp_path / "red.png")
    canvas = read_input(tmp_path / "red.png", make_mask(size=(20, 20)), GREY, SETTINGS)
    assert canvas.pixels[canvas.mask].tolist() == [[76]] * int(canvas.mask.sum())


def test_polarity(make_picture, make_mask):
    path, mask = make_picture(), make_mask()
    white = CompletionSettings(polarity="white_is_observed")
    one, other = (read_input(path, mask, GREY, how).mask for how in (SETTINGS, white))
    np.testing.assert_array_equal(one, ~other)
    assert one[:8].all()
    assert not one[8:].any()


def test_sixteen_bits_are_refused(make_mask, tmp_path):
    Image.fromarray(np.zeros((32, 32), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(UnreadablePictureError, match=r"deep\.png: more than 8 bits per channel"):
        read_input(tmp_path / "deep.png", make_mask(), GREY, SETTINGS)


def test_small_pictures_are_refused_or_enlarged(make_picture, make_mask):
    path, mask = make_picture("tiny.png", (40, 12)), make_mask(size=(40, 12), hole=(14, 0, 20, 5))
    with pytest.raises(ConfigurationError) as error:
        read_input(path, mask, GREY, SETTINGS)
    assert str(error.value) == (
        f"{path}: picture of 40 x 12 pixels (width x height); the model has 16 x 16, expected a "
        "short side of 16 at least; take a larger picture or set small: enlarge"
    )
    canvas = read_input(path, mask, GREY, CompletionSettings(small="enlarge"))
    assert canvas.pixels.shape == (16, 16, 1)
    assert canvas.warnings == ("enlarged from 40 x 12 pixels: smaller than the model",)


def test_masks_of_another_size_are_refused(make_picture, make_mask, tmp_path):
    path, mask = make_picture(size=(30, 20)), make_mask(size=(20, 30), hole=(0, 0, 5, 15))
    with pytest.raises(MaskFileError) as error:
        read_input(path, mask, GREY, SETTINGS)
    assert str(error.value) == (
        f"{mask}: mask of 20 x 30 pixels (width x height); expected 30 x 20 as a.png, or 16 x 16 as "
        "the model"
    )
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(mask).save(tmp_path / "turned.png", exif=exif)
    turned = read_input(path, tmp_path / "turned.png", GREY, SETTINGS).mask
    expected = np.ones((16, 16), dtype=bool)
    expected[:4, 8:] = False
    np.testing.assert_array_equal(turned, expected)
    np.save(tmp_path / "flat.npy", np.zeros(4))
    with pytest.raises(MaskFileError, match=r"flat\.npy: float64 of shape \(4,\)"):
        read_input(path, tmp_path / "flat.npy", GREY, SETTINGS)


def test_masks_that_are_not_two_valued_or_hide_nothing_are_refused(make_picture, make_mask):
    path = make_picture()
    mask = make_mask(hole=(0, 0, 0, 0))
    with pytest.raises(MaskFileError, match=r"mask\.png: every pixel is observed \(value 0"):
        read_input(path, mask, GREY, SETTINGS)
    Image.fromarray(np.arange(1024, dtype=np.uint32).reshape(32, 32).astype(np.uint8)).save(mask)
    with pytest.raises(MaskFileError, match=r"mask\.png: not two-valued: pixel values 0, 1, 2"):
        read_input(path, mask, GREY, SETTINGS)
    with pytest.raises(MaskFileError, match=r"none\.png: no such mask file"):
        read_input(path, mask.with_name("none.png"), GREY, SETTINGS)


def test_a_hole_outside_the_part_seen_is_refused(make_picture, make_mask):
    path, mask = make_picture(size=(64, 32)), make_mask(size=(64, 32), hole=(0, 0, 15, 32))
    with pytest.raises(MaskFileError) as error:
        read_input(path, mask, GREY, SETTINGS)
    assert str(error.value).startswith(
        f"{mask}: the hole lies outside the part of a.png that the model sees (columns 16 to 48, "
        "rows 0 to 32 of 64 x 32), where every pixel is observed"
    )


def test_nothing_observed_is_said(make_picture, make_mask):
    path = make_picture()
    everything = read_input(path, make_mask(hole=(0, 0, 32, 32)), GREY, SETTINGS)
    assert everything.warnings == ("nothing is observed: the completions ignore the picture",)
    # One column of pixels is seen, half as wide as a pixel of the model.
    sliver = read_input(path, make_mask(hole=(1, 0, 32, 32)), GREY, SETTINGS)
    assert "no pixel of the model is wholly observed" in sliver.warnings[0]


def test_a_mask_that_hides_nearly_everything_is_asked_about(make_picture, make_mask):
    mask = make_mask(hole=(1, 0, 32, 32))
    found = read_input(make_picture(), mask, GREY, SETTINGS).warnings[-1]
    assert "hides 97 %" in found
    assert "polarity to white_is_observed" in found
    assert not read_input(make_picture(), make_mask(hole=(8, 0, 32, 32)), GREY, SETTINGS).warnings


def test_names_that_cannot_be_written_are_refused_before_any_work(make_picture, tmp_path):
    path = make_picture("a.png")
    name = os.fsdecode(b"caf\xe9.png")
    path.rename(path.with_name(name))
    for images in (path.parent, path.with_name(name)):
        with pytest.raises(
            ConfigurationError, match=r"caf\\udce9\.png': a file name that is no UTF-8"
        ):
            find_pictures(images)


def test_pictures_are_found_by_their_endings(make_picture, tmp_path, caplog):
    for name in ("b.PNG", "a.jpg", "c.gif", ".hidden.png"):
        make_picture(name)
    folder = tmp_path / "images"
    (folder / "notes.txt").write_text("left alone")
    (folder / "below.png").mkdir()
    assert [path.name for path in find_pictures(folder)] == ["a.jpg", "b.PNG", "c.gif"]
    (folder / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert len(find_pictures(folder)) == 3
    said = caplog.messages[-1].split("left aside: ")[1]
    assert set(said.split("; ")) == {
        "1 hidden, or left by file managers (.hidden.png)",
        "1 folders (below.png)",
        "1 broken links (gone.png)",
        "1 ending .txt (notes.txt)",
    }
    assert left_aside(folder)["gone.png"] == "broken links"
    assert find_pictures(folder / "b.PNG") == [folder / "b.PNG"]
    with pytest.raises(ConfigurationError, match=r"nowhere': no such file or folder"):
        find_pictures(tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match=r"no pictures found; expected files ending in"):
        find_pictures(folder / "below.png")
    make_picture("B.bmp")
    with pytest.raises(ConfigurationError, match=r"B\.bmp and b\.PNG differ in nothing but"):
        find_pictures(folder)


def test_pictures_without_a_mask_are_named_and_the_others_keep_theirs(
    make_picture, make_mask, tmp_path
):
    pictures = [make_picture(f"{name}.png") for name in "abcde"]
    for name in ("a.png", "d.png", "e.png", "e.bmp"):
        make_mask(f"masks/{name}")
    pairs, rejected = pair_masks(pictures, tmp_path / "masks")
    assert pairs == [(path, tmp_path / "masks" / path.name) for path in (pictures[0], pictures[3])]
    assert [one.picture.name for one in rejected] == ["b.png", "c.png", "e.png"]
    assert "no mask for 1 of 1 pictures: b;" in rejected[0].message
    assert rejected[0].message.startswith(f"{pictures[1]}: ")
    assert "several masks for picture e: e.bmp, e.png" in rejected[2].message
    with pytest.raises(MaskFileError, match=r"masks = '.*nowhere': no such file or folder"):
        pair_masks(pictures, tmp_path / "nowhere")


def test_mistakes_are_told_together(make_picture, make_mask, tmp_path):
    good = make_picture("good.png")
    for number in range(8):
        (tmp_path / "images" / f"bad{number}.png").write_text("no picture")
    mask = make_mask()
    with pytest.raises(ConfigurationError) as error:
        check_pictures(tmp_path / "images", mask, GREY, SETTINGS)
    lines = str(error.value).splitlines()
    assert lines[0] == "8 of 9 pictures cannot be used; nothing was written"
    assert [f"bad{number}.png: cannot be read" in lines[1 + number] for number in range(6)]
    assert len(lines) == 9
    assert lines[7] == "  ... and 2 more"
    assert lines[8] == "unreadable: skip goes on without them"
    usable, rejected = check_pictures(
        tmp_path / "images", mask, GREY, CompletionSettings(unreadable="skip")
    )
    assert [one.picture.name for one in rejected] == [f"bad{number}.png" for number in range(8)]
    (files,) = usable
    assert (files.picture, files.mask, files.name) == (good, mask, "good")
    assert files.picture_sha256 == sha256_of_file(good)
    assert files.case_id == f"{sha256_of_file(good)[:16]}-{sha256_of_file(mask)[:16]}"


def test_nothing_usable_is_an_error_even_when_skipping(make_mask, tmp_path):
    (tmp_path / "bad.png").write_text("no picture")
    with pytest.raises(ConfigurationError, match="1 of 1 pictures cannot be used") as error:
        check_pictures(
            tmp_path / "bad.png", make_mask(), GREY, CompletionSettings(unreadable="skip")
        )
    assert "goes on" not in str(error.value)


def test_checking_reads_but_does_not_resample(make_picture, make_mask, monkeypatch):
    for name in "ab":
        make_picture(f"{name}.png", seed=ord(name))
    for name in ("fill_hole", "fit_to_canvas"):
        monkeypatch.setattr(inputs, name, None)
    heard = []
    pictures, _ = check_pictures(
        make_picture("c.png").parent,
        make_mask(),
        GREY,
        CompletionSettings(),
        on_check=lambda number, count: heard.append((number, count)),
    )
    assert len(pictures) == 3
    assert heard == [(1, 3), (2, 3), (3, 3)]


def test_what_lies_beyond_the_reach_of_resampling_is_not_filled(make_mask, tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 400), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    mask = make_mask(size=(400, 64), hole=(150, 16, 400, 48))
    how = (tmp_path / "wide.png", mask, GREY, CompletionSettings())
    shapes = []

    def fill(part, observed):
        shapes.append(observed.shape)
        return fill_hole(part, observed)

    monkeypatch.setattr(inputs, "fill_hole", fill)
    expected = read_input(*how)
    # 64 columns are seen and 4 pixels of the canvas, 16 columns, on either side.
    assert shapes == [(64, 96)]
    # Whatever stays unfilled outside does not count.
    pixels[16:48, 248:] = 255 - pixels[16:48, 248:]
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    found = read_input(*how)
    seen = expected.mask
    np.testing.assert_array_equal(found.pixels[seen], expected.pixels[seen])
