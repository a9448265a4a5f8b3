"""Known answers of the tasks that show something else than pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from condvae.ground.configuration import ConfigurationError
from condvae.ground.images import DataContract
from condvae.tasks import (
    Attributes,
    ClassLabel,
    Colourisation,
    Combination,
    CustomDownsampling,
    Edges,
    Glimpses,
    Inpainting,
    Subject,
    SuperResolution,
    describe_task,
)
from condvae.tasks.edges import detect_edges

GREY, COLOUR = DataContract(1, 8, 100.0, 50.0), DataContract(3, 8, 100.0, 50.0)


def colours(batch=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (batch, 3, 8, 8), np.uint8)


def no_mask(images):
    return torch.zeros(len(images), 1, 8, 8, dtype=torch.bool)


@pytest.mark.parametrize("factor", [2, 4])
def test_box_averages_of_blocks(factor):
    x = colours()
    y = SuperResolution(factor).observe(Subject(torch.from_numpy(x)), COLOUR)
    small = np.zeros((2, 3, 8 // factor, 8 // factor))
    for i in range(8):
        for j in range(8):
            small[..., i // factor, j // factor] += x[..., i, j] / factor**2
    large = small.repeat(factor, axis=2).repeat(factor, axis=3)
    np.testing.assert_allclose(y.condition, (large - 100) / 50, atol=1e-5)
    measured = SuperResolution(factor).measure(torch.from_numpy(x), no_mask(x))
    np.testing.assert_allclose(measured, small.reshape(2, -1), atol=1e-4)
    picture = SuperResolution(factor).picture(Subject(torch.from_numpy(x)), COLOUR)
    assert np.abs(picture.numpy() - large).max() <= 0.5 + 1e-4


@pytest.mark.parametrize("kernel", ["box", "bicubic"])
def test_downsampling_is_linear_and_keeps_constants(kernel):
    task = SuperResolution(2, kernel)
    a, b = (torch.from_numpy(colours(seed=s)).double() for s in (0, 1))
    torch.testing.assert_close(
        task.reduce(3 * a - 2 * b), 3 * task.reduce(a) - 2 * task.reduce(b), rtol=0, atol=1e-9
    )
    flat = torch.full((1, 3, 8, 8), 77.0)
    torch.testing.assert_close(task.reduce(flat), torch.full((1, 3, 4, 4), 77.0))


def test_bicubic_is_that_of_image_programs():
    from PIL import Image

    x = colours(1)[0, 0]
    theirs = np.array(
        Image.fromarray(x.astype(np.float32)).resize((4, 4), Image.Resampling.BICUBIC)
    )
    ours = SuperResolution(2, "bicubic").reduce(torch.from_numpy(x)[None, None].float())
    np.testing.assert_allclose(ours[0, 0], theirs, atol=1e-3)


def test_any_matrix_or_function_reduces():
    x = torch.from_numpy(colours())
    matrix = torch.zeros(4, 8)
    for i in range(4):
        matrix[i, 2 * i : 2 * i + 2] = 0.5
    box = SuperResolution(2).observe(Subject(x), COLOUR).condition
    for own in (matrix, SuperResolution(2).reduce):
        y = CustomDownsampling(own).observe(Subject(x), COLOUR)
        torch.testing.assert_close(y.condition, box, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match=r"small image of shape \(2, 3, 3, 3\)"):
        CustomDownsampling(matrix[:3]).observe(Subject(x), COLOUR)
    # Other maps are other runs and other models.
    known = describe_task(CustomDownsampling(matrix))
    assert describe_task(CustomDownsampling(matrix.clone())) == known
    assert describe_task(CustomDownsampling(2 * matrix)) != known
    named = describe_task(CustomDownsampling(SuperResolution(2).reduce))["task_options"]
    assert named == {"function": "SuperResolution.reduce"}


def test_luma_of_the_norm():
    x = np.zeros((4, 3, 8, 8), np.uint8)
    x[0, 0], x[1, 1], x[2, 2], x[3] = 255, 255, 255, 90
    y = Colourisation().observe(Subject(torch.from_numpy(x)), COLOUR)
    expected = np.array([0.299 * 255, 0.587 * 255, 0.114 * 255, 90.0])
    shown = y.condition.numpy() * 50 + 100
    np.testing.assert_allclose(
        shown, np.broadcast_to(expected[:, None, None, None], shown.shape), atol=1e-3
    )


def test_colours_of_one_brightness_look_the_same():
    x = np.full((2, 3, 8, 8), 100, np.uint8)
    x[1] = np.array([100 + 58, 100 - 58 + 30, 100])[:, None, None]
    x[1] = np.array([150, 81, 66])[:, None, None]  # 0.299 * 150 + 0.587 * 81 + 0.114 * 66 = 99.9
    found = Colourisation().measure(torch.from_numpy(x), no_mask(x))
    assert (found[0] - found[1]).abs().max() < 0.1


def test_a_step_has_edges_where_it_is():
    x = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    x[..., 4:] = 255
    binary = detect_edges(x, 40.0)[0, 0]
    assert set(binary.unique().tolist()) == {0.0, 255.0}
    assert (binary[:, 3:5] == 255).all()
    assert not binary[:, :3].any()
    assert not binary[:, 5:].any()
    assert torch.equal(detect_edges(x.transpose(2, 3), 40.0)[0, 0], binary.T)
    # Four times the step in Sobel's filter is one step in grey levels.
    soft = detect_edges(torch.where(x > 0, 60, 20).to(torch.uint8), None)[0, 0]
    np.testing.assert_allclose(soft[4], [0, 0, 0, 40, 40, 0, 0, 0])
    assert not detect_edges(torch.where(x > 0, 60, 20).to(torch.uint8), 41.0).any()
    assert not detect_edges(torch.full_like(x, 99), 1e-3).any()


def test_thinning_keeps_the_ridge_of_a_ramp_and_of_a_diagonal():
    # Steps of 10, 60, 10: the largest gradient is in the middle.
    x = torch.tensor([0, 0, 0, 10, 70, 80, 80, 80], dtype=torch.uint8).expand(1, 1, 8, 8)
    assert detect_edges(x, 5.0)[0, 0, 4].tolist() == [0, 0, 0, 255, 255, 0, 0, 0]
    grid = torch.arange(8)
    diagonal = (255 * (grid[:, None] > grid)).to(torch.uint8)[None, None]
    kept = detect_edges(diagonal, 40.0)[0, 0, 2:6, 2:6]
    offsets = (grid[:, None] - grid)[2:6, 2:6]
    assert kept[(offsets >= 0) & (offsets <= 1)].min() == 255
    assert kept[(offsets < -1) | (offsets > 2)].max() == 0


def test_edges_do_not_see_brightness_added_everywhere():
    x = torch.from_numpy(colours() // 2)
    for task in (Edges(), Edges(style="soft")):
        a, b = (task.observe(Subject(images), COLOUR) for images in (x, x + 77))
        assert torch.equal(a.condition, b.condition)
        assert torch.equal(task.measure(x, no_mask(x)), task.measure(x + 77, no_mask(x)))


def test_edges_see_nearby_pixels_only():
    x = torch.from_numpy(colours())
    changed = x.clone()
    changed[..., 0, 0] = 255 - changed[..., 0, 0]
    a, b = (Edges().observe(Subject(images), COLOUR).condition for images in (x, changed))
    assert torch.equal(a[..., 4:, :], b[..., 4:, :])


def test_paired_drawings_are_shown_like_images():
    drawing = colours(seed=3)
    y = Edges(paired=True).observe(Subject(paired=torch.from_numpy(drawing)), COLOUR)
    np.testing.assert_allclose(y.condition, (drawing - 100.0) / 50, atol=1e-6)
    assert Edges(paired=True).measure(torch.from_numpy(drawing), no_mask(drawing)) is None


def test_one_plane_per_class_and_one_for_unknown():
    y = ClassLabel(3).observe(Subject(labels=torch.tensor([2, 0, -1])), GREY)
    planes = y.condition[:, :, 5, 1]
    assert planes.tolist() == [[0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]
    assert torch.equal(y.condition, planes[:, :, None, None].expand(-1, -1, 8, 8))
    with pytest.raises(ValueError, match=r"labels with values \[3, -2\]: expected 0 to 2, or -1"):
        ClassLabel(3).observe(Subject(labels=torch.tensor([3, 1, -2])), GREY)


def test_two_planes_per_attribute():
    found = torch.tensor([[1, 0, -1], [0, 1, 1]])
    y = Attributes(3, (2, 0)).observe(Subject(attributes=found), GREY)
    assert y.condition[:, :, 3, 3].tolist() == [[0, 1, 0, 1], [1, 0, 1, 1]]
    with pytest.raises(ValueError, match="3 attributes: expected 4"):
        Attributes(4).observe(Subject(attributes=found), GREY)
    with pytest.raises(ValueError, match=r"attributes with values .*: expected 0, 1, or -1"):
        Attributes(3).observe(Subject(attributes=3 * found), GREY)


def test_attributes_that_y_says_are_those_it_asks_for():
    found = torch.tensor([[1, 0, -1], [0, 1, 1]])
    subject = Subject(attributes=found)
    assert torch.equal(Attributes(3).asked_attributes(subject), found)
    assert Attributes(3, (2, 0)).asked_attributes(subject).tolist() == [[1, -1, -1], [0, -1, 1]]
    both = Combination({"attributes": {"count": 3, "chosen": [1]}, "class_label": {"classes": 2}})
    assert both.asked_attributes(subject).tolist() == [[-1, 0, -1], [-1, 1, -1]]
    assert ClassLabel(2).asked_attributes(subject) is None
    assert Combination({"inpainting": {}, "edges": {}}).asked_attributes(subject) is None
    assert found.tolist() == [[1, 0, -1], [0, 1, 1]]


@pytest.mark.parametrize(
    ("task", "name"),
    [(ClassLabel(3, hidden=0.3), "labels"), (Attributes(4, hidden=0.3), "attributes")],
)
def test_training_hides_a_share_and_changes_nothing_else(task, name):
    shape = (4000,) if name == "labels" else (1000, 4)
    values = torch.from_numpy(np.random.default_rng(1).integers(0, 2, shape))
    seen = getattr(task.hide(Subject(**{name: values}), np.random.default_rng(2)), name)
    assert torch.equal(seen[seen >= 0], values[seen >= 0])
    assert set(seen.unique().tolist()) == {-1, 0, 1}
    # Five standard errors of a share of 4000.
    assert abs(float((seen < 0).double().mean()) - 0.3) < 5 * (0.3 * 0.7 / 4000) ** 0.5
    again = getattr(task.hide(Subject(**{name: values}), np.random.default_rng(2)), name)
    assert torch.equal(seen, again)
    both = Combination({task.name: task.options, "super_resolution": {"factor": 2}})
    assert torch.equal(
        getattr(both.hide(Subject(**{name: values}), np.random.default_rng(2)), name), seen
    )
    never = Attributes(4) if name == "attributes" else ClassLabel(3)
    assert torch.equal(
        getattr(never.hide(Subject(**{name: values}), np.random.default_rng(2)), name), values
    )


def test_glimpses_are_sharp_inside_and_coarse_around():
    x = torch.from_numpy(colours(1))
    mask = no_mask(x)
    mask[..., 0:2, 0:2] = True
    y = Glimpses(factor=2, reach=1).observe(Subject(x, mask), COLOUR)
    sharp, known, coarse, seen = y.condition.split([3, 1, 3, 1], dim=1)
    inner = Inpainting().observe(Subject(x, mask), COLOUR)
    assert torch.equal(torch.cat([sharp, known], dim=1), inner.condition)
    assert torch.equal(y.mask, mask)
    # One pixel beyond the mask reaches into the next blocks of two, and no further.
    expected = torch.zeros(8, 8)
    expected[:4, :4] = 1
    assert torch.equal(seen[0, 0], expected)
    block = x[0, :, 2:4, 0:2].float().mean(dim=(1, 2))
    torch.testing.assert_close(coarse[0, :, 3, 1], (block - 100) / 50)
    assert not coarse[..., 4:].any()
    measured = Glimpses(2, 1).measure(x, mask).reshape(1, 3, 4, 4)
    assert measured.isnan().sum() == 3 * 12
    torch.testing.assert_close(measured[0, :, 1, 0], block)


def test_combination_puts_channels_and_measurements_one_after_another():
    parts = {"super_resolution": {"factor": 2}, "class_label": {"classes": 2}, "edges": {}}
    both, x = Combination(parts), torch.from_numpy(colours())
    labels = torch.tensor([1, 0])
    y = both.observe(Subject(x, labels=labels), COLOUR)
    # Tasks that look at the image first, then by name.
    expected = [
        Edges().observe(Subject(x), COLOUR).condition,
        SuperResolution(2).observe(Subject(x), COLOUR).condition,
        ClassLabel(2).observe(Subject(labels=labels), COLOUR).condition,
    ]
    assert torch.equal(y.condition, torch.cat(expected, dim=1))
    # Identities of runs do not know the order of options, so it must not mean anything.
    turned = Combination(dict(reversed(parts.items())))
    assert torch.equal(turned.observe(Subject(x, labels=labels), COLOUR).condition, y.condition)
    assert both.needs == ("pixels", "labels")
    measured = both.measure(x, no_mask(x))
    assert measured.shape == (2, 3 * 16 + 64)
    seen = Combination({"inpainting": {}, "class_label": {"classes": 2}})
    assert seen.measure(x, no_mask(x)) is None


def test_training_hides_a_share_of_labels_and_attributes():
    labels = torch.arange(4000) % 3
    found = torch.arange(3000).reshape(1000, 3) % 2
    task = Combination(
        {
            "class_label": {"classes": 3, "hidden": 0.25},
            "attributes": {"count": 3, "hidden": 0.5},
        }
    )
    parts = {part.name: part for part in task.tasks}
    # Binomial: four standard deviations are 0.027 and 0.037.
    for single, subject, name, share in (
        (parts["class_label"], Subject(labels=labels), "labels", 0.25),
        (parts["attributes"], Subject(attributes=found), "attributes", 0.5),
    ):
        hidden = getattr(single.hide(subject, np.random.default_rng(0)), name)
        whole = getattr(subject, name)
        gone = hidden < 0
        assert abs(gone.double().mean() - share) < 0.037
        assert torch.equal(torch.where(gone, whole, hidden), whole)
        assert torch.equal(hidden, getattr(single.hide(subject, np.random.default_rng(0)), name))
        assert not torch.equal(
            hidden, getattr(single.hide(subject, np.random.default_rng(1)), name)
        )
    both = Subject(labels=labels[:1000], attributes=found)
    seen = task.hide(both, np.random.default_rng(0))
    assert (seen.labels < 0).any()
    assert (seen.attributes < 0).any()
    with pytest.raises(ConfigurationError, match=r"hidden = 1\.5: expected in \[0, 1\]"):
        ClassLabel(3, hidden=1.5)


def test_nothing_is_drawn_where_nothing_is_hidden():
    rng = np.random.default_rng(0)
    subject = Subject(labels=torch.tensor([1, 2]))
    assert torch.equal(ClassLabel(3).hide(subject, rng).labels, subject.labels)
    assert rng.random() == np.random.default_rng(0).random()
