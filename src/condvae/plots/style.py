"""One palette and one set of matplotlib settings for every figure."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.figure import Figure

__all__ = [
    "FRAME",
    "INK",
    "MUTED",
    "UNOBSERVED",
    "figure_style",
    "png_bytes",
    "sampler_colour",
    "sampler_marker",
]

INK = "#1b1f24"
MUTED = "#57606a"
FRAME = "#b4bac1"
# Two teals: the stripes stay recognisable when an image happens to contain the colour itself.
UNOBSERVED = ("#178a8a", "#35b3b0")

# Hues of Okabe and Ito's colour-blind-safe set; the baseline that ignores the observation is grey.
_SAMPLER_COLOURS = {"ipa": "#0072B2", "untrained": "#D55E00", "prior": "#6E7781"}
_OTHER_COLOURS = ("#009E73", "#CC79A7", "#A06A00", "#56B4E9", "#882255", "#332288")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")

_SETTINGS: dict[Any, Any] = {
    "axes.edgecolor": FRAME,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",  # ships with matplotlib, so figures agree between machines
    "font.size": 9.0,
    "grid.color": "#e3e6e9",
    "grid.linewidth": 0.8,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.85,  # keeps the words readable over a noisy curve
    "lines.linewidth": 1.8,
    "savefig.facecolor": "white",
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}


@contextmanager
def figure_style() -> Iterator[None]:
    """Apply the house settings to figures made inside the block; global settings are restored."""
    with matplotlib.rc_context(_SETTINGS):
        yield


def sampler_colour(sampler: str, position: int = 0) -> str:
    """Return the colour of a sampler, the same in every figure.

    Args:
        sampler: Name of the sampler.
        position: Its place among the samplers shown; chooses the colour of a name without a fixed
            one.
    """
    return _SAMPLER_COLOURS.get(sampler, _OTHER_COLOURS[position % len(_OTHER_COLOURS)])


def sampler_marker(position: int) -> str:
    """Return the marker of the sampler at `position`, so that lines differ without colour too."""
    return _MARKERS[position % len(_MARKERS)]


def png_bytes(figure: Figure) -> bytes:
    """Render a figure to the bytes of a PNG file at the figure's own resolution."""
    buffer = io.BytesIO()
    with figure_style():
        # Without a software entry the bytes depend on the picture alone.
        figure.savefig(buffer, format="png", dpi=figure.dpi, metadata={"Software": None})
    return buffer.getvalue()
