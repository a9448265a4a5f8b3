"""What holds for every task: shapes, ranges, what is looked at, errors, and training with it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from condvae.ground.configuration import ConfigurationError
from condvae.ground.images import DataContract
from condvae.ipa import ConditionalModel, PartialEncoder, initialise
from condvae.masks.sampling import MaskConfig, draw_masks, usable_bins
from condvae.models.folder import load_posterior, posterior_source, save_posterior
from condvae.posterior.image_posterior import ImagePosterior
from condvae.tasks import (
    TASKS,
    Attributes,
    ClassLabel,
    Colourisation,
    Combination,
    CustomDownsampling,
    Edges,
    Glimpses,
    Inpainting,
    Outpainting,
    SideInformation,
    Subject,
    SuperResolution,
    Task,
    describe_task,
    register_task,
    task_named,
)
from condvae.training.config import TrainingConfig
from condvae.training.initial import new_vae
from condvae.training.loop import fit
from condvae.training.objectives import ForwardKL
from condvae.vdvae import ARCHITECTURES

SIZE = 16
COLOUR = DataContract(3, SIZE, 110.0, 60.0)
GREY = DataContract(1, SIZE, 110.0, 60.0)
EVERY_TASK = [
    Inpainting(),
    Outpainting(),
    SuperResolution(4),
    SuperResolution(2, "bicubic"),
    CustomDownsampling(torch.eye(SIZE)[::8]),
    Colourisation(),
    Edges(),
    Edges(style="soft"),
    Edges(paired=True),
    ClassLabel(3),
    Attributes(5, (0, 3)),
    Glimpses(4, 2),
    Combination({"inpainting": {}, "class_label": {"classes": 3}}),
    Combination({"super_resolution": {"factor": 8}, "attributes": {"count": 5}}),
]
NAMES = [f"{i}-{task.name}" for i, task in enumerate(EVERY_TASK)]


def everything(batch=4, channels=3, seed=0):
    """A subject of which all is known."""
    rng = np.random.default_rng(seed)
    images = torch.from_numpy(rng.integers(0, 256, (2, batch, channels, SIZE, SIZE), np.uint8))
    return Subject(
        images[0],
        torch.from_numpy(rng.random((batch, 1, SIZE, SIZE)) < 0.3),
        torch.from_numpy(rng.integers(-1, 3, batch)),
        torch.from_numpy(rng.integers(-1, 2, (batch, 5))),
        images[1],
    )


def needed(task, subject):
    """The subject with no more than the task needs."""
    names = ("pixels", "mask", "labels", "attributes", "paired")
    return replace(subject, **{name: None for name in names if name not in task.needs})


@pytest.mark.parametrize("task", EVERY_TASK, ids=NAMES)
def test_observation_has_the_shape_announced_and_pastes_only_masked_pixels(task):
    subject = everything()
    y = task.observe(needed(task, subject), COLOUR)
    assert y.condition.shape == (4, task.condition_channels(COLOUR), SIZE, SIZE)
    assert y.condition.dtype == torch.float32
    assert y.condition.isfinite().all()
    assert y.case_ids == ("0", "1", "2", "3")
    expected = subject.mask if task.uses_mask else torch.zeros_like(subject.mask)
    assert torch.equal(y.mask, expected)
    assert y.pixels.dtype == torch.uint8
    assert torch.equal(y.pixels, subject.pixels * expected)
    assert y.predicted_dimensions.tolist() == [3 * int((~m).sum()) for m in expected]


@pytest.mark.parametrize("task", EVERY_TASK, ids=NAMES)
def test_cases_do_not_depend_on_the_batch(task):
    subject = needed(task, everything())
    y = task.observe(subject, COLOUR, tuple("abcd"))
    parts = {name: getattr(subject, name)[2:3] for name in subject.given}
    alone = task.observe(Subject(**parts), COLOUR, ("c",))
    torch.testing.assert_close(alone.condition, y.condition[2:3], rtol=0, atol=1e-6)
    picture = task.picture(subject, COLOUR)
    assert picture is None or (picture.dtype, picture.shape) == (torch.uint8, (4, 3, SIZE, SIZE))


@pytest.mark.parametrize("task", EVERY_TASK, ids=NAMES)
def test_what_is_missing_or_of_no_use_is_named(task):
    subject = needed(task, everything())
    for name in task.needs:
        without = replace(subject, **{name: None})
        with pytest.raises(ConfigurationError, match=f"{name} = None: task '{task.name}' needs"):
            task.observe(without, COLOUR)
    for name in {"mask", "labels", "attributes", "paired"} - set(task.needs):
        given = replace(subject, **{name: getattr(everything(), name)})
        with pytest.raises(ConfigurationError, match=f"{name} were given: task '{task.name}'"):
            task.observe(given, COLOUR)
    if "pixels" in task.needs:
        with pytest.raises(
            ConfigurationError, match=r"images of shape \(4, 3, 16, 8\): the model expects"
        ):
            task.observe(replace(subject, pixels=subject.pixels[..., :8]), COLOUR)


def test_a_label_needs_no_image():
    y = ClassLabel(3).observe(Subject(labels=torch.tensor([2, 0])), COLOUR)
    assert y.pixels.shape == (2, 3, SIZE, SIZE)
    assert not y.mask.any()


# What must not matter to y: of every task, other pixels with the same y.
def hidden_change(task, subject):
    pixels = subject.pixels.clone()
    if isinstance(task, Inpainting):
        return torch.where(subject.mask, pixels, 255 - pixels)
    if isinstance(task, Glimpses):  # reach 2, and 3 more to the end of a block
        far = ~torch.nn.functional.max_pool2d(subject.mask.float(), 11, 1, 5).bool()
        return torch.where(far, 255 - pixels, pixels)
    if isinstance(task, SuperResolution):  # swap neighbours inside each block
        return pixels.reshape(4, 3, SIZE, -1, 2).flip(-1).reshape(pixels.shape)
    if isinstance(task, CustomDownsampling):
        pixels[..., 1:8] = 0
        return pixels
    if isinstance(task, Edges):
        return pixels // 2 + 100
    return 255 - pixels


@pytest.mark.parametrize(
    "task",
    [
        *(Inpainting(), Outpainting(), SuperResolution(4), SuperResolution(2), ClassLabel(3)),
        *(CustomDownsampling(torch.eye(SIZE)[::8]), Attributes(5), Glimpses(4, 2)),
        Edges(paired=True),
    ],
    ids=lambda task: task.name,
)
def test_what_y_does_not_say_changes_nothing(task):
    subject = everything()
    few = torch.zeros_like(subject.mask)
    few[..., :3, :3] = True
    subject = replace(subject, mask=few)
    changed = replace(subject, pixels=hidden_change(task, subject))
    assert not torch.equal(changed.pixels, subject.pixels)
    given, other = (
        needed(task, s) if "pixels" in task.needs else replace(needed(task, s), pixels=s.pixels)
        for s in (subject, changed)
    )
    a, b = task.observe(given, COLOUR), task.observe(other, COLOUR)
    torch.testing.assert_close(a.condition, b.condition, rtol=0, atol=1e-6)
    assert torch.equal(a.pixels, b.pixels)
    # And what it does say changes something.
    third = needed(task, replace(everything(seed=1), mask=few))
    assert not torch.equal(task.observe(third, COLOUR).condition, a.condition)


def test_only_observed_pixels_are_all_there_is_to_say():
    exact = [task.name for task in EVERY_TASK if task.is_exact]
    assert exact == ["inpainting", "outpainting"]
    assert Combination({"inpainting": {}, "outpainting": {}}).is_exact


@pytest.mark.parametrize("task", EVERY_TASK, ids=NAMES)
def test_task_comes_back_from_its_name_and_options(task):
    stored = describe_task(task)
    if task.name == "custom_downsampling":
        assert task.name not in TASKS
        return
    again = task_named(stored["task"], stored.get("task_options"))
    assert type(again) is type(task)
    assert describe_task(again) == stored
    y, z = (t.observe(needed(task, everything()), COLOUR) for t in (task, again))
    assert torch.equal(y.condition, z.condition)


def test_inpainting_is_stored_without_options():
    assert describe_task(Inpainting()) == {"task": "inpainting"}
    options = {"classes": 4, "hidden": 0.0}
    assert describe_task(ClassLabel(4)) == {"task": "class_label", "task_options": options}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("inpainting", {"factor": 2}, r"task.options = {'factor': 2}: task 'inpainting' has no"),
        ("super_resolution", {"factr": 2}, r"unknown parameter task.options.factr \(did you mean"),
        ("super_resolution", {"factor": 1}, r"task.options.factor = 1: expected 2 or more"),
        ("super_resolution", {"kernel": "boxes"}, r"task.options.kernel = 'boxes': .*box, bicubic"),
        ("edges", {"style": "hard"}, r"task.options.style = 'hard': expected one of binary, soft"),
        ("edges", {"threshold": 0}, r"task.options.threshold = 0.0: expected in \(0, 255\]"),
        ("class_label", {}, r"missing parameter task.options.classes"),
        ("class_label", {"classes": 0}, r"task.options.classes = 0: expected > 0"),
        ("attributes", {"count": 3, "chosen": [3]}, r"task.options.chosen = \(3,\): expected"),
        ("glimpses", {"reach": -1}, r"task.options.reach = -1: expected >= 0"),
        ("combination", {"parts": {"edges": {}}}, r"parts = .*: expected two tasks or more"),
        (
            "combination",
            {"parts": {"edges": {}, "class_label": {}}},
            r"missing parameter .*parts.class_label.classes",
        ),
    ],
)
def test_wrong_options_are_refused(name, options, message):
    with pytest.raises(ConfigurationError, match=message):
        task_named(name, options)


@pytest.mark.parametrize(
    ("task", "side", "message"),
    [
        (Colourisation(), {}, "task 'colourisation' needs images of 3 channels, found 1"),
        (SuperResolution(3), {}, "factor = 3: expected a divisor of the image side 16"),
        (Glimpses(5), {}, "factor = 5: expected a divisor of the image side 16"),
        (Edges(paired=True), {}, "task 'edges' needs paired: the data set has none"),
        (ClassLabel(2), {}, "task 'class_label' needs labels: the data set has none"),
        (ClassLabel(2), {"labels": np.array([0, 2])}, "classes = 2: the data set has the label 2"),
        (Attributes(2), {"attributes": np.zeros((4, 3))}, "count = 2: the data set has 3 attri"),
    ],
)
def test_data_that_lacks_something_is_refused(task, side, message):
    with pytest.raises(ConfigurationError, match=message):
        task.check_data(SideInformation(**side), GREY)
    assert Inpainting().check_data(SideInformation(), GREY) is None


def test_a_subject_must_fit_together():
    with pytest.raises(ValueError, match=r"batches of different sizes: {'pixels': 4, 'labels': 2}"):
        replace(everything(), labels=torch.tensor([1, 2]), attributes=None, paired=None)
    for wrong in (torch.tensor([0.5]), torch.tensor([[1]]), torch.tensor([True])):
        with pytest.raises(ValueError, match=r"labels of type .*: expected integers with 1 axes"):
            Subject(labels=wrong)


def test_side_information_is_taken_by_row():
    rng = np.random.default_rng(0)
    known = SideInformation(
        np.arange(6),
        rng.integers(0, 2, (6, 5)).astype(np.uint8),
        rng.integers(0, 256, (6, SIZE, SIZE, 3), np.uint8),
    )
    pixels, mask = torch.zeros(2, 3, SIZE, SIZE, dtype=torch.uint8), torch.ones(1, 1, SIZE, SIZE)
    rows = np.array([4, 1])
    subject = known.subject(pixels, mask, rows, ("mask", "labels", "attributes", "paired"))
    assert subject.mask is mask
    assert subject.labels.tolist() == [4, 1]
    np.testing.assert_array_equal(subject.attributes, known.attributes[[4, 1]])
    np.testing.assert_array_equal(subject.paired[:, 2, 3, 5], known.paired[[4, 1], 3, 5, 2])
    assert known.subject(pixels, mask, rows, ("pixels",)).given == ("pixels",)


def test_tasks_choose_their_masks():
    config = MaskConfig(pool=7)
    assert Inpainting().choose_masks(config) is config
    hidden = ClassLabel(2).choose_masks(config)
    assert not draw_masks(hidden, SIZE, 3, 0).any()
    assert usable_bins(hidden, SIZE) == (0,)
    windows = draw_masks(Outpainting().choose_masks(config), SIZE, 20, 0)
    assert windows[:, 7:9, 7:9].all(axis=(1, 2)).mean() > 0.9
    assert not windows[:, -1, -1].any()
    assert len({int(mask.sum()) for mask in windows}) > 4
    assert Glimpses().choose_masks(config) == MaskConfig({"patches": 1.0}, False, 7)
    both = Combination({"outpainting": {}, "class_label": {"classes": 2}})
    assert both.choose_masks(config).kinds == {"centre_window": 1.0}


def make_posterior(task, contract=COLOUR, seed=0):
    vae = new_vae(replace(ARCHITECTURES["tiny16"], channels=3), 110.0, 60.0, seed)
    partial = PartialEncoder(vae, task.condition_channels(contract))
    initialise(partial, vae, "random", seed)
    return ImagePosterior(ConditionalModel(vae, partial), task)


@pytest.mark.parametrize("task", EVERY_TASK, ids=NAMES)
def test_two_steps_of_training(task, tmp_path):
    rng = np.random.default_rng(0)
    images, drawings = rng.integers(0, 256, (2, 8, SIZE, SIZE, 3), np.uint8)
    known = SideInformation(rng.integers(0, 3, 8), rng.integers(0, 2, (8, 5)), drawings)
    posterior = make_posterior(task)
    task.check_data(known, COLOUR)
    masks = draw_masks(task.choose_masks(MaskConfig({"half": 1.0}, stratified=False)), SIZE, 2, 0)
    config = TrainingConfig(steps=2, batch_size=4, warmup_steps=0, checkpoint_every=2)
    rows = np.arange(6), np.arange(6, 8)
    partial = posterior.model.latents
    objective = ForwardKL(
        posterior.model.vae, partial, task, images, *rows, masks, masks, config, 0, known
    )
    before = {name: value.clone() for name, value in partial.state_dict().items()}
    result = fit(config, objective, tmp_path, "run")
    changed = [n for n, v in result.weights.items() if not torch.equal(v, before[n])]
    assert "encoder.in_conv.weight" in changed
    with torch.no_grad():
        assert np.isfinite(objective.validate()["kl_nats"])
    if not task.uses_mask:  # so all of x is predicted
        y = task.observe(needed(task, everything()), COLOUR)
        terms = posterior.bound(everything().pixels, y)
        assert torch.equal(terms.predicted_nats, terms.all_nats)


@pytest.mark.parametrize("task", [SuperResolution(2), ClassLabel(3), Inpainting()])
def test_saved_posterior_keeps_its_task(task, tmp_path):
    posterior = make_posterior(task)
    # Facts of another model of another task must not leak in.
    card = save_posterior(tmp_path, posterior, {"task": "edges", "task_options": {"style": "soft"}})
    assert {k: card[k] for k in ("task", "task_options") if k in card} == describe_task(task)
    again = load_posterior(tmp_path)
    assert describe_task(again.task) == describe_task(task)
    a, b = (p.task.observe(needed(task, everything()), p.contract) for p in (posterior, again))
    assert torch.equal(again.sample(b, 2), posterior.sample(a, 2))
    with pytest.raises(ConfigurationError, match=r"is for {'task': .*}, not for {'task': 'edges'"):
        load_posterior(tmp_path, task=Edges())
    own, vae = describe_task(task).get("task_options"), posterior.model.vae
    named = (str(tmp_path), vae, task.name, "absolute")
    assert posterior_source(*named, task_options=own).differences == ()
    (difference,) = posterior_source(*named, task_options={"factor": 8}).differences
    assert "its task has the options" in difference


@dataclass(frozen=True)
class Thumbnail(Task):
    """The mean colour alone."""

    weight: float = 1.0
    name = "thumbnail"

    def condition_channels(self, contract):
        return contract.channels

    def condition(self, subject, contract):
        mean = self.weight * subject.pixels.float().mean(dim=(2, 3), keepdim=True)
        return mean.expand(-1, -1, contract.size, contract.size)


def test_a_task_of_ones_own(tmp_path, monkeypatch):
    posterior = make_posterior(Thumbnail(2.0))
    pixels = everything().pixels
    y = posterior.observe(pixels)
    drawn = posterior.sample(y, 2)
    assert drawn.shape == (2, 4, 3, SIZE, SIZE)
    save_posterior(tmp_path, posterior, {})
    with pytest.raises(ConfigurationError, match="task = 'thumbnail': expected one of inpainting"):
        load_posterior(tmp_path)
    loaded = load_posterior(tmp_path, task=Thumbnail(2.0))
    assert torch.equal(loaded.sample(loaded.observe(pixels), 2), drawn)
    monkeypatch.delitem(TASKS, "thumbnail", raising=False)
    register_task(Thumbnail)
    assert load_posterior(tmp_path).task == Thumbnail(2.0)
    monkeypatch.delitem(TASKS, "thumbnail")


def test_a_name_is_taken_once(monkeypatch):
    assert register_task(Inpainting) is Inpainting
    # A cell of a notebook that is run again defines the same class once more.
    again = type("Inpainting", (Inpainting,), {"__module__": Inpainting.__module__})
    monkeypatch.setitem(TASKS, "inpainting", Inpainting)
    assert register_task(again) is TASKS["inpainting"] is again

    class Other(Inpainting):
        name = "edges"

    with pytest.raises(ConfigurationError, match="task 'edges' is Edges already"):
        register_task(Other)
