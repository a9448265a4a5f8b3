"""Images that do not belong to a data set: made from its own, or of another one."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from condvae.data.arrays import read_array
from condvae.data.store import open_images
from condvae.ground.configuration import ConfigurationError, check_choice

__all__ = ["FOREIGN", "make_foreign", "name_of_foreign", "open_foreign"]

_Images = NDArray[np.uint8]


def _invert(images: _Images, rng: np.random.Generator) -> _Images:
    del rng
    return np.uint8(255) - images


def _flip(images: _Images, rng: np.random.Generator) -> _Images:
    del rng
    return images[:, ::-1]


def _rotate(images: _Images, rng: np.random.Generator) -> _Images:
    del rng
    return np.rot90(images, axes=(1, 2))


def _draw_noise(images: _Images, rng: np.random.Generator) -> _Images:
    return rng.integers(0, 256, images.shape, dtype=np.uint8)


def _draw_constant(images: _Images, rng: np.random.Generator) -> _Images:
    colours = rng.integers(0, 256, (len(images), 1, 1, images.shape[3]), dtype=np.uint8)
    return np.broadcast_to(colours, images.shape)


FOREIGN: dict[str, Callable[[_Images, np.random.Generator], _Images]] = {
    "flipped": _flip,
    "rotated": _rotate,
    "noise": _draw_noise,
    "constant": _draw_constant,
    "inverted": _invert,
}
"""Upside down; turned by 90°; uniform noise; one colour each, uniform; 255 minus the value."""


def make_foreign(name: str, images: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """Turn images of a data set into ones that do not belong to it.

    Args:
        name: One of `FOREIGN`.
        images: uint8 (N,H,W,C), square.
        seed: Of what is drawn.

    Returns:
        uint8 (N,H,W,C).

    Raises:
        ConfigurationError: Unknown name.
    """
    check_choice("set of foreign images", name, FOREIGN)
    return np.ascontiguousarray(FOREIGN[name](np.asarray(images), np.random.default_rng(seed)))


def name_of_foreign(path: str | Path) -> str:
    """Name of the set at `path`, from the name of file or folder."""
    return re.sub(r"[^\w.-]", "_", Path(path).stem)


def open_foreign(path: str | Path, shape: tuple[int, int, int]) -> NDArray[Any]:
    """Open images of another data set.

    Args:
        path: An npz file with the array ``images``, or the folder of a prepared data set, of which
            the test images are taken.
        shape: (H,W,C) that the model takes.

    Returns:
        uint8 (N,H,W,C).

    Raises:
        ConfigurationError: Not there or not readable, no images, or images of another type or shape.
    """
    path = Path(path)
    if path.is_dir():
        prepared = open_images(path)
        images: NDArray[Any] = prepared.pixels[prepared.indices("test")]
    elif path.is_file():
        found = read_array(path, "images")
        if found is None:
            raise ConfigurationError(f"{path}: no array 'images'")
        images = found[..., None] if found.ndim == 3 else found
    else:
        raise ConfigurationError(f"{path}: no such file or folder")
    if images.dtype != np.uint8 or images.shape[1:] != shape or len(images) == 0:
        raise ConfigurationError(
            f"{path}: images of type {images.dtype} and shape {images.shape}; expected uint8 and "
            f"(N, {', '.join(map(str, shape))}) with N >= 1"
        )
    return images
