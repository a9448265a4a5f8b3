"""Masks from files: one for all pictures or one per picture, with a stated polarity.

Half of the field writes holes in white (LaMa, IOPaint, diffusers), the other half in black (RePaint,
MAT, CoModGAN, PIC), so the polarity is an argument. Files that cannot be read without guessing are
refused: the message names the file, what was found in it and what to do.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from condvae.ground.configuration import ConfigurationError, check_choice
from condvae.ground.pictures import UnreadablePictureError, open_upright
from condvae.masks.kinds import Mask

__all__ = ["POLARITIES", "MaskFileError", "find_masks", "mask_shape", "read_mask", "read_masks"]

POLARITIES = ("white_is_hole", "white_is_observed")
"""What white (255, or 1 where the file's values are 0 and 1) means; black (0) means the other."""

_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".npy", ".jpg", ".jpeg")
_WHITES = (1, 255)
_MOST_SHOWN = 6


class MaskFileError(ConfigurationError):
    """A mask file that is missing or cannot be used; the message names it and what was found."""


def read_mask(path: Path, shape: tuple[int, int], polarity: str = POLARITIES[0]) -> Mask:
    """Read one mask.

    Pictures (PNG, BMP, TIFF and what else Pillow reads) are turned upright as their EXIF data says;
    palettes are resolved; three equal colour channels count as grey. A ``.npy`` file holds a bool
    or number array (H,W).

    Args:
        path: File to read.
        shape: Height and width that the mask must have.
        polarity: One of `POLARITIES`.

    Returns:
        bool (H,W), True = observed, with at least one pixel to fill in.

    Raises:
        MaskFileError: Missing or unreadable file, shape in the alpha channel, colours, other values
            than 0 and 255 (or 0 and 1), another size, or nothing to fill in.
    """
    check_choice("polarity", polarity, POLARITIES)
    path = Path(path)
    if not path.is_file():
        raise MaskFileError(f"{path}: no such mask file")
    values = _read_values(path)
    height, width = values.shape
    if (height, width) != tuple(shape):
        raise MaskFileError(
            f"{path}: mask of {width} x {height} pixels (width x height); "
            f"expected {shape[1]} x {shape[0]}"
        )
    white = _white_pixels(values, path)
    mask: Mask = ~white if polarity == "white_is_hole" else white
    if mask.all():
        found = "black" if polarity == "white_is_hole" else "white"
        raise MaskFileError(
            f"{path}: every pixel is observed (value {values[0, 0]} everywhere, {found}, with "
            f"polarity {polarity}); expected at least one pixel to fill in"
        )
    return mask


def mask_shape(path: Path) -> tuple[int, int] | None:
    """Height and width of a mask, upright; None where `read_mask` will say what is wrong."""
    try:
        height, width = _read_values(path).shape
    except MaskFileError:
        return None
    return height, width


def find_masks(source: Path, stems: Sequence[str]) -> dict[str, Path]:
    """Find the mask file of every picture.

    Args:
        source: A file, which serves all pictures, or a folder with one file per picture that has
            the picture's name apart from the ending (``face.png`` or ``face.npy`` for ``face.jpg``).
            Other files of the folder are left alone.
        stems: Names of the pictures without folder and ending.

    Returns:
        File by stem, in the order of `stems`.

    Raises:
        MaskFileError: No such file or folder, pictures without a mask, or with several.
    """
    source = Path(source)
    if source.is_file():
        return dict.fromkeys(stems, source)
    if not source.is_dir():
        raise MaskFileError(f"{source}: no such mask file or folder")
    found: dict[str, list[Path]] = {}
    for path in sorted(source.iterdir()):
        if path.suffix.lower() in _SUFFIXES and path.is_file():
            found.setdefault(_composed(path.stem), []).append(path)
    missing = [stem for stem in stems if _composed(stem) not in found]
    if missing:
        raise MaskFileError(
            f"{source}: no mask for {len(missing)} of {len(stems)} pictures: {_listed(missing)}; "
            f"expected a file of the picture's name that ends in {', '.join(_SUFFIXES[:5])}"
        )
    for stem in stems:
        if len(own := found[_composed(stem)]) > 1:
            names = ", ".join(path.name for path in own)
            raise MaskFileError(f"{source}: several masks for picture {stem}: {names}; keep one")
    return {stem: found[_composed(stem)][0] for stem in stems}


def _composed(name: str) -> str:
    """A name in Unicode's composed form: macOS and archives made there write accents apart."""
    return unicodedata.normalize("NFC", name)


def read_masks(
    source: Path, stems: Sequence[str], shape: tuple[int, int], polarity: str = POLARITIES[0]
) -> dict[str, Mask]:
    """Find and read the masks of pictures of one size; a file that serves several is read once.

    Args:
        source: As in `find_masks`.
        stems: As in `find_masks`.
        shape: As in `read_mask`.
        polarity: As in `read_mask`.

    Returns:
        bool (H,W) by stem, True = observed.

    Raises:
        MaskFileError: As in `find_masks` and `read_mask`.
    """
    files = find_masks(source, stems)
    masks = {path: read_mask(path, shape, polarity) for path in dict.fromkeys(files.values())}
    return {stem: masks[path] for stem, path in files.items()}


def _read_values(path: Path) -> NDArray[Any]:
    return _read_array(path) if path.suffix.lower() == ".npy" else _read_picture(path)


def _read_array(path: Path) -> NDArray[Any]:
    """Read a (H,W) array of numbers."""
    try:
        values = np.load(path, allow_pickle=False)
    except Exception as error:
        raise MaskFileError(f"{path}: cannot be read as an array ({error})") from error
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf" or values.ndim != 2:
        what = f"{values.dtype} of shape {values.shape}" if hasattr(values, "dtype") else "archive"
        raise MaskFileError(f"{path}: {what}; expected a bool or number array (height, width)")
    if values.size == 0:
        raise MaskFileError(f"{path}: array of shape {values.shape}; expected at least one pixel")
    return _numbers(values)


def _numbers(values: NDArray[Any]) -> NDArray[Any]:
    """Turn true and false into 1 and 0."""
    return values.astype(np.uint8) if values.dtype == np.bool_ else values


def _read_picture(path: Path) -> NDArray[Any]:
    """Read a picture as one grey channel (H,W)."""
    try:
        upright = open_upright(path, deep=True)
    except UnreadablePictureError as error:
        raise MaskFileError(str(error)) from error
    if {"A", "a"} & set(upright.getbands()) or "transparency" in upright.info:
        colours = _opaque_colours(np.asarray(upright.convert("RGBA")), path)
    elif len(upright.getbands()) > 1 or upright.mode == "P":
        colours = np.asarray(upright.convert("RGB"))
    else:
        return _numbers(np.asarray(upright))
    if (colours != colours[..., :1]).any():
        raise MaskFileError(
            f"{path}: coloured pixels ({_listed_colours(colours)}); expected only black and white"
        )
    grey: NDArray[Any] = colours[..., 0]
    return grey


def _opaque_colours(pixels: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
    """Return the colours of (H,W,4) pixels unless the alpha channel says something."""
    colours, alpha = pixels[..., :3], pixels[..., 3]
    if (alpha == alpha[0, 0]).all():
        return colours
    if (colours == colours[0, 0]).all():
        raise MaskFileError(
            f"{path}: all pixels have the colour {tuple(colours[0, 0].tolist())}; the shape is in "
            f"the alpha channel (values {_listed_values(alpha)}); save it as black and white "
            "without transparency"
        )
    raise MaskFileError(
        f"{path}: partly transparent (alpha values {_listed_values(alpha)}); expected black and "
        "white without transparency"
    )


def _white_pixels(values: NDArray[Any], path: Path) -> NDArray[np.bool_]:
    """Return which of the (H,W) values are white; there must be no others than black and white."""
    found = set(np.unique(values).tolist())
    for white in _WHITES:
        if found <= {0, white}:
            return np.asarray(values == white)
    wrong = "not two-valued" if len(found) > 2 else "not black and white"
    message = (
        f"{path}: {wrong}: pixel values {_listed_values(values)}; expected only 0 and 255 "
        "(or 0 and 1)"
    )
    if path.suffix.lower() in (".jpg", ".jpeg"):
        message += "; JPEG compression blurs edges: save the mask as PNG"
    elif len(found) > 2:
        message += "; smoothed edges or a JPEG in between: threshold the mask, do not smooth it"
    raise MaskFileError(message)


def _listed_values(values: NDArray[Any]) -> str:
    """Say which values occur."""
    found = np.unique(values).tolist()
    count = f" ({len(found)} different)" if len(found) > _MOST_SHOWN else ""
    return _listed(found) + count


def _listed_colours(colours: NDArray[np.uint8]) -> str:
    """Say which colours occur."""
    found = np.unique(colours.reshape(-1, 3), axis=0).tolist()
    return _listed([tuple(colour) for colour in found])


def _listed(items: Sequence[object]) -> str:
    """Join the first few, and say when there are more."""
    shown = ", ".join(str(item) for item in items[:_MOST_SHOWN])
    return shown + (", ..." if len(items) > _MOST_SHOWN else "")
