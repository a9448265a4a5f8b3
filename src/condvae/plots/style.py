"""One palette and one set of matplotlib settings for every figure."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.figure import Figure

__all__ = [
    "ALARM",
    "FRAME",
    "INK",
    "MUTED",
    "QUIET",
    "UNOBSERVED",
    "WARNING",
    "SamplerStyle",
    "figure_style",
    "png_bytes",
    "style_samplers",
    "write_heading",
]

INK = "#1b1f24"
MUTED = "#57606a"
FRAME = "#b4bac1"
# Two teals: the stripes stay recognisable when an image happens to contain the colour itself.
UNOBSERVED = ("#178a8a", "#35b3b0")

# Tests that reject clearly, that reject, and that do not.
ALARM, WARNING, QUIET = "#B3261E", "#E69F00", "#7C93A8"

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


@dataclass(frozen=True)
class SamplerStyle:
    """How a sampler is drawn.

    Attributes:
        colour: Hexadecimal colour of its line and name.
        marker: Marker of its points, so that lines differ without colour too.
    """

    colour: str
    marker: str


# Hues of Okabe and Ito's colour-blind-safe set; the baseline that ignores the observation is grey.
_KNOWN_STYLES = {
    "ipa": SamplerStyle("#0072B2", "o"),
    "untrained": SamplerStyle("#D55E00", "s"),
    "prior": SamplerStyle("#6E7781", "^"),
}
_OTHER_COLOURS = (
    *("#009E73", "#CC79A7", "#A06A00", "#56B4E9", "#882255", "#332288"),
    *("#DDAA33", "#555555"),
)
_OTHER_MARKERS = ("D", "v", "P", "X", "<", ">", "h", "*")


def style_samplers(samplers: Sequence[str]) -> dict[str, SamplerStyle]:
    """Give every sampler a style of its own, the same in every figure of a report.

    A name decides its colour, so that reports with other samplers agree as far as they can; where
    two names ask for the same one, the later takes the next that is free. Past nine samplers
    colours come back with another marker.

    Args:
        samplers: All names that appear in any of the figures.
    """
    styles = {name: _KNOWN_STYLES[name] for name in samplers if name in _KNOWN_STYLES}
    count = len(_OTHER_COLOURS)
    taken: set[int] = set()
    for name in dict.fromkeys(name for name in samplers if name not in _KNOWN_STYLES):
        base = len(taken) // count * count
        wanted = zlib.crc32(name.encode()) % count
        slot = next(
            place for step in range(count) if (place := base + (wanted + step) % count) not in taken
        )
        taken.add(slot)
        marker = _OTHER_MARKERS[(slot + slot // count) % len(_OTHER_MARKERS)]
        styles[name] = SamplerStyle(_OTHER_COLOURS[slot % count], marker)
    return styles


def write_heading(figure: Figure, title: str, note: str) -> None:
    """Write a title and a note above everything, from the left edge.

    Args:
        figure: With constrained layout, which keeps the space free.
        title: One line.
        note: A few short lines.
    """
    lines = note.count("\n") + 1
    # Empty lines below the title hold the space; the note stands there in its own style.
    figure.suptitle(title + "\n" * lines, x=0.01, ha="left", fontsize=12, fontweight="bold")
    top = 1 - 0.36 / figure.get_size_inches()[1]
    figure.text(0.01, top, note, va="top", color=MUTED, fontsize=8.5, linespacing=1.35)


def png_bytes(figure: Figure) -> bytes:
    """Render a figure to the bytes of a PNG file at the figure's own resolution."""
    buffer = io.BytesIO()
    with figure_style():
        # Without a software entry the bytes depend on the picture alone.
        figure.savefig(buffer, format="png", dpi=figure.dpi, metadata={"Software": None})
    return buffer.getvalue()
