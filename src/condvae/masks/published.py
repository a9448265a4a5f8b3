"""Mask distributions of other publications, with their constants.

They are written from descriptions of the distributions: the same constants give the same
distribution, not the same masks for the same seed, as the random numbers come in another order.
Protocols that are given in pixels at one image size (LaMa, MAT) are drawn at that size and, for
another size, taken over by nearest neighbour, which keeps the expected share and shape of the holes.
PIC and the published free form keep their pixels whatever the size, as their authors do.

References:
    Harvey, Naderiparizi, Wood 2022, Conditional Image Generation by Conditioning Variational
    Auto-Encoders (IPA).
    Zhao et al. 2021, Large Scale Image Completion via Co-Modulated Generative Adversarial Networks.
    Suvorov et al. 2022, Resolution-robust Large Mask Inpainting with Fourier Convolutions (LaMa).
    Li et al. 2022, MAT: Mask-Aware Transformer for Large Hole Image Inpainting.
    Lugmayr et al. 2022, RePaint: Inpainting using Denoising Diffusion Probabilistic Models.
    Zheng, Cham, Cai 2019, Pluralistic Image Completion (PIC).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image, ImageDraw

from condvae.ground.configuration import ConfigurationError, check_choice
from condvae.masks.kinds import Mask, MaskKind, centre_box, free_form, patches, stroke_path

__all__ = [
    "LAMA_SETTINGS",
    "MAT_SETTINGS",
    "PUBLISHED_KINDS",
    "REPAINT_MASKS",
    "LamaSettings",
    "NoMaskInRangeError",
    "free_form_published",
    "lama",
    "mat",
    "patches_missing",
    "pic_irregular",
    "pic_regular",
    "repaint",
]

_BRUSH_PIXELS = (12, 48)
_COMODGAN_CROWD = (10, 5, 20)
_MOST_TRIES = 5_000
_LAMA_MOST_HOLE = 0.5
_LAMA_BOX_SHARE = 0.3 / 1.3  # weights 1 for strokes and 0.3 for boxes
_LAMA_MOST_SEGMENTS = 5
_PIC_LEAST_SIZE = 64


class NoMaskInRangeError(ConfigurationError):
    """A published rule accepts none of thousands of masks at this size."""


def free_form_published(
    rng: np.random.Generator,
    size: int,
    hole_range: tuple[float, float] = (0.0, 1.0),
    crowd: tuple[int, int, int] = _COMODGAN_CROWD,
) -> Mask:
    """The free form of CoModGAN and IPA: brush of 12 to 48 pixels, hole share inside a range.

    The brush does not scale with the image: at 32 pixels it is often wider than the image, and 83 %
    are hidden on average (72 % at 256 pixels). The range also sets how many holes are drawn, so that
    a low range is another distribution than (0, 1) restricted.

    Args:
        rng: Source of randomness.
        size: Side of the mask in pixels, at least 2.
        hole_range: The hole share is strictly between the two; masks are drawn until it is.
        crowd: One more than the most small rectangles, large rectangles and strokes.

    Returns:
        bool (size, size), True = observed.

    Raises:
        ConfigurationError: `size` or `hole_range` out of range.
        NoMaskInRangeError: No mask in the range in thousands of draws.
    """
    brush = (_BRUSH_PIXELS[0] / size, _BRUSH_PIXELS[1] / size) if size > 0 else (1.0, 1.0)
    spread = float(math.sqrt(2) * size / 8 // 2)  # the published code divides without remainder
    low, high = hole_range
    return _draw_until(
        lambda: free_form(rng, size, hole_range, brush, crowd, spread),
        lambda hole: low < hole < high,
        f"free form, {size} pixels, hole share strictly between {low} and {high}",
    )


MAT_SETTINGS: dict[str, tuple[int, tuple[int, int, int]]] = {
    "large_256": (256, (4, 2, 8)),
    "small_256": (256, (2, 2, 3)),
    "large_512": (512, (5, 3, 9)),
    "small_512": (512, (3, 2, 4)),
}
"""Side in pixels and, as for the free form, how many rectangles and strokes."""


def mat(rng: np.random.Generator, size: int, name: str) -> Mask:
    """MAT's masks: the published free form with fewer holes.

    Args:
        rng: Source of randomness.
        size: Side of the mask in pixels; at another size than the protocol's the mask is resampled.
        name: Of `MAT_SETTINGS`.

    Returns:
        bool (size, size), True = observed.
    """
    check_choice("MAT masks", name, MAT_SETTINGS)
    side, crowd = MAT_SETTINGS[name]
    return _at_size(free_form_published(rng, side, crowd=crowd), size)


@dataclass(frozen=True)
class LamaSettings:
    """One of LaMa's test sets; all ranges include both ends, lengths are in pixels.

    Attributes:
        side: Of the mask.
        strokes: Number of strokes (one more than the published setting says: the code adds it).
        widths: Of a segment; a stroke has one to five.
        lengths: Of a segment.
        boxes: Number of boxes in the masks that have boxes instead of strokes, None for none.
        box_sides: Height and width of a box.
        margin: Least distance of a box from the border.
    """

    side: int
    strokes: tuple[int, int]
    widths: tuple[int, int]
    lengths: tuple[int, int]
    boxes: tuple[int, int] | None = None
    box_sides: tuple[int, int] = (0, 0)
    margin: int = 0


LAMA_SETTINGS: dict[str, LamaSettings] = {
    "thin_256": LamaSettings(256, (4, 51), (5, 14), (10, 49)),
    "thin_512": LamaSettings(512, (4, 71), (5, 24), (10, 109)),
    "medium_256": LamaSettings(256, (4, 6), (5, 54), (10, 109), (1, 5), (10, 50)),
    "medium_512": LamaSettings(512, (4, 11), (5, 104), (10, 209), (1, 5), (30, 150)),
    "thick_256": LamaSettings(256, (1, 6), (5, 104), (10, 209), (1, 3), (30, 150), 10),
    "thick_512": LamaSettings(512, (1, 6), (5, 254), (10, 459), (1, 4), (30, 300), 10),
}
"""LaMa's test sets by name."""


def lama(rng: np.random.Generator, size: int, name: str, filtered: bool = True) -> Mask:
    """LaMa's masks: strokes in eight directions or, in 23 % of the masks of most sets, boxes.

    LaMa makes its test sets by drawing five masks for an image, dropping those that hide more than
    half of it or nothing, and keeping one of the rest; for one mask that is the same as drawing
    until a mask passes, which is what happens here. LaMa looks at the share after a crop of the
    image to a square; masks here are square from the start.

    Args:
        rng: Source of randomness.
        size: Side of the mask in pixels; at another size than the protocol's the mask is resampled.
        name: Of `LAMA_SETTINGS`.
        filtered: Whether to drop masks that hide more than half or nothing.

    Returns:
        bool (size, size), True = observed.
    """
    check_choice("LaMa masks", name, LAMA_SETTINGS)
    settings = LAMA_SETTINGS[name]
    most = _LAMA_MOST_HOLE if filtered else 1.0
    mask = _draw_until(
        lambda: _lama_once(rng, settings),
        lambda hole: not filtered or 0 < hole <= most,
        f"LaMa {name}, hole share at most {most}",
    )
    return _at_size(mask, size)


def _lama_once(rng: np.random.Generator, settings: LamaSettings) -> Mask:
    """Draw boxes, which keep a margin to the border, or strokes."""
    if settings.boxes is None or rng.random() >= _LAMA_BOX_SHARE:
        return _lama_strokes(rng, settings)
    side, margin = settings.side, settings.margin
    mask = _all_seen(side)
    for _ in range(_integer(rng, settings.boxes)):
        height, width = _integer(rng, settings.box_sides), _integer(rng, settings.box_sides)
        top = _integer(rng, (margin, side - margin - height))
        left = _integer(rng, (margin, side - margin - width))
        mask[top : top + height, left : left + width] = False
    return mask


def _lama_strokes(rng: np.random.Generator, settings: LamaSettings) -> Mask:
    """Cut strokes whose segments take one of four angles, mirrored in every second stroke."""
    side = settings.side
    image = Image.new("L", (side, side), 1)
    draw = ImageDraw.Draw(image)
    for stroke in range(_integer(rng, settings.strokes)):
        x, y = rng.integers(0, side, size=2).tolist()
        for _ in range(_integer(rng, (1, _LAMA_MOST_SEGMENTS))):
            angle = 0.01 + _integer(rng, (0, 3))  # radians
            length, width = _integer(rng, settings.lengths), _integer(rng, settings.widths)
            sideways = length * math.sin(angle) * (-1 if stroke % 2 == 0 else 1)
            end_x = min(max(int(x + sideways), 0), side)
            end_y = min(max(int(y + length * math.cos(angle)), 0), side)
            stroke_path(draw, [(x, y), (end_x, end_y)], _opencv_width(width))
            x, y = end_x, end_y
    return np.asarray(image, dtype=bool).copy()


def patches_missing(rng: np.random.Generator, size: int) -> Mask:
    """IPA's other patches: zero to five squares of 0.35 of the side are hidden, the rest is seen."""
    return ~patches(rng, size)


REPAINT_MASKS = ("half", "expand", "every_second_line", "super_resolve")
"""RePaint's masks without randomness; its wide and narrow ones are LaMa's thick and thin at 256."""


def repaint(rng: np.random.Generator, size: int, name: str) -> Mask:
    """RePaint's masks without randomness; `rng` is not used.

    Args:
        rng: As every kind of mask takes it.
        size: Side of the mask in pixels, at least 2.
        name: What is seen: the left ``half``; ``expand``: a central square of a quarter of the side
            (64 of 256 pixels); ``every_second_line``: rows 0, 2, 4, ...; ``super_resolve``: every
            second pixel of these rows, without smoothing.

    Returns:
        bool (size, size), True = observed.
    """
    check_choice("RePaint masks", name, REPAINT_MASKS)
    mask = ~_all_seen(size)
    side, second = max(size // 4, 1), slice(0, None, 2)
    centre = slice((size - side) // 2, (size - side) // 2 + side)
    rows, columns = {
        "half": (slice(None), slice(0, size // 2)),
        "expand": (centre, centre),
        "every_second_line": (second, slice(None)),
        "super_resolve": (second, second),
    }[name]
    mask[rows, columns] = True
    return mask


def pic_regular(rng: np.random.Generator, size: int) -> Mask:
    """PIC's random rectangles: N in 1 ... 5 holes of at least 1/(N+7) of the side.

    A hole starts within the first N/(N+1) of the side and may reach the far border.
    """
    mask = _all_seen(size)
    count = _integer(rng, (1, 5))
    least, last = size // (count + 7), int(size - size / (count + 1))
    for _ in range(count):
        top, left = _integer(rng, (0, last)), _integer(rng, (0, last))
        height, width = _integer(rng, (least, size - top)), _integer(rng, (least, size - left))
        mask[top : top + height, left : left + width] = False
    return mask


def pic_irregular(rng: np.random.Generator, size: int) -> Mask:
    """PIC's irregular holes: 16 to 64 lines (60 %), discs (20 %) and elliptic arcs (20 %).

    Lines and arcs are 4 to 20 pixels thick and discs have radii of 4 to 20 pixels at every size.

    Raises:
        ConfigurationError: `size` under 64 pixels, which PIC refuses too.
    """
    if size < _PIC_LEAST_SIZE:
        raise ConfigurationError(
            f"pic_irregular at {size} pixels: expected at least {_PIC_LEAST_SIZE}, the published "
            "limit; its strokes are 4 to 20 pixels thick at every size"
        )
    image = Image.new("L", (size, size), 1)
    draw = ImageDraw.Draw(image)
    for _ in range(_integer(rng, (16, 64))):
        shape, thickness = rng.random(), _integer(rng, (4, 20))
        first, second = ((int(x), int(y)) for x, y in rng.integers(1, size + 1, size=(2, 2)))
        if shape < 0.6:
            stroke_path(draw, [first, second], _opencv_width(thickness))
        elif shape < 0.8:
            draw.circle(first, thickness, fill=0)
        else:
            stroke_path(draw, _arc(rng, first, second), _opencv_width(thickness))
    return np.asarray(image, dtype=bool).copy()


def _arc(
    rng: np.random.Generator, centre: tuple[int, int], half_axes: tuple[int, int]
) -> list[tuple[int, int]]:
    """Points on an arc of a turned ellipse; its turn and its two ends are 3 to 180 degrees."""
    turn, start, end = np.deg2rad(rng.integers(3, 181, size=3))
    angles = np.linspace(start, end, 33)
    along, across = half_axes[0] * np.cos(angles), half_axes[1] * np.sin(angles)
    x = centre[0] + along * math.cos(turn) - across * math.sin(turn)
    y = centre[1] + along * math.sin(turn) + across * math.cos(turn)
    return list(zip(x.astype(int).tolist(), y.astype(int).tolist(), strict=True))


def _all_seen(size: int) -> Mask:
    """Start from a mask that hides nothing."""
    if size < 2:
        raise ConfigurationError(f"mask size {size!r}: expected at least 2 pixels")
    return np.ones((size, size), dtype=bool)


def _integer(rng: np.random.Generator, ends: tuple[int, int]) -> int:
    """Draw an integer between two ends, both included."""
    return int(rng.integers(ends[0], ends[1] + 1))


def _opencv_width(thickness: int) -> int:
    """Return how many pixels wide OpenCV draws a line of this thickness (5 becomes 7, 6 too)."""
    return 2 * ((thickness + 1) // 2) + 1


def _draw_until(draw: Callable[[], Mask], accept: Callable[[float], bool], what: str) -> Mask:
    """Draw until the hole share is accepted."""
    for _ in range(_MOST_TRIES):
        mask = draw()
        if accept(np.count_nonzero(~mask) / mask.size):
            return mask
    raise NoMaskInRangeError(f"{what}: no such mask in {_MOST_TRIES} draws")


def _at_size(mask: Mask, size: int) -> Mask:
    """Resample to another side: each pixel takes the value at its centre."""
    _all_seen(size)  # refuses sides that are too small
    rows = (2 * np.arange(size) + 1) * len(mask) // (2 * size)
    return mask[np.ix_(rows, rows)]


def _kind(name: str, draw: Callable[[np.random.Generator, int], Mask]) -> MaskKind:
    """Name a distribution that takes no hole range."""
    return MaskKind(name, lambda rng, size, _: draw(rng, size))


PUBLISHED_KINDS: dict[str, MaskKind] = {
    kind.name: kind
    for kind in (
        *(
            MaskKind(name, free_form_published, follows_range=True, stays_inside=True)
            for name in ("free_form_published", "comodgan")
        ),
        _kind("patches_missing", patches_missing),
        *(_kind(f"lama_{name}", partial(lama, name=name)) for name in LAMA_SETTINGS),
        *(_kind(f"mat_{name}", partial(mat, name=name)) for name in MAT_SETTINGS),
        _kind("repaint_wide", partial(lama, name="thick_256")),
        _kind("repaint_narrow", partial(lama, name="thin_256")),
        *(_kind(f"repaint_{name}", partial(repaint, name=name)) for name in REPAINT_MASKS),
        _kind("pic_centre", centre_box),
        _kind("pic_regular", pic_regular),
        _kind("pic_irregular", pic_irregular),
    )
}
"""Published kinds of masks by name (``patches``, published too, is in `condvae.masks.kinds`)."""
