"""Image files to arrays: upright, 8 bits, transparency on black."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from condvae.ground.configuration import ConfigurationError
from condvae.ground.files import PICTURE_FORMATS

__all__ = ["UnreadablePictureError", "read_picture"]


class UnreadablePictureError(ConfigurationError):
    """An image file that is broken or has more than 8 bits per channel; the message names it."""


def read_picture(path: Path | IO[bytes]) -> npt.NDArray[np.uint8]:
    """Read an image file.

    The EXIF orientation is applied, palettes are resolved, transparent pixels are composited on
    black. Of an animation, the first frame is taken.

    Args:
        path: A file in one of `PICTURE_FORMATS`, whatever its name; messages show it as text.

    Returns:
        uint8 (H,W) for black-and-white or grey pictures without transparency, else (H,W,3).

    Raises:
        UnreadablePictureError: Broken file, or more than 8 bits per channel.
    """
    try:
        with Image.open(path, formats=PICTURE_FORMATS) as picture:
            _check_depth(picture, path)
            return np.asarray(_flatten(ImageOps.exif_transpose(picture)))
    except UnreadablePictureError:
        raise
    # Pillow's decoders raise many types; SyntaxError stands for a broken PNG.
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise UnreadablePictureError(
            f"{path}: cannot be read as an image ({error}); remove it or set unreadable: skip"
        ) from error


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
