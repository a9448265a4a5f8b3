"""Image files to arrays, for pictures and masks alike: upright, 8 bits, transparency on black."""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from condvae.ground.configuration import ConfigurationError
from condvae.ground.files import PICTURE_FORMATS

__all__ = ["UnreadablePictureError", "open_upright", "read_picture"]

# What makes a picture upright, by its EXIF orientation.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadablePictureError(ConfigurationError):
    """An image file that is broken or has more than 8 bits per channel; the message names it."""


def open_upright(path: Path | IO[bytes], *, deep: bool = False) -> Image.Image:
    """Decode an image file and turn it as its EXIF orientation says.

    Args:
        path: A file in one of `PICTURE_FORMATS`, whatever its name; messages show it as text.
        deep: Take pictures of more than 8 bits per channel too.

    Returns:
        The picture in its own mode; of an animation, the first frame.

    Raises:
        UnreadablePictureError: Broken file, or more than 8 bits per channel.
    """
    try:
        # From memory: a TIFF that Pillow maps from the disk comes out scrambled where it is turned.
        content = path.read_bytes() if isinstance(path, Path) else path.read()
        with Image.open(io.BytesIO(content), formats=PICTURE_FORMATS) as picture:
            if not deep:
                _check_depth(picture, path)
            picture.load()  # which turns a TIFF, and forgets its orientation
            turn = _TURNS.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
            return picture.copy() if turn is None else picture.transpose(turn)
    except UnreadablePictureError:
        raise
    except UnidentifiedImageError:
        raise UnreadablePictureError(
            f"{path}: cannot be read as an image (no {', '.join(PICTURE_FORMATS)} file)"
        ) from None
    except Exception as error:  # decoders raise what they like: SyntaxError, struct.error, KeyError
        said = f"{error}" or type(error).__name__
        raise UnreadablePictureError(f"{path}: cannot be read as an image ({said})") from error


def read_picture(path: Path | IO[bytes]) -> npt.NDArray[np.uint8]:
    """Read an image file.

    The EXIF orientation is applied, palettes are resolved, transparent pixels are composited on
    black. Of an animation, the first frame is taken.

    Args:
        path: See `open_upright`.

    Returns:
        uint8 (H,W) for black-and-white or grey pictures without transparency, else (H,W,3).

    Raises:
        UnreadablePictureError: Broken file, or more than 8 bits per channel.
    """
    return np.asarray(_flatten(open_upright(path)))


def _check_depth(picture: Image.Image, path: object) -> None:
    """Refuse 16- and 32-bit pictures, which Pillow would cut to 8 bits or clip."""
    tiles = getattr(picture, "tile", [])
    deep = picture.mode[0] in "IF" or any(";16" in str(tile[-1]) for tile in tiles)
    if deep:
        raise UnreadablePictureError(
            f"{path}: more than 8 bits per channel (mode {picture.mode}); "
            "expected 8 bits, convert the file first"
        )


def _flatten(picture: Image.Image) -> Image.Image:
    """Any 8-bit mode to L or RGB."""
    if {"A", "a"} & set(picture.getbands()) or "transparency" in picture.info:
        black = Image.new("RGBA", picture.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, picture.convert("RGBA")).convert("RGB")
    return picture.convert("L" if picture.mode in ("1", "L") else "RGB")
