"""Figures of images made of attributes: one picture a cell, words that stay words, refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from condvae.ground.configuration import ConfigurationError
from condvae.plots import png_bytes
from condvae.plots.attributes import (
    plot_attribute_samples,
    plot_attribute_sweep,
    plot_condition_paths,
    plot_edits,
    plot_ladder,
)
from condvae.scores.attribute_definitions import ATTRIBUTE_METRICS


def images(*shape):
    return np.random.default_rng(0).integers(0, 256, (*shape, 8, 8, 1), dtype=np.uint8)


def cells(figure):
    return len(figure.images)


def shown_pixels(figure):
    """Grey levels of each image: its frame taken off, one screen pixel for each of its own."""
    framed = [np.asarray(image.get_array())[1:-1, 1:-1, 0] for image in figure.images]
    return [pixels[:: len(pixels) // 8, :: len(pixels) // 8] for pixels in framed]


def texts(figure):
    return [text.get_text() for text in figure.texts]


def overlapping(figure):
    """Pairs of texts whose boxes overlap or leave the page."""
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.texts if text.get_text()]
    page = figure.bbox
    outside = [b for b in boxes if b.x0 < page.x0 or b.x1 > page.x1 or b.y0 < 0 or b.y1 > page.y1]
    pairs = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
    return len(outside) + len(pairs)


def test_row_of_samples_for_every_condition():
    figure = plot_attribute_samples({"class = 3, slant = left": images(5), "class = 4": images(4)})
    assert cells(figure) == 9
    assert {"class = 3", "slant = left", "class = 4"} <= set(texts(figure))
    assert png_bytes(figure).startswith(b"\x89PNG")


def test_real_images_stand_in_a_column_of_their_own():
    real, drawn = images(2), images(2, 3)
    rows = {"class = 3": drawn[0], "class = 4": drawn[1]}
    figure = plot_attribute_samples(rows, real=real)
    assert cells(figure) == 2 * (1 + 3)
    shown = shown_pixels(figure)
    np.testing.assert_array_equal(shown[4], real[1, ..., 0])
    np.testing.assert_array_equal(shown[7], drawn[1, 2, ..., 0])
    assert {"Real", "Sampled"} <= set(texts(figure))
    assert overlapping(figure) == 0
    with pytest.raises(ConfigurationError, match="with 2 rows"):
        plot_attribute_samples(rows, real=real[:1])
    with pytest.raises(ConfigurationError, match="expected"):
        plot_attribute_samples(rows, real=np.zeros((2, 9, 9, 1), np.uint8))


def test_notes_say_what_is_shown():
    rows = {"class = 3": images(2)}
    assert any("asked for the same" in text for text in texts(plot_attribute_samples(rows)))
    other = texts(plot_attribute_samples(rows, note="Columns are alike."))
    assert "Columns are alike." in other
    assert not any("asked for the same" in text for text in other)
    strips = images(5, 1), ["class = 1"], ["class = 8"]
    kept, moved = (
        " ".join(texts(plot_condition_paths(*strips, noise_kept=kept))) for kept in (True, False)
    )
    assert "the noise being kept" in kept
    assert "kept" not in moved
    assert "two draws of noise" in moved


def test_sweep_has_a_column_for_every_value():
    figure = plot_attribute_sweep(images(2, 3), "slant", ["left", "upright", "right"])
    assert cells(figure) == 6
    assert "slant = left" in [text.replace("\n", " ") for text in texts(figure)]
    assert overlapping(figure) == 0


def test_edits_stand_beside_the_given_picture():
    before, after = images(3), images(2, 3)
    figure = plot_edits(before, after, ["unchanged", "class = 3"], ["a", "b", "c"])
    assert cells(figure) == 3 * (1 + 2)
    shown = shown_pixels(figure)
    np.testing.assert_array_equal(shown[0], before[0, ..., 0])
    np.testing.assert_array_equal(shown[2], after[1, 0, ..., 0])
    assert "Given" in texts(figure)


def test_path_for_every_pair_of_conditions():
    strips = images(5, 2)
    figure = plot_condition_paths(strips, ["class = 1", "class = 2"], ["class = 8", "class = 9"])
    assert cells(figure) == 10
    assert {"class = 1", "→ class = 8"} <= set(texts(figure))
    shown = shown_pixels(figure)
    np.testing.assert_array_equal(shown[4], strips[4, 0, ..., 0])


def test_names_are_words_however_long_and_no_formulas():
    condition = ", ".join(f"attribute_number_{k} = a rather long value $x_{k}$" for k in range(5))
    figure = plot_attribute_samples({condition: images(2), "class = 4": images(2)})
    assert any(r"\$x_0\$" in text for text in texts(figure))
    assert overlapping(figure) == 0
    png_bytes(figure)
    long = "name_" * 20
    assert overlapping(plot_attribute_sweep(images(1, 2), "a", [long, "$x^$"])) == 0


def ladder(value=1.0):
    return [
        {"rung": rung, "stage": stage, "metric": metric, "value": value, "standard_error": 0.1}
        for rung in ("N(0, I)", "Gaussian(y)", "spline")
        for stage in ("two_stage", "joint")
        for metric in ("log_prob_nats", "frechet_distance")
    ]


def test_ladder_has_a_panel_for_every_metric_and_a_point_for_every_rung():
    rows = [*ladder(), {**ladder()[0], "rung": "mixture", "value": float("nan")}]
    figure = plot_ladder(rows, ["frechet_distance", "log_prob_nats"])
    assert [axes.get_title("left") for axes in figure.axes] == [
        "Fréchet distance",
        "Log-likelihood log p(x | y)",
    ]
    assert [axes.get_xlabel()[:1] for axes in figure.axes] == ["↓", "↑"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["two stage", "joint"]
    for axes in figure.axes:
        for container in axes.containers:
            line, _, _ = container
            places = np.round(np.array(line.get_ydata(), float))
            np.testing.assert_array_equal(places, [0, 1, 2])
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["N(0, I)", "Gaussian(y)", "spline", "mixture"]
    assert figure.axes[0].get_ylim()[0] > figure.axes[0].get_ylim()[1]  # the first rung on top
    assert png_bytes(figure).startswith(b"\x89PNG")


def test_a_rung_far_away_leaves_the_others_apart():
    values = [-968.0, -740.0, -736.0, -733.0, -732.0, -735.0]
    rows = [
        {"rung": str(i), "stage": "joint", "metric": "mine", "value": value, "standard_error": 0.5}
        for i, value in enumerate(values)
    ]
    (axes,) = plot_ladder(rows, ["mine"]).axes
    low, high = axes.get_xlim()
    assert -745 < low < -740
    assert -732 < high < -727
    assert [text.get_text() for text in axes.texts] == ["← -968"]
    assert "-968" not in [text.get_text() for text in plot_ladder(rows[1:], ["mine"]).axes[0].texts]
    # All on one axis where that keeps them apart.
    rows[0]["value"] = -760.0
    (axes,) = plot_ladder(rows, ["mine"]).axes
    assert axes.get_xlim()[0] < -760
    assert not axes.texts


def test_ladder_takes_words_and_directions_of_its_own():
    rows = [{**row, "metric": "mine"} for row in ladder()]
    (axes,) = plot_ladder(rows, ["mine"]).axes
    assert (axes.get_title("left"), axes.get_xlabel()) == ("Mine", "")
    own = {"mine": replace(ATTRIBUTE_METRICS["bits_per_dim"], title="bits")}
    (axes,) = plot_ladder(rows, ["mine"], definitions=own).axes
    assert (axes.get_title("left"), axes.get_xlabel()) == ("bits", "↓ lower is better")


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigurationError, match="at least one case"):
        plot_attribute_samples({})
    with pytest.raises(ConfigurationError, match="with 2 values"):
        plot_attribute_sweep(images(2, 3), "slant", ["left", "right"])
    with pytest.raises(ConfigurationError, match="with 1 changes"):
        plot_edits(images(3), images(2, 3), ["a"], ["a", "b", "c"])
    with pytest.raises(ConfigurationError, match=r"edited pictures of shape \(2, 4, 8, 8, 1\)"):
        plot_edits(images(3), images(2, 4), ["a", "b"], ["a", "b", "c"])
    with pytest.raises(ConfigurationError, match="with 1 ends"):
        plot_condition_paths(images(5, 2), ["a", "b"], ["c"])
    with pytest.raises(ConfigurationError, match="'auroc': no rung has a finite value"):
        plot_ladder(ladder(), ["auroc"])
