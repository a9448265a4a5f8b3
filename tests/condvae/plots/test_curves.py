import math

import numpy as np
import pytest

from condvae.ground.configuration import ConfigurationError
from condvae.plots import BINS, plot_metric_by_bin, plot_training, png_bytes
from condvae.plots.curves import _spread
from condvae.plots.labels import axis_title, bin_label, format_value


def metric_rows(metric="perceptual_best_of_k", samplers=("ipa", "prior"), **fields):
    rows = []
    for offset, sampler in enumerate(samplers):
        for index, name in enumerate((*BINS, "pooled")):
            row = {
                "metric": metric,
                "bin": name,
                "sampler": sampler,
                "value": 1.0 + offset + 0.1 * index,
                "standard_error": 0.05,
                "n": 500 if name == "pooled" else 100,
                "k": 10,
                "extractor": "digits classifier",
            }
            rows.append(row | fields)
    return rows


def lines_with_bars(figure):
    """Per sampler: x, y and the ends of the bars."""
    found = []
    for container in figure.axes[0].containers:
        line, _, (bars,) = container.lines
        ends = np.array([segment[:, 1] for segment in bars.get_segments()])
        # matplotlib keeps the data of error bars as objects.
        found.append((*np.array(line.get_data(), dtype=float), ends))
    return found


def texts(figure) -> str:
    own = [text.get_text() for axes in figure.axes for text in axes.texts]
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    return "\n".join([*own, *titles, figure.get_suptitle()])


def test_error_bars_are_1_96_standard_errors_at_the_bin():
    figure = plot_metric_by_bin(metric_rows(), "perceptual_best_of_k")
    (x, y, ends), second = lines_with_bars(figure)
    assert np.allclose(y, [1.0, 1.1, 1.2, 1.3, 1.4])
    assert np.allclose(ends, np.stack([y - 1.96 * 0.05, y + 1.96 * 0.05], axis=1))
    assert np.abs(x - np.arange(5)).max() < 0.2
    assert not np.any(x == second[0])


def test_given_intervals_replace_standard_errors():
    rows = metric_rows(samplers=("ipa",), low=0.9, high=2.5)
    ((_, y, ends),) = lines_with_bars(plot_metric_by_bin(rows, "perceptual_best_of_k"))
    assert np.allclose(ends, np.tile([0.9, 2.5], (len(y), 1)))


def test_lines_are_in_the_order_of_bins_whatever_the_order_of_rows():
    rows = metric_rows(samplers=("ipa",))[::-1]
    ((x, y, _),) = lines_with_bars(plot_metric_by_bin(rows, "perceptual_best_of_k"))
    assert np.all(np.diff(x) > 0)
    assert np.all(np.diff(y) > 0)


def test_missing_values_are_left_out_and_other_metrics_ignored():
    rows = metric_rows(samplers=("ipa",)) + metric_rows("frechet_distance", value=99.0)
    rows[1]["value"], rows[2]["value"], rows[3]["standard_error"] = math.nan, None, None
    ((_, y, ends),) = lines_with_bars(plot_metric_by_bin(rows, "perceptual_best_of_k"))
    assert np.allclose(y, [1.0, 1.3, 1.4])
    assert np.allclose(ends[1], 1.3)


def test_figure_of_a_metric_can_be_read_alone():
    figure = plot_metric_by_bin(metric_rows(), "perceptual_best_of_k")
    text = texts(figure)
    for part in (
        "Perceptual distance of the closest of K completions",
        "↓ lower is better",
        "n = 100 per bin",
        "K = 10",
        "features: digits classifier",
        "all bins: 1.500 ± 0.050",
        "ipa",
        "prior",
    ):
        assert part in text
    axes = figure.axes[0]
    assert axes.get_xticklabels()[0].get_text() == "0–20 %"
    assert axes.get_ylabel() == "Feature distance"


def test_level_of_the_intervals_is_named_and_pixels_are_no_features():
    rows = metric_rows("crps_per_unobserved_dim", level=0.9, extractor="pixels")
    text = texts(plot_metric_by_bin(rows, "crps_per_unobserved_dim"))
    assert "bars: 90 % intervals" in text
    assert "features" not in text


def test_colours_belong_to_samplers_whichever_have_the_metric():
    rows = metric_rows(samplers=("lama", "mat")) + metric_rows("recall", samplers=("mat",))
    colours = {
        metric: plot_metric_by_bin(rows, metric).axes[0].containers[-1].lines[0].get_color()
        for metric in ("perceptual_best_of_k", "recall")
    }
    assert len(set(colours.values())) == 1


def test_scale_is_logarithmic_only_when_positive_values_span_much():
    rows = metric_rows()
    assert plot_metric_by_bin(rows, "perceptual_best_of_k").axes[0].get_yscale() == "linear"
    rows[0]["value"] = 100.0
    figure = plot_metric_by_bin(rows, "perceptual_best_of_k")
    assert figure.axes[0].get_yscale() == "log"
    assert "logarithmic" in texts(figure)
    rows[1]["value"] = -0.1
    assert plot_metric_by_bin(rows, "perceptual_best_of_k").axes[0].get_yscale() == "linear"


def test_reference_line_is_drawn_at_its_value():
    figure = plot_metric_by_bin(
        metric_rows("class_agreement"), "class_agreement", reference=(0.97, "a classifier")
    )
    levels = [line.get_ydata() for line in figure.axes[0].lines if len(line.get_xdata()) == 2]
    assert any(np.allclose(level, 0.97) for level in levels)
    assert "a classifier" in texts(figure)
    assert "↑ higher is better" in texts(figure)


def test_metric_without_values_is_refused():
    with pytest.raises(ConfigurationError, match="'frechet_distance': no finite value"):
        plot_metric_by_bin(metric_rows("frechet_distance", value=math.nan), "frechet_distance")


@pytest.mark.parametrize("samplers", ["abcdef", "abcdefghi"])
def test_labels_of_lines_never_overlap_or_leave_the_figure(samplers):
    rows = metric_rows(samplers=tuple(samplers), value=1.0)
    figure = plot_metric_by_bin(rows, "perceptual_best_of_k")
    png_bytes(figure)  # settles the layout
    boxes = [t.get_window_extent() for t in figure.axes[0].texts if t.get_text()]
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])
        assert box.x1 <= figure.bbox.x1


@pytest.mark.parametrize(
    ("heights", "expected"),
    [
        ([0.2, 0.6], [0.2, 0.6]),
        ([0.5, 0.5], [0.5, 0.65]),
        ([0.99, 0.98], [0.925, 0.775]),
        ([0.3, 0.2, 0.25], [0.5, 0.2, 0.35]),
    ],
)
def test_heights_move_only_as_far_as_needed(heights, expected):
    assert _spread(heights) == pytest.approx(expected)


def history(steps=10):
    return [
        {"step": i, "images_seen": 32 * i, "loss": 5.0 - 0.01 * i, "train/rate_nats": 3.0 + i}
        for i in range(1, steps + 1)
    ]


def panels(figure):
    return {axes.get_title(loc="left"): axes for axes in figure.axes if axes.lines}


def test_training_and_validation_share_a_panel_and_the_loss_comes_first():
    rows = [{"train/rate_nats": 1.0, **row} for row in history()]
    rows[4]["validation/loss"] = 2.5
    rows[9]["validation/loss"] = 2.0
    found = panels(plot_training(rows, loss_unit="nats per dimension"))
    assert list(found) == ["Loss (nats per dimension)", "Rate (nats)"]
    train, validation = found["Loss (nats per dimension)"].lines
    assert train.get_ydata() == pytest.approx([5.0 - 0.01 * i for i in range(1, 11)])
    assert validation.get_xdata().tolist() == [5, 10]
    assert "320 images after step 10" in found["Rate (nats)"].get_xlabel()


def test_train_loss_counts_as_loss_and_gaps_are_left_out():
    rows = [{"step": 1, "train/loss": 1.0}, {"step": 2, "train/loss": None}, {"step": 3}]
    (axes,) = panels(plot_training([*rows, {"step": 4, "train/loss": math.nan}])).values()
    assert axes.get_title(loc="left") == "Loss"
    assert axes.lines[0].get_xdata().tolist() == [1]
    assert axes.get_xlabel() == "Optimiser step"


def test_running_mean_of_a_straight_line_lies_on_the_line():
    found = panels(plot_training(history(steps=201)))["Loss"]
    _, mean = found.lines
    assert mean.get_ydata() == pytest.approx(5.0 - 0.01 * mean.get_xdata(), abs=0.011)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "at least one row"),
        ([{"loss": 1.0}], "without 'step'"),
        ([{"step": 1, "loss": None}], "nothing to draw"),
    ],
)
def test_histories_that_cannot_be_drawn_are_refused(rows, message):
    with pytest.raises(ConfigurationError, match=message):
        plot_training(rows)


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.63891, 0.0213, "0.639 ± 0.021"),
        (0.6, 0.03, "0.600 ± 0.030"),
        (-1.5, 0.25, "−1.50 ± 0.25"),
        (1234.4, 120.0, "1234 ± 120"),
        (0.123456, None, "0.1235"),
        (0.123456, 0.0, "0.1235"),
        (math.nan, 0.1, "–"),
        (None, None, "–"),
    ],
)
def test_numbers_have_the_decimals_their_error_supports(value, error, text):
    assert format_value(value, error) == text


def test_bins_are_known_by_index_and_name():
    assert [bin_label(i) for i in range(5)] == [bin_label(name) for name in BINS]
    assert bin_label(4) == "80–100 %"
    assert bin_label("pooled") == "all"
    for wrong in (-1, 5, "20-40"):
        with pytest.raises(ConfigurationError, match=str(wrong)):
            bin_label(wrong)


def test_titles_carry_units():
    assert axis_title("train/bits_per_dim") == "Bits per dim"
    assert axis_title("validation/bound_bits_per_dim") == "Bound (bits per dim)"
    assert axis_title("images_per_second") == "Images per second"
