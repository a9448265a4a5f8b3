from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.transforms import Bbox
from PIL import Image

from condvae.ground.configuration import ConfigurationError
from condvae.plots.overview import hatch_unobserved, plot_deviation, plot_overview
from condvae.plots.style import png_bytes


def texts(figure):
    return [text.get_text() for text in figure.texts]


@pytest.fixture
def draw(make_case):
    """A function that draws a made-up case."""

    def overview(count=9, title="my picture", modes=((0, 0.7), (3, 0.3)), channels=3, **options):
        case = make_case(channels=channels, count=count)
        quantiles = {0.95: case.completions[1], 0.05: case.completions[0], 0.5: case.truth}
        figure = plot_overview(
            title,
            case.observation,
            case.mask,
            case.completions,
            case.mean,
            case.standard_deviation,
            **({"quantiles": quantiles, "modes": modes} | options),
        )
        return case, figure

    return overview


def cell(figure, number):
    """Pixels of the figure's image number `number`, its frame taken off, as drawn."""
    framed = np.asarray(figure.images[number].get_array())
    scale = (len(framed) - 2) // 16
    return framed[1:-1:scale, 1:-1:scale]


def test_every_image_has_a_caption(draw):
    case, figure = draw(note=("a note " * 40,), warnings=("take care",))
    written = texts(figure)
    assert written[0] == "my picture"
    captions = [
        "Observed",
        *(f"Completion {k}" for k in range(7)),
        "Mean",
        "Standard\ndeviation",
        "5 %\nquantile",
        "95 %\nquantile",
        "Mode 1: 70 %\ncompletion 0",
        "Mode 2: 30 %\ncompletion 3",
    ]
    assert [text for text in written if text in captions] == captions
    # The longest note is broken; the warning stands below it.
    assert "take care" in written
    positions = {text.get_text(): text.get_position()[1] for text in figure.texts}
    note = next(text for text in written if text.startswith("a note"))
    assert note.count("\n") == 2
    assert positions["Observed"] < positions["take care"] < positions[note]
    np.testing.assert_array_equal(cell(figure, 1), case.completions[0])
    np.testing.assert_array_equal(cell(figure, 7), case.completions[6])
    np.testing.assert_array_equal(cell(figure, -1), case.completions[3])


def test_captions_do_not_run_into_the_images_above(draw):
    _, figure = draw(note=("one line",), warnings=("take care",))
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [image.get_extent() for image in figure.images]
    boxes = [Bbox.from_extents(x0, y0, x1, y1) for x0, x1, y0, y1 in boxes]
    for text in figure.texts:
        extent = text.get_window_extent(renderer)
        assert not any(extent.overlaps(box) for box in boxes), text.get_text()
        assert extent.x0 >= 0
        assert extent.x1 <= figure.bbox.width


def test_a_single_group_is_no_mode(draw):
    _, figure = draw(modes=((4, 1.0),))
    assert "Most central\ncompletion 4" in texts(figure)
    assert not any(text.startswith("Mode") for text in texts(figure))


def test_long_names_do_not_run_into_the_stamp(draw):
    stamp = "temperature 0.1234: not the posterior"
    _, figure = draw(stamp=stamp, title="W" * 10 + "a_long_name_" * 9 + "z" * 10)
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = {text.get_text(): text.get_window_extent(renderer) for text in figure.texts}
    (title,) = (text for text in boxes if text.startswith("W" * 10))
    assert title.endswith("z" * 10)
    assert boxes[title].x1 < boxes[stamp].x0


def test_few_completions_and_no_quantiles(draw):
    _, figure = draw(count=2, modes=((0, 1.0),), channels=1, quantiles={})
    assert "Completion 2" not in texts(figure)
    assert not any("quantile" in text for text in texts(figure))


@pytest.mark.parametrize("modes", [(), ((0, 0.2),) * 5])
def test_wrong_numbers_of_modes_are_refused(draw, modes):
    with pytest.raises(ConfigurationError, match=f"{len(modes)} modes: expected 1 to 4"):
        draw(modes=modes)


def test_deviation_has_a_scale():
    values = np.full((16, 16, 1), 31.0)
    figure = plot_deviation(values)
    (scale,) = figure.axes
    assert scale.get_xticks().tolist() == [0, 20, 40]
    assert scale.get_xlabel() == "grey levels"
    picture = np.asarray(Image.open(io.BytesIO(png_bytes(figure))).convert("RGB"))
    assert (picture != 255).any(axis=2).mean() > 0.2


def test_hatched_picture_keeps_its_size_and_what_is_observed():
    image = np.full((64, 64, 1), 9, np.uint8)
    mask = np.zeros((64, 64), dtype=bool)
    mask[:32] = True
    hatched = hatch_unobserved(image, mask)
    assert (hatched[mask] == 9).all()
    colours = np.unique(hatched[~mask], axis=0)
    assert colours.tolist() == [[0x17, 0x8A, 0x8A], [0x35, 0xB3, 0xB0]]
