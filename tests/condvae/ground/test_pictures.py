from __future__ import annotations

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from condvae.ground.pictures import UnreadablePictureError, read_picture
from condvae.masks.files import MaskFileError, mask_shape, read_mask

RED, BLUE = (255, 0, 0), (0, 0, 255)


def test_exif_orientation_is_applied(tmp_path):
    picture = Image.new("RGB", (3, 2), BLUE)
    picture.putpixel((0, 0), RED)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to look at it
    picture.save(tmp_path / "a.png", exif=exif)
    pixels = read_picture(tmp_path / "a.png")
    assert pixels.shape == (3, 2, 3)
    assert tuple(pixels[0, 1]) == RED  # the top left corner goes to the top right
    assert tuple(pixels[0, 0]) == BLUE


# Where the first row and column of the stored pixels stand (TIFF 6.0, tag 274), as moves of an array.
UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: stored.swapaxes(0, 1)[:, ::-1],
    7: lambda stored: stored.swapaxes(0, 1)[::-1, ::-1],
    8: lambda stored: stored.swapaxes(0, 1)[::-1],
}


def save_turned(path, pixels, orientation):
    """Write pixels as they are stored, with a tag that says how to look at them."""
    picture = Image.fromarray(pixels)
    if path.suffix == ".tif":
        picture.save(path, tiffinfo={274: orientation})
        return
    exif = Image.Exif()
    exif[274] = orientation
    picture.save(path, exif=exif, **({"lossless": True} if path.suffix == ".webp" else {}))


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("suffix", [".tif", ".png", ".webp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_and_masks_are_upright(tmp_path, orientation, suffix, channels):
    rng = np.random.default_rng(orientation)
    stored = rng.integers(0, 256, (20, 30, channels), np.uint8)
    upright = UPRIGHT[orientation](stored)
    save_turned(
        tmp_path / f"a{suffix}", stored.squeeze(2) if channels == 1 else stored, orientation
    )
    found = read_picture(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(found.reshape((*found.shape[:2], -1))[..., :1], upright[..., :1])
    white = (stored[..., 0] > 127).astype(np.uint8) * 255
    save_turned(tmp_path / f"mask{suffix}", white, orientation)
    mask = read_mask(tmp_path / f"mask{suffix}", upright.shape[:2])
    np.testing.assert_array_equal(mask, UPRIGHT[orientation](white) == 0)
    assert mask_shape(tmp_path / f"mask{suffix}") == upright.shape[:2]


def test_broken_facts_about_a_camera_do_not_hide_good_pixels(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3
    exif[0x011A] = 72.0  # a resolution, written as a rational number
    content = io.BytesIO()
    stored = np.random.default_rng(0).integers(0, 256, (8, 9), np.uint8)
    Image.fromarray(stored).save(content, "PNG", exif=exif)
    picture = Image.open(content)
    broken = picture.info["exif"].replace(
        struct.pack(">II", 72, 1), struct.pack(">II", 2**32 - 1, 0)
    )
    broken = broken.replace(struct.pack("<II", 72, 1), struct.pack("<II", 2**32 - 1, 0))
    assert broken != picture.info["exif"]
    Image.fromarray(stored).save(tmp_path / "a.png", exif=broken)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), stored[::-1, ::-1])


def test_whatever_a_decoder_raises_names_the_file(tmp_path, monkeypatch):
    Image.new("L", (4, 4)).save(tmp_path / "a.png")

    def fail(*_):
        raise struct.error("argument out of range")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(
        UnreadablePictureError, match=r"a\.png: cannot be read.*argument out of range"
    ):
        read_picture(tmp_path / "a.png")
    with pytest.raises(MaskFileError, match=r"a\.png: cannot be read.*argument out of range"):
        read_mask(tmp_path / "a.png", (4, 4))
    assert mask_shape(tmp_path / "a.png") is None


def test_alpha_is_composited_on_black(tmp_path):
    Image.new("RGBA", (2, 2), (200, 100, 50, 128)).save(tmp_path / "a.png")
    pixels = read_picture(tmp_path / "a.png")
    assert pixels.shape == (2, 2, 3)
    np.testing.assert_allclose(pixels[0, 0], np.array([200, 100, 50]) * 128 / 255, atol=1)


def test_grey_with_alpha_is_composited_too(tmp_path):
    Image.new("LA", (2, 2), (200, 0)).save(tmp_path / "a.png")
    assert not read_picture(tmp_path / "a.png").any()


def test_palettes_are_resolved_and_their_transparent_entry_is_black(tmp_path):
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putdata([0, 1])
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), [[[10, 20, 30], [40, 50, 60]]])
    picture.save(tmp_path / "b.png", transparency=1)
    np.testing.assert_array_equal(read_picture(tmp_path / "b.png"), [[[10, 20, 30], [0, 0, 0]]])


@pytest.mark.parametrize(("mode", "white"), [("1", 1), ("L", 255)])
def test_grey_pictures_stay_grey(tmp_path, mode, white):
    Image.new(mode, (3, 2), white).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), np.full((2, 3), 255))


def test_other_colour_spaces_become_rgb(tmp_path):
    Image.new("CMYK", (8, 8), (0, 0, 0, 0)).save(tmp_path / "a.jpg")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.jpg"), np.full((8, 8, 3), 255))


def write_png(path, width, height, depth, colour_type, rows):
    def chunk(kind, data):
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def write_rgb_png_of_16_bits(path):
    write_png(path, 1, 1, 16, 2, b"\0" + struct.pack(">HHH", 1000, 2000, 3000))


@pytest.mark.parametrize("name", ["grey.png", "grey.tif", "float.tif", "colour.png"])
def test_more_than_8_bits_are_refused_by_name(tmp_path, name):
    path = tmp_path / name
    if name == "colour.png":
        write_rgb_png_of_16_bits(path)
    else:
        kind = np.float32 if name.startswith("float") else np.uint16
        Image.fromarray(np.full((4, 4), 1000, kind)).save(path)
    with pytest.raises(UnreadablePictureError, match=rf"{name}: more than 8 bits per channel"):
        read_picture(path)


def test_broken_files_are_refused_by_name(tmp_path):
    (tmp_path / "a.png").write_text("not a picture")
    with pytest.raises(UnreadablePictureError, match=r"a\.png: cannot be read"):
        read_picture(tmp_path / "a.png")


def test_formats_that_other_programs_decode_are_refused_whatever_their_name(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    with pytest.raises(UnreadablePictureError, match=r"a\.png: cannot be read"):
        read_picture(tmp_path / "a.png")


def test_a_picture_bomb_is_refused_before_it_is_unpacked(tmp_path):
    # 400 million pixels in a few dozen kilobytes.
    write_png(tmp_path / "a.png", 20_000, 20_000, 1, 0, bytes(20_000 * 2501))
    tracemalloc.start()
    with pytest.raises(UnreadablePictureError, match=r"a\.png: cannot be read .*bomb"):
        read_picture(tmp_path / "a.png")
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_a_text_bomb_inside_a_picture_is_refused(tmp_path):
    text = b"Comment\0\0" + zlib.compress(bytes(2**27))
    write_png(tmp_path / "a.png", 1, 1, 8, 0, b"\0\0")
    whole = (tmp_path / "a.png").read_bytes()
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text
    chunk += struct.pack(">I", zlib.crc32(b"zTXt" + text))
    (tmp_path / "a.png").write_bytes(whole[:33] + chunk + whole[33:])
    with pytest.raises(UnreadablePictureError, match=r"a\.png: cannot be read"):
        read_picture(tmp_path / "a.png")
