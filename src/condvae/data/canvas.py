"""One picture to one square canvas: colour conversion, cutting out, then padding or resizing."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from condvae.ground.configuration import ConfigurationError

__all__ = ["convert_channels", "crop_centre", "fit_to_canvas"]

Pixels = npt.NDArray[np.uint8]


def convert_channels(pixels: Pixels, channels: int) -> Pixels:
    """Turn a grey or colour picture into one of `channels` channels.

    Args:
        pixels: uint8 (H,W), (H,W,1) or (H,W,3).
        channels: 1 or 3.

    Returns:
        uint8 (H,W,channels). Colour becomes grey by ITU-R 601 luma as Pillow rounds it; grey
        becomes three equal channels.
    """
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.shape[-1] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=-1)
    return np.asarray(Image.fromarray(pixels).convert("L"))[..., None]


def crop_centre(pixels: Pixels, side: int) -> Pixels:
    """Cut a square out of the middle; an odd pixel more is left below and to the right.

    Args:
        pixels: uint8 (H,W,C).
        side: Of the square, in pixels.

    Returns:
        uint8 (side,side,C), a view.

    Raises:
        ConfigurationError: The picture is smaller.
    """
    height, width = pixels.shape[:2]
    if min(height, width) < side:
        raise ConfigurationError(
            f"crop = {side}: a picture of {width}x{height} is smaller; expected at most its short side"
        )
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


def fit_to_canvas(pixels: Pixels, size: int, fit: str) -> Pixels:
    """Bring a picture to `size` x `size`.

    Args:
        pixels: uint8 (H,W,C), C = 1 or 3.
        size: Side of the canvas in pixels.
        fit: ``pad`` (centre on black) or ``resize`` (short side to `size`, centre cut out; bicubic
            when enlarging, Lanczos when shrinking).

    Returns:
        uint8 (size,size,C).

    Raises:
        ConfigurationError: The picture is larger than the canvas and `fit` is ``pad``.
    """
    height, width, channels = pixels.shape
    if (height, width) == (size, size):
        return pixels
    if fit == "resize":
        return _resize(pixels, size)
    if max(height, width) > size:
        raise ConfigurationError(
            f"fit = 'pad': a picture of {width}x{height} is larger than the canvas of "
            f"{size}x{size}; use fit: resize or a larger image_size"
        )
    canvas = np.zeros((size, size, channels), np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    canvas[top : top + height, left : left + width] = pixels
    return canvas


def _resize(pixels: Pixels, size: int) -> Pixels:
    """Short side to `size`, centre cut out."""
    height, width, channels = pixels.shape
    short = min(height, width)
    new_width, new_height = round(width * size / short), round(height * size / short)
    # Lanczos rings when it enlarges; bicubic aliases less gently when it shrinks.
    kernel = Image.Resampling.BICUBIC if size > short else Image.Resampling.LANCZOS
    picture: Any = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    resized = np.asarray(picture.resize((new_width, new_height), kernel)).reshape(
        new_height, new_width, channels
    )
    top, left = (new_height - size) // 2, (new_width - size) // 2
    return resized[top : top + size, left : left + size]
