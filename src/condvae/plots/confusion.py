"""Which values a classifier takes for which."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from condvae.ground.configuration import ConfigurationError
from condvae.plots.style import figure_style, write_heading

__all__ = ["plot_confusion"]

_MOST_NUMBERS = 20  # values whose cells have room for numbers


def plot_confusion(counts: ArrayLike, values: Sequence[str], *, title: str) -> Figure:
    """Draw how often each true value was taken for each value, as shares of the true value's cases.

    Args:
        counts: Integers (K,K): row = true value, column = value given.
        values: Their K names.
        title: Heading.

    Raises:
        ConfigurationError: Another shape, negative counts, or no cases at all.
    """
    table = np.asarray(counts)
    if table.shape != (len(values), len(values)) or (table < 0).any() or not table.any():
        raise ConfigurationError(
            f"counts of shape {table.shape} with {len(values)} values: expected (K, K), none negative, "
            "not all 0"
        )
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    side = 0.34 * max(len(values), 5)
    with figure_style():
        figure = Figure(figsize=(side + 2.4, side + 2.0), dpi=120)
        figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
        axes = figure.add_subplot()
        axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
        axes.grid(visible=False)
        names = [name.replace("$", r"\$") for name in values]
        axes.set_xticks(range(len(values)), names, rotation=90 if max(map(len, names)) > 2 else 0)
        axes.set_yticks(range(len(values)), names)
        axes.set_xlabel("Likeliest value")
        axes.set_ylabel("True value")
        if len(values) <= _MOST_NUMBERS:
            for row, column in np.argwhere(table > 0):
                colour = "white" if shares[row, column] > 0.5 else "black"
                text = str(table[row, column])
                axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
        right = int(np.trace(table))
        write_heading(
            figure, title, f"{right} of {int(table.sum())} right. Shades: share of a row."
        )
    return figure
