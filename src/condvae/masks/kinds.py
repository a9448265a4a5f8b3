"""Masks: which pixels are observed, how they are drawn and how they are written down.

A mask is a numpy bool array (H,W), True = observed. The drawing functions are pure: the same
generator state gives the same mask. None of them looks at the result; drawing until a wanted share
is observed is the work of `condvae.masks.sampling`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from condvae.ground.configuration import ConfigurationError

__all__ = [
    "MASK_KINDS",
    "OBSERVED_BINS",
    "Mask",
    "MaskKind",
    "bin_name",
    "bin_of",
    "blank",
    "centre_box",
    "centre_window",
    "decode_runs",
    "encode_runs",
    "free_form",
    "half",
    "hole_range_of",
    "patches",
    "rectangles",
    "stroke_path",
]

Mask = NDArray[np.bool_]

OBSERVED_BINS: tuple[tuple[float, float], ...] = (
    (0.0, 0.2),
    (0.2, 0.4),
    (0.4, 0.6),
    (0.6, 0.8),
    (0.8, 1.0),
)
"""Bins of the observed share: half-open [low, high), the last one closed."""

_BRUSH = (12 / 256, 48 / 256)
_CROWD = (10, 5, 20)
_MOST_STEPS = 17


def free_form(
    rng: np.random.Generator,
    size: int,
    hole_range: tuple[float, float] = (0.0, 1.0),
    brush: tuple[float, float] = _BRUSH,
    crowd: tuple[int, int, int] = _CROWD,
    step_spread: float | None = None,
) -> Mask:
    """Holes made of rectangles and of strokes of a round brush.

    The mask distribution of Zhao et al. 2021, Large Scale Image Completion via Co-Modulated
    Generative Adversarial Networks, except that the brush is a share of the image's side (the
    published one is 12 to 48 pixels whatever the side, so that small images come out nearly empty;
    at 256 pixels the two agree). The published one is
    `condvae.masks.published.free_form_published`.

    Args:
        rng: Source of randomness.
        size: Side of the mask in pixels, at least 2.
        hole_range: Lower and upper end of the wanted hole share. It only sets how many holes are
            drawn; the mask may well fall outside.
        brush: Least and largest brush width as shares of the side; at least one pixel is drawn.
        crowd: One more than the most small rectangles, large rectangles and strokes.
        step_spread: Standard deviation of the length of a stroke's step in pixels, half the mean
            by default.

    Returns:
        bool (size, size), True = observed.

    Raises:
        ConfigurationError: `size`, `hole_range` or `brush` out of range.
    """
    _check_size(size)
    low, high = hole_range
    if not 0 <= low < high <= 1:
        raise ConfigurationError(f"hole_range = {hole_range!r}: expected 0 <= low < high <= 1")
    if not 0 < brush[0] <= brush[1]:
        raise ConfigurationError(f"brush = {brush!r}: expected 0 < least <= largest")
    share = min(low + high, 1.0)
    small, large, strokes = crowd
    image = Image.new("L", (size, size), 1)
    draw = ImageDraw.Draw(image)
    _cut_rectangles(draw, rng, _count_below(rng, small * share), size, max(size // 2, 1))
    _cut_rectangles(draw, rng, _count_below(rng, large * share), size, size)
    _cut_strokes(draw, rng, _count_below(rng, strokes * share), size, brush, step_spread)
    mask = np.asarray(image, dtype=bool)
    flip_rows, flip_columns = rng.random(2) < 0.5
    return mask[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1].copy()


def rectangles(rng: np.random.Generator, size: int) -> Mask:
    """One to five rectangular holes inside the image, sides from 1/8 to 3/4 of its side."""
    _check_size(size)
    mask = np.ones((size, size), dtype=bool)
    least, largest = max(size // 8, 1), max(3 * size // 4, 1)
    for _ in range(int(rng.integers(1, 6))):
        height, width = rng.integers(least, largest + 1, size=2)
        top, left = rng.integers(0, (size - height + 1, size - width + 1))
        mask[top : top + height, left : left + width] = False
    return mask


def patches(rng: np.random.Generator, size: int) -> Mask:
    """Zero to five observed squares of 0.35 of the side, which may hang over the border.

    The distribution of Harvey et al. 2022, Conditional Image Generation by Conditioning Variational
    Auto-Encoders: 15.5 % observed on average, one mask in six empty.
    """
    _check_size(size)
    mask = np.zeros((size, size), dtype=bool)
    side = max(round(0.35 * size), 1)
    count = int(rng.integers(0, 6))
    for top, left in rng.integers(1 - side, size, size=(count, 2)):
        mask[max(top, 0) : top + side, max(left, 0) : left + side] = True
    return mask


def half(rng: np.random.Generator, size: int) -> Mask:
    """The left, right, top or bottom half observed; of an odd side, the smaller half."""
    _check_size(size)
    mask = np.zeros((size, size), dtype=bool)
    mask[: size // 2] = True
    return np.rot90(mask, int(rng.integers(0, 4))).copy()


def centre_box(rng: np.random.Generator, size: int) -> Mask:
    """All observed but a centred square of half the side; `rng` is not used."""
    _check_size(size)
    mask = np.ones((size, size), dtype=bool)
    start, side = size // 4, size // 2
    mask[start : start + side, start : start + side] = False
    return mask


def centre_window(
    rng: np.random.Generator, size: int, hole_range: tuple[float, float] = (0.0, 1.0)
) -> Mask:
    """Nothing observed but a centred square: what is outside is to be painted.

    Args:
        rng: Source of randomness.
        size: Side of the mask in pixels, at least 2.
        hole_range: Lower and upper end of the hole share; the observed share is uniform between
            them, up to rounding of the side, which is never below 1.

    Returns:
        bool (size, size), True = observed.

    Raises:
        ConfigurationError: `size` or `hole_range` out of range.
    """
    _check_size(size)
    low, high = hole_range
    if not 0 <= low < high <= 1:
        raise ConfigurationError(f"hole_range = {hole_range!r}: expected 0 <= low < high <= 1")
    mask = np.zeros((size, size), dtype=bool)
    side = max(round(size * math.sqrt(rng.uniform(1 - high, 1 - low))), 1)
    start = (size - side) // 2
    mask[start : start + side, start : start + side] = True
    return mask


def blank(rng: np.random.Generator, size: int) -> Mask:
    """Nothing observed; `rng` is not used."""
    _check_size(size)
    return np.zeros((size, size), dtype=bool)


@dataclass(frozen=True)
class MaskKind:
    """A named way to draw masks.

    Attributes:
        name: Name in the configuration.
        draw: ``draw(rng, size, hole_range)`` -> bool (size, size).
        follows_range: Whether `draw` looks at the wanted hole range.
        stays_inside: Whether `draw` itself goes on until the hole share is in the wanted range.
    """

    name: str
    draw: Callable[[np.random.Generator, int, tuple[float, float]], Mask]
    follows_range: bool = False
    stays_inside: bool = False


def _without_range(function: Callable[[np.random.Generator, int], Mask]) -> MaskKind:
    """Wrap a drawing function that takes no hole range."""
    return MaskKind(function.__name__, lambda rng, size, _: function(rng, size))


MASK_KINDS: dict[str, MaskKind] = {
    "free_form": MaskKind("free_form", free_form, follows_range=True),
    "centre_window": MaskKind("centre_window", centre_window, follows_range=True),
    **{
        function.__name__: _without_range(function)
        for function in (rectangles, patches, half, centre_box, blank)
    },
}
"""The kinds of masks made here by name; the published ones are in `published_masks`."""


def bin_of(observed_share: float) -> int:
    """Return the index in `OBSERVED_BINS` of an observed share in [0, 1]."""
    if not 0 <= observed_share <= 1:
        raise ConfigurationError(f"observed share {observed_share!r}: expected 0 to 1")
    for index, (_, high) in enumerate(OBSERVED_BINS[:-1]):
        if observed_share < high:
            return index
    return len(OBSERVED_BINS) - 1


def bin_name(index: int) -> str:
    """Return the name of a bin for tables and keys: percentages, ``20_40``."""
    low, high = OBSERVED_BINS[_checked_bin(index)]
    return f"{round(100 * low)}_{round(100 * high)}"


def hole_range_of(index: int) -> tuple[float, float]:
    """Return the hole shares (low, high) that belong to a bin of the observed share."""
    low, high = OBSERVED_BINS[_checked_bin(index)]
    return round(1 - high, 9), round(1 - low, 9)


def stroke_path(draw: ImageDraw.ImageDraw, path: Sequence[tuple[int, int]], width: int) -> None:
    """Cut a stroke through the points (x, y) of a path, `width` pixels wide, with round joints."""
    draw.line(path, fill=0, width=width)
    if width > 1:
        reach = width // 2
        for x, y in path:
            draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=0)


def encode_runs(mask: Mask) -> list[int]:
    """Write a mask as run lengths, row by row.

    Args:
        mask: bool (H,W), True = observed.

    Returns:
        Lengths of alternating runs, first of unobserved pixels (0 when the first one is observed).
    """
    if mask.dtype != np.bool_ or mask.ndim != 2:
        raise ConfigurationError(
            f"mask of type {mask.dtype} and shape {mask.shape}: expected bool (H, W)"
        )
    pixels = mask.ravel()
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    edges = np.concatenate([[0], changes, [pixels.size]])
    lengths: list[int] = np.diff(edges).tolist()
    return [0, *lengths] if pixels[0] else lengths


def decode_runs(runs: Sequence[int], size: int) -> Mask:
    """Read a mask from the run lengths that `encode_runs` writes.

    Args:
        runs: Lengths of alternating runs, first of unobserved pixels.
        size: Side of the mask in pixels.

    Returns:
        bool (size, size), True = observed.

    Raises:
        ConfigurationError: A length that is not a positive integer (the first may be 0), or a total
            that is not size * size.
    """
    _check_size(size)
    if isinstance(runs, str) or not isinstance(runs, Sequence):
        raise ConfigurationError(f"run lengths {runs!r}: expected a list of integers")
    for position, length in enumerate(runs):
        least = 0 if position == 0 else 1
        if not isinstance(length, int) or isinstance(length, bool) or length < least:
            raise ConfigurationError(
                f"run length {length!r} at position {position}: expected an integer >= {least}"
            )
    if sum(runs) != size * size:
        raise ConfigurationError(
            f"run lengths add up to {sum(runs)}: expected {size} * {size} = {size * size}"
        )
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(size, size)


def _checked_bin(index: int) -> int:
    """Return `index` if it is the index of a bin."""
    if not 0 <= index < len(OBSERVED_BINS):
        raise ConfigurationError(f"bin {index!r}: expected 0 to {len(OBSERVED_BINS) - 1}")
    return index


def _check_size(size: int) -> None:
    """Raise `ConfigurationError` unless a mask of this side can be drawn."""
    if size < 2:
        raise ConfigurationError(f"mask size {size!r}: expected at least 2 pixels")


def _count_below(rng: np.random.Generator, bound: float) -> int:
    """Draw from {0, ..., floor(bound) - 1}; the shift makes 2 of 10 * ((1 - 1) + (1 - 0.8))."""
    return int(rng.integers(0, max(math.floor(bound + 1e-6), 1)))


def _cut_rectangles(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, count: int, size: int, below: int
) -> None:
    """Cut `count` rectangles with sides in {0, ..., below - 1}; half of one may be outside."""
    sides = rng.integers(0, below, size=(count, 2))
    corners = rng.integers(-(sides // 2), size - sides + sides // 2)
    for (width, height), (left, top) in zip(sides.tolist(), corners.tolist(), strict=True):
        if width and height:
            draw.rectangle((left, top, left + width - 1, top + height - 1), fill=0)


def _cut_strokes(
    draw: ImageDraw.ImageDraw,
    rng: np.random.Generator,
    count: int,
    size: int,
    brush: tuple[float, float],
    step_spread: float | None,
) -> None:
    """Cut `count` zigzag strokes of a round brush, each of 4 to 17 steps."""
    shape = (count, _MOST_STEPS)
    steps = rng.integers(4, _MOST_STEPS + 1, size=count).tolist()
    spread = rng.uniform(0, 2 * math.pi / 15, size=(2, count, 1))
    angle = 2 * math.pi / 5 + rng.uniform(-spread[0], spread[1], size=shape)
    angle[:, ::2] *= -1  # the same direction as 2 pi - angle
    radius = math.sqrt(2) * size / 8
    deviation = radius / 2 if step_spread is None else step_spread
    length = np.clip(rng.normal(radius, deviation, size=shape), 0, 2 * radius)
    moves_x, moves_y = (length * np.cos(angle)).tolist(), (length * np.sin(angle)).tolist()
    starts = rng.uniform(0, size, size=(count, 2)).tolist()
    widths = np.maximum(np.floor(rng.uniform(*brush, size=count) * size), 1).astype(int).tolist()
    for stroke in range(count):
        x, y = starts[stroke]
        path = [(int(x), int(y))]
        for step in range(steps[stroke]):
            x = min(max(x + moves_x[stroke][step], 0.0), size)
            y = min(max(y + moves_y[stroke][step], 0.0), size)
            path.append((int(x), int(y)))
        stroke_path(draw, path, widths[stroke])
