import io

import matplotlib
import numpy as np
import pytest
from PIL import Image

from condvae.ground.configuration import ConfigurationError
from condvae.plots import plot_completions, plot_samplers, png_bytes
from condvae.plots.image_grid import ImageGrid, deviation_ceiling, deviation_map, to_rgb_pixels


def render(figure) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png_bytes(figure))).convert("RGB"))


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def contains(picture: np.ndarray, part: np.ndarray) -> bool:
    """Whether `part` occurs in `picture` exactly, found by its first row."""
    height, width = part.shape[:2]
    for top in range(picture.shape[0] - height + 1):
        row = picture[top]
        windows = np.lib.stride_tricks.sliding_window_view(row, (width, 3))[:, 0]
        for left in np.flatnonzero((windows == part[0]).all(axis=(1, 2))):
            if np.array_equal(picture[top : top + height, left : left + width], part):
                return True
    return False


@pytest.mark.parametrize(("size", "scale"), [(16, 7), (28, 4), (64, 2), (200, 1)])
def test_images_are_enlarged_by_a_whole_number_without_any_blur(make_case, size, scale):
    case = make_case(size=size, channels=3, count=1)
    picture = render(plot_completions([case]))
    for image in (case.truth, case.completions[0]):
        assert contains(picture, np.kron(image, np.ones((scale, scale, 1), dtype=np.uint8)))


def test_cells_of_images_that_are_not_square_keep_their_proportion():
    grid = ImageGrid((10, 20), [0.5], [0.5, 0.1], bottom=0.2, right=0.2)
    *_, width, height = grid.cell(0, 1)
    assert width == 2 * height == 120


def test_unobserved_pixels_are_teal_and_observed_ones_are_the_image(make_case):
    case = make_case(channels=3)
    grid = ImageGrid((16, 16), [0.2], [0.2], bottom=0.2, right=0.2)
    grid.draw_observation(0, 0, case.truth, case.mask)
    left, top, width, height = grid.cell(0, 0)
    cell = render(grid.figure)[top : top + height, left : left + width]
    quarter = height // 4
    expected = np.kron(case.truth[:4], np.ones((7, 7, 1), dtype=np.uint8))
    assert np.array_equal(cell[:quarter], expected)
    colours = np.unique(cell[quarter:].reshape(-1, 3), axis=0)
    assert colours.tolist() == [[0x17, 0x8A, 0x8A], [0x35, 0xB3, 0xB0]]


def test_hidden_pixels_of_the_observation_are_never_shown(make_case):
    case = make_case(channels=3)
    leaking = make_case(channels=3, observation=case.truth)
    assert png_bytes(plot_completions([case])) == png_bytes(plot_completions([leaking]))


def test_deviation_is_the_root_mean_square_over_channels():
    values = np.array([[[3.0, 4.0, 0.0]]])
    assert deviation_map(values) == pytest.approx(np.sqrt(25 / 3))


@pytest.mark.parametrize(
    ("largest", "ceiling"), [(0.0, 2.0), (1.5, 2.0), (7.0, 8.0), (20.0, 20.0), (61.0, 80.0)]
)
def test_colour_scale_ends_at_a_round_number_that_holds_every_value(largest, ceiling):
    small = np.zeros((2, 2, 1))
    assert deviation_ceiling([small, np.full((2, 2, 1), largest)]) == ceiling


def test_deviation_maps_of_a_figure_share_one_scale(make_case):
    flat = np.full((16, 16, 1), 40.0)
    low = make_case(standard_deviation=flat)
    high = make_case(standard_deviation=2 * flat, seed=1)
    magma = matplotlib.colormaps["magma"]
    picture = render(plot_completions([low, high]))
    for level in (0.5, 1.0):  # of 80 grey levels
        colour = np.array(magma(level, bytes=True)[:3])
        assert (picture == colour).all(axis=2).sum() >= 112 * 112
    ticks = [t.get_text() for a in plot_completions([low, high]).axes for t in a.get_xticklabels()]
    assert {"0", "40", "80"} <= set(ticks)


def test_means_are_rounded_not_truncated():
    pixels = to_rgb_pixels(np.array([[[0.6], [254.9], [300.0], [-4.0]]]))
    assert pixels[0, :, 0].tolist() == [1, 255, 255, 0]
    assert pixels.shape == (1, 4, 3)


def test_rows_and_columns_are_named(make_case):
    case = make_case(count=10, label="seven", bin=4, observed_share=0.914)
    found = texts(plot_completions([case], title="A title"))
    assert {"A title", "case-0", "80–100 % observed", "here 91.4 %", "label: seven"} <= set(found)
    assert {"Observation", "Completion 8", "Mean", "Standard\ndeviation", "Truth"} <= set(found)
    assert "Completion 9" not in found


def test_stripes_are_explained_where_there_are_any(make_case):
    hidden = make_case(mask=np.eye(16, dtype=bool))
    whole = make_case(mask=np.ones((16, 16), dtype=bool))
    for cases, striped in (([hidden, whole], True), ([whole], False)):
        (note,) = [text for text in texts(plot_completions(cases)) if "per pixel" in text]
        assert ("Teal stripes" in note) is striped


def test_long_names_of_cases_are_cut_in_the_middle(make_case):
    found = texts(plot_completions([make_case(case_id="0123456789abcdefghijklmnop")]))
    assert "012345678…ijklmnop" in found


def test_no_text_leaves_the_figure(make_case):
    cases = [make_case(count=1, label="a", case_id="x" * 30, channels=3)]
    for figure in (plot_completions(cases), plot_samplers({"ipa": cases, "untrained": cases})):
        figure.canvas.draw()
        width, height = figure.canvas.get_width_height()
        for text in figure.texts:
            box = text.get_window_extent()
            assert box.x0 >= 0, text
            assert box.y0 >= 0, text
            assert box.x1 <= width, text
            assert box.y1 <= height, text


def test_samplers_stand_below_each_other_with_the_truth_once(make_case):
    groups = {
        sampler: [make_case(seed=seed, channels=3, count=2) for seed in (0, 1)]
        for sampler in ("ipa", "prior")
    }
    figure = plot_samplers(groups)
    found = texts(figure)
    assert found.count("ipa") == found.count("prior") == 2
    assert found.count("case-0") == found.count("case-1") == 1
    # Per case: observation and truth; per case and sampler: two completions, mean, deviation.
    assert len(figure.images) == 2 * 2 + 4 * 4


def test_samplers_with_different_numbers_of_completions_keep_their_columns(make_case):
    figure = plot_samplers({"ipa": [make_case(count=4)], "prior": [make_case(count=2)]})
    lefts = {image.ox for image in figure.images}
    assert len(lefts) == 2 + 4 + 2


def test_samplers_with_different_cases_are_refused(make_case):
    with pytest.raises(ConfigurationError, match=r"'prior' = \['case-1'\].*'ipa', \['case-0'\]"):
        plot_samplers({"ipa": [make_case()], "prior": [make_case(seed=1)]})


def test_cases_that_cannot_be_drawn_are_refused(make_case):
    with pytest.raises(ConfigurationError, match="at least one case"):
        plot_completions([])
    with pytest.raises(ConfigurationError, match=r"\(16, 16, 1\) and \(8, 8, 1\)"):
        plot_completions([make_case(), make_case(size=8)])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bin": 5}, "bin = 5"),
        ({"truth": np.zeros((16, 16, 2), np.uint8)}, r"truth of shape \(16, 16, 2\)"),
        ({"mask": np.zeros((16, 15), bool)}, r"mask of shape \(16, 15\), expected \(16, 16\)"),
        ({"mean": np.zeros((1, 16, 16))}, "case-0: mean of shape"),
        ({"completions": np.zeros((3, 8, 8, 1), np.uint8)}, r"completions of shape \(8, 8, 1\)"),
        ({"completions": np.zeros((0, 16, 16, 1), np.uint8)}, "no completions"),
    ],
)
def test_examples_whose_arrays_do_not_fit_are_refused(make_case, fields, message):
    with pytest.raises(ConfigurationError, match=message):
        make_case(**fields)


def test_figures_do_not_touch_global_settings_and_are_reproducible(make_case):
    before = dict(matplotlib.rcParams)
    first = png_bytes(plot_completions([make_case()]))
    assert dict(matplotlib.rcParams) == before
    assert first == png_bytes(plot_completions([make_case()]))
