"""Figures of control and anomaly scores: one picture a cell, one line a set, refusals by name."""

from __future__ import annotations

import numpy as np
import pytest

from condvae.ground.configuration import ConfigurationError
from condvae.plots import (
    plot_auroc,
    plot_interpolations,
    plot_kept_groups,
    plot_score_histograms,
    png_bytes,
)

MASK = np.tril(np.ones((8, 8), bool))
TITLES = {"bound": "Bound"}


def images(*shape):
    return np.random.default_rng(0).integers(0, 256, (*shape, 8, 8, 1), dtype=np.uint8)


def cells(figure):
    return len(figure.images)


def texts(figure):
    return " ".join(text.get_text() for text in figure.texts)


def test_row_for_every_number_of_kept_groups():
    rows = [(0, images(4)), (7, images(4)), (14, images(4))]
    figure = plot_kept_groups(images(1)[0], MASK, rows, 14)
    assert cells(figure) == 3 * (1 + 4)
    assert "7 of 14" in texts(figure)
    assert png_bytes(figure).startswith(b"\x89PNG")


def test_strip_for_every_observation():
    figure = plot_interpolations(images(2), np.stack([MASK] * 2), images(5, 2), ["a", "b"])
    assert cells(figure) == 2 * (1 + 5)
    assert {"a", "b"} <= set(texts(figure).split())


def test_strips_that_do_not_fit_are_refused():
    with pytest.raises(ConfigurationError, match=r"strips of shape \(5, 3, 8, 8, 1\) for 2"):
        plot_interpolations(images(2), np.stack([MASK] * 2), images(5, 3), ["a", "b"])


def row(name, where, value):
    return {
        "set": name,
        "score": "bound",
        "bin": where,
        "value": value,
        "standard_error": 0.05,
    }


def test_line_for_every_set_and_pooled_apart():
    rows = [row(n, b, 0.8) for n in ("noise", "flipped") for b in ("0_20", "60_80", "pooled")]
    figure = plot_auroc(rows, titles=TITLES)
    (axes,) = figure.axes
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["noise", "flipped"]
    # Per set a line over the bins and a point for all; each with its error bars.
    assert len(axes.containers) == 4
    assert axes.get_title("left") == "Bound" or axes.get_title() == "Bound"


def test_histograms_leave_out_what_is_no_number():
    values = np.linspace(0, 1, 50)
    scores = {
        "test": {"bound": values, "input_check": np.full(50, np.nan)},
        "noise": {"bound": np.array([*values[:-1], np.inf]), "input_check": np.full(50, np.nan)},
    }
    (axes,) = plot_score_histograms(scores, "test", titles=TITLES).axes
    assert axes.get_xlabel() == "Bound"
    with pytest.raises(ConfigurationError, match="set 'test': no finite score"):
        plot_score_histograms({"test": {"a": np.full(3, np.nan)}}, "test", titles={})


def test_nothing_to_draw_is_refused():
    with pytest.raises(ConfigurationError, match="rows = "):
        plot_auroc([], titles=TITLES)
