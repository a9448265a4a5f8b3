"""Measures of shape and light in images: slant, thickness, size, brightness.

Bright pixels are ink, black is ground; the ink of a pixel is its luma, so nothing is thresholded and
edges count by how much of a pixel they cover. All but `brightness` do not change when all ink is
scaled by one factor, or moved.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from condvae.ground.configuration import ConfigurationError, check_choice

__all__ = ["MEASURES", "TERCILES", "fit_terciles", "measure_images", "sort_by_terciles"]

_Ink = NDArray[np.float64]

TERCILES = {
    "slant": ("left", "upright", "right"),
    "thickness": ("thin", "medium", "thick"),
    "size": ("small", "medium", "large"),
    "brightness": ("dark", "medium", "bright"),
}
"""Names of the lower, middle and upper third of each measure."""
LUMA = (0.299, 0.587, 0.114)
CHUNK_ROWS = 256


def measure_images(name: str, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Measure images.

    Args:
        name: One of `MEASURES`.
        pixels: uint8 (N,H,W,C), C = 1 or 3; colour becomes grey by ITU-R 601 luma.

    Returns:
        float64 (N); nan where the measure is not defined: images without ink, and the slant of those
        with ink in one row only.

    Raises:
        ConfigurationError: Unknown name.
    """
    check_choice("measure", name, MEASURES)
    measured = np.empty(len(pixels))
    for start in range(0, len(pixels), CHUNK_ROWS):
        chunk = np.asarray(pixels[start : start + CHUNK_ROWS], np.float64)
        ink = chunk @ np.array(LUMA) if chunk.shape[-1] == 3 else chunk[..., 0]
        measured[start : start + CHUNK_ROWS] = MEASURES[name](ink)
    return measured


def fit_terciles(measured: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    """Return the two values that part the known measurements into thirds.

    Args:
        measured: (N); nan is left out.
        name: Of the measure, for the message.

    Returns:
        float64 (2), ascending.

    Raises:
        ConfigurationError: Nothing known, or too many equal values to part.
    """
    known = measured[~np.isnan(measured)]
    edges = np.quantile(known, (1 / 3, 2 / 3)) if len(known) else np.full(2, np.nan)
    # Values equal to an edge go below it, so the uppermost third must lie strictly above.
    if not (len(known) and edges[0] < edges[1] < known.max()):
        raise ConfigurationError(
            f"{name} of {len(known)} training images does not part into thirds: the limits would be "
            f"{edges[0]:.6g} and {edges[1]:.6g}; ask for '{name}:continuous' or leave it out"
        )
    return edges


def sort_by_terciles(
    measured: NDArray[np.float64], edges: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return the third of each measurement: 0, 1 or 2, nan where it is unknown.

    Args:
        measured: (N).
        edges: (2) of `fit_terciles`; a value equal to one belongs to the third below.
    """
    third = np.searchsorted(edges, measured, side="left").astype(np.float32)
    return np.where(np.isnan(measured), np.float32(np.nan), third)


def _measure_slant(ink: _Ink) -> NDArray[np.float64]:
    """Shear that would set the ink upright, mu11 / mu02: columns to the right per row upwards.

    The tangent of the angle from the vertical, positive where tops lean right. A shear of the image
    by s adds exactly s.
    """
    mass, x, y = _centred_places(ink)
    height = (ink * y**2).sum(axis=(1, 2))
    # Rows count downwards.
    return _divide(-(ink * x * y).sum(axis=(1, 2)), height, mass)


def _measure_size(ink: _Ink) -> NDArray[np.float64]:
    """Root mean square distance of the ink from its centre, in pixels."""
    mass, x, y = _centred_places(ink)
    return np.sqrt(_divide((ink * (x**2 + y**2)).sum(axis=(1, 2)), mass, mass))


def _measure_thickness(ink: _Ink) -> NDArray[np.float64]:
    """Twice the area over the perimeter, in pixels: near the width of a stroke.

    Area is the sum of the ink; the perimeter, averaged over all levels of ink, is its total variation
    (W. Fleming, R. Rishel 1960). A stroke of width w and length L gives w L / (L + w), within 6 % from
    2.5 pixels on, whatever its direction; a thinner stroke fills no pixel wholly and counts as wider.
    """
    around = np.pad(ink, ((0, 0), (1, 1), (1, 1)))
    # Both slopes at the corners between pixels, each the mean of two differences: exact for edges
    # along rows, columns and diagonals, and the same after flips and quarter turns.
    down = np.diff(around[:, :, :-1] + around[:, :, 1:], axis=1) / 2
    across = np.diff(around[:, :-1] + around[:, 1:], axis=2) / 2
    mass = ink.sum(axis=(1, 2))
    return _divide(2 * mass, np.hypot(across, down).sum(axis=(1, 2)), mass)


def _measure_brightness(ink: _Ink) -> NDArray[np.float64]:
    """Mean luma as a share of white, 0 to 1."""
    mass = ink.mean(axis=(1, 2)) / 255
    return np.where(mass > 0, mass, np.nan)


MEASURES: dict[str, Callable[[_Ink], NDArray[np.float64]]] = {
    "slant": _measure_slant,
    "thickness": _measure_thickness,
    "size": _measure_size,
    "brightness": _measure_brightness,
}
"""Columns to the right per row upwards; pixels; pixels; share of white."""


def _centred_places(ink: _Ink) -> tuple[NDArray[np.float64], _Ink, _Ink]:
    """Mass (N) of the ink; columns (N,1,W) and rows (N,H,1) counted from its centre."""
    mass = ink.sum(axis=(1, 2))
    x, y = np.arange(ink.shape[2], dtype=np.float64), np.arange(ink.shape[1], dtype=np.float64)
    centre_x = _divide(ink.sum(axis=1) @ x, mass, mass)
    centre_y = _divide(ink.sum(axis=2) @ y, mass, mass)
    return mass, x - centre_x[:, None, None], (y - centre_y[:, None])[:, :, None]


def _divide(
    above: NDArray[np.float64], below: NDArray[np.float64], mass: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The quotient; nan without ink, or where `below` is nothing but rounding."""
    quotient = np.full(len(above), np.nan)
    fits = (mass > 0) & (below > 1e-9 * mass)
    np.divide(above, below, out=quotient, where=fits)
    return quotient
