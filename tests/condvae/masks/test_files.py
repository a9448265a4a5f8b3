from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from condvae.ground.configuration import ConfigurationError
from condvae.masks.files import MaskFileError, find_masks, read_mask, read_masks

HOLE = np.zeros((4, 6), dtype=bool)
HOLE[1:3, 2:5] = True
WHITE = np.where(HOLE, 255, 0).astype(np.uint8)


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


def message_of(path, shape=(4, 6), polarity="white_is_hole"):
    with pytest.raises(MaskFileError) as error:
        read_mask(path, shape, polarity)
    assert isinstance(error.value, ConfigurationError)
    assert str(error.value).startswith(f"{path}: ")
    return str(error.value)


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "tiff", "PNG"])
def test_grey_pictures_with_holes_in_white_by_default(tmp_path, ending):
    mask = read_mask(save(tmp_path / f"m.{ending}", WHITE), (4, 6))
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, ~HOLE)


def test_the_other_polarity(tmp_path):
    path = save(tmp_path / "m.png", WHITE)
    np.testing.assert_array_equal(read_mask(path, (4, 6), "white_is_observed"), HOLE)
    with pytest.raises(ConfigurationError, match=r"polarity = 'white_is_known': expected one of"):
        read_mask(path, (4, 6), "white_is_known")


def test_every_way_to_store_black_and_white(tmp_path):
    three = np.repeat(WHITE[..., None], 3, axis=2)
    opaque = np.dstack([three, np.full((4, 6), 255, np.uint8)])
    palette = Image.fromarray(HOLE.astype(np.uint8))
    palette = Image.fromarray(np.asarray(palette), "L").convert("P")
    palette.putpalette([0, 0, 0, 255, 255, 255] + [7] * 762)
    palette.save(tmp_path / "palette.png")
    save(tmp_path / "one_bit.png", HOLE)
    save(tmp_path / "ones.png", HOLE.astype(np.uint8))
    save(tmp_path / "colour.png", three)
    save(tmp_path / "opaque.png", opaque)
    Image.fromarray(WHITE).convert("LA").save(tmp_path / "grey_opaque.png")
    for name, dtype in (("b", bool), ("i", np.int64), ("f", np.float32), ("u", np.uint8)):
        np.save(tmp_path / f"{name}.npy", HOLE.astype(dtype))
    np.save(tmp_path / "u255.npy", WHITE)
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 11
    for path in paths:
        np.testing.assert_array_equal(read_mask(path, (4, 6)), ~HOLE, err_msg=path.name)


def test_pictures_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(WHITE).save(tmp_path / "m.png", exif=exif)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", (6, 4)), np.rot90(~HOLE, -1))


def test_a_mask_that_hides_everything_is_taken(tmp_path):
    for value, polarity in ((255, "white_is_hole"), (1, "white_is_hole"), (0, "white_is_observed")):
        path = save(tmp_path / "m.png", np.full((4, 6), value, np.uint8))
        assert not read_mask(path, (4, 6), polarity).any()


@pytest.mark.parametrize(
    ("value", "polarity", "found"),
    [
        (0, "white_is_hole", "value 0 everywhere, black, with polarity white_is_hole"),
        (255, "white_is_observed", "value 255 everywhere, white, with polarity white_is_observed"),
    ],
)
def test_a_mask_that_hides_nothing_is_refused(tmp_path, value, polarity, found):
    path = save(tmp_path / "m.png", np.full((4, 6), value, np.uint8))
    message = message_of(path, polarity=polarity)
    assert "every pixel is observed" in message
    assert found in message


def test_a_mask_of_another_size_is_refused(tmp_path):
    message = message_of(save(tmp_path / "m.png", WHITE), shape=(32, 32))
    assert "mask of 6 x 4 pixels (width x height); expected 32 x 32" in message
    assert "expected 4 x 6" in message_of(save(tmp_path / "m.png", WHITE), shape=(6, 4))


def test_jpeg_artefacts_are_named(tmp_path):
    disc = np.hypot(*(np.mgrid[:32, :32] - 16)) < 9
    path = save(tmp_path / "m.jpg", np.where(disc, 255, 0).astype(np.uint8), quality=60)
    message = message_of(path, shape=(32, 32))
    assert "not two-valued: pixel values 0, 1, 2" in message
    assert f"({len(np.unique(np.asarray(Image.open(path))))} different)" in message
    assert "expected only 0 and 255 (or 0 and 1)" in message
    assert "JPEG compression blurs edges: save the mask as PNG" in message
    # The same pixels saved again as PNG.
    again = save(tmp_path / "again.png", np.asarray(Image.open(path)))
    assert "threshold the mask" in message_of(again, shape=(32, 32))


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ((0, 128), "not black and white: pixel values 0, 128;"),
        ((7, 255), "not black and white: pixel values 7, 255;"),
        ((7, 7), "not black and white: pixel values 7;"),
        ((0, 1, 255), "not two-valued: pixel values 0, 1, 255;"),
    ],
)
def test_other_values_are_named(tmp_path, values, found):
    array = np.resize(np.array(values, dtype=np.uint8), (4, 6))
    assert found in message_of(save(tmp_path / "m.png", array))


def test_more_than_8_bits_are_named(tmp_path):
    path = save(tmp_path / "m.png", np.where(HOLE, 65535, 0).astype(np.uint16))
    assert "pixel values 0, 65535" in message_of(path)


def test_nan_is_named(tmp_path):
    np.save(tmp_path / "m.npy", np.where(HOLE, np.nan, 0.0))
    assert "pixel values 0.0, nan" in message_of(tmp_path / "m.npy")


@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0)])
def test_a_shape_in_the_alpha_channel_is_named(tmp_path, colour):
    pixels = np.dstack([np.full((4, 6, 3), colour, np.uint8), WHITE])
    message = message_of(save(tmp_path / "m.png", pixels))
    assert f"all pixels have the colour {colour}; the shape is in the alpha channel" in message
    assert "values 0, 255" in message
    assert "save it as black and white without transparency" in message


def test_a_shape_in_the_alpha_channel_of_a_grey_picture_is_named(tmp_path):
    grey = Image.merge("LA", [Image.new("L", (6, 4), 255), Image.fromarray(WHITE)])
    grey.save(tmp_path / "m.png")
    assert "the shape is in the alpha channel" in message_of(tmp_path / "m.png")


def test_colours_and_half_transparent_shapes_are_not_guessed(tmp_path):
    three = np.repeat(WHITE[..., None], 3, axis=2)
    partly = np.dstack([three, np.where(HOLE, 10, 255).astype(np.uint8)])
    assert "partly transparent (alpha values 10, 255)" in message_of(
        save(tmp_path / "partly.png", partly)
    )
    three[..., 2] = 0  # yellow on black
    message = message_of(save(tmp_path / "yellow.png", three))
    assert "coloured pixels ((0, 0, 0), (255, 255, 0))" in message


def test_missing_and_broken_files_are_named(tmp_path):
    assert "no such mask file" in message_of(tmp_path / "none.png")
    whole = save(tmp_path / "whole.png", WHITE).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    assert "cannot be read as an image" in message_of(tmp_path / "cut.png")
    (tmp_path / "text.png").write_text("no picture")
    assert "cannot be read as an image" in message_of(tmp_path / "text.png")
    (tmp_path / "text.npy").write_text("no array")
    assert "cannot be read as an array" in message_of(tmp_path / "text.npy")
    np.save(tmp_path / "cut.npy", HOLE)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:-5])
    assert "cannot be read as an array" in message_of(tmp_path / "cut.npy")


def test_arrays_must_be_numbers_in_two_axes(tmp_path):
    np.save(tmp_path / "m.npy", HOLE[None])
    assert "bool of shape (1, 4, 6); expected a bool or number array" in message_of(
        tmp_path / "m.npy"
    )
    np.save(tmp_path / "m.npy", np.full((4, 6), "a"))
    assert "<U1 of shape (4, 6)" in message_of(tmp_path / "m.npy")
    np.save(tmp_path / "m.npy", np.array([[{}]]), allow_pickle=True)  # never unpickled
    assert "cannot be read as an array" in message_of(tmp_path / "m.npy")
    np.save(tmp_path / "m.npy", np.zeros((0, 6)))
    assert "expected at least one pixel" in message_of(tmp_path / "m.npy")


def test_one_file_serves_all_pictures_and_is_read_once(tmp_path):
    path = save(tmp_path / "m.png", WHITE)
    assert find_masks(path, ["a", "b"]) == {"a": path, "b": path}
    masks = read_masks(path, ["a", "b"], (4, 6))
    assert list(masks) == ["a", "b"]
    assert masks["a"] is masks["b"]
    np.testing.assert_array_equal(masks["a"], ~HOLE)


def test_a_folder_holds_one_mask_per_picture(tmp_path):
    save(tmp_path / "b.PNG", WHITE)
    np.save(tmp_path / "a.npy", ~HOLE)
    (tmp_path / "notes.txt").write_text("left alone")
    (tmp_path / "c.png").mkdir()
    save(tmp_path / "unused.png", WHITE)
    files = find_masks(tmp_path, ["b", "a"])
    assert list(files.items()) == [("b", tmp_path / "b.PNG"), ("a", tmp_path / "a.npy")]
    masks = read_masks(tmp_path, ["b", "a"], (4, 6))
    np.testing.assert_array_equal(masks["b"], ~HOLE)
    np.testing.assert_array_equal(masks["a"], HOLE)
    assert not np.array_equal(
        read_masks(tmp_path, ["b"], (4, 6), "white_is_observed")["b"], masks["b"]
    )


def test_a_stem_may_hold_a_point(tmp_path):
    path = save(tmp_path / "img.001.png", WHITE)
    assert find_masks(tmp_path, ["img.001"]) == {"img.001": path}


def test_pictures_without_a_mask_are_named(tmp_path):
    save(tmp_path / "a.png", WHITE)
    with pytest.raises(MaskFileError) as error:
        find_masks(tmp_path, ["a", "b", "c"])
    message = str(error.value)
    assert message.startswith(f"{tmp_path}: no mask for 2 of 3 pictures: b, c;")
    assert "ends in .png, .bmp, .tif, .tiff, .npy" in message
    with pytest.raises(
        MaskFileError, match=r"no mask for 9 of 9 pictures: 0, 1, 2, 3, 4, 5, \.\.\.;"
    ):
        find_masks(tmp_path, [str(i) for i in range(9)])
    with pytest.raises(MaskFileError, match="no such mask file or folder"):
        find_masks(tmp_path / "none", ["a"])


def test_two_masks_for_a_picture_are_refused(tmp_path):
    save(tmp_path / "a.png", WHITE)
    save(tmp_path / "a.bmp", WHITE)
    with pytest.raises(MaskFileError, match=r"several masks for picture a: a\.bmp, a\.png"):
        find_masks(tmp_path, ["a"])
    save(tmp_path / "b.png", WHITE)
    assert find_masks(tmp_path, ["b"]) == {"b": tmp_path / "b.png"}


def test_names_match_in_any_form_of_unicode(tmp_path):
    composed, apart = "caf\u00e9", "cafe\u0301"
    Image.new("L", (4, 4)).save(tmp_path / f"{apart}.png")
    assert find_masks(tmp_path, [composed]) == {composed: tmp_path / f"{apart}.png"}
