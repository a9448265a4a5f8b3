"""Both stages of training: what is minimised, what is kept, what stays, and how a run goes on."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from condvae.cvae import objectives
from condvae.cvae.conditions import drop
from condvae.cvae.model import new_cvae
from condvae.cvae.training import CvaeObjective, PriorObjective, train_cvae
from condvae.ground.configuration import ConfigurationError
from condvae.ground.images import DataContract
from condvae.training import TrainingConfig
from condvae.training.randomness import rows_of_step

CONTRACT = DataContract(1, 8, 120.0, 60.0)
TRAINING = TrainingConfig(
    steps=6,
    batch_size=4,
    learning_rate=0.01,
    warmup_steps=0,
    ema_decay=0.5,
    checkpoint_every=2,
    log_every=1,
    validate_every=2,
)


class KilledError(Exception):
    pass


class Killer:
    """Raises after a step of the stage so named; notes the steps that were done."""

    def __init__(self, name=None, at=None):
        self.name, self.at, self.steps, self.now = name, at, [], None

    def on_start(self, name, step, steps, batch_size):
        self.now = name

    def on_step(self, step):
        self.steps.append((self.now, step))
        if (self.now, step) == (self.name, self.at):
            raise KilledError

    def on_metrics(self, step, metrics):
        pass

    def on_end(self):
        pass


def train(config, images, folder, *, callbacks=(), training=TRAINING, seed=0):
    return train_cvae(
        config, CONTRACT, images, training, TRAINING, folder, seed=seed, callbacks=callbacks
    )


def make_objective(
    make_cvae, images, kind=CvaeObjective, *, training=TRAINING, best=None, **changes
):
    model = make_cvae(dtype=torch.float32, **changes)
    return kind(model, images, training, 0, best)


def drop_all(y, _share, _generator):
    return torch.full_like(y, math.nan)


def assert_same(one, two):
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.equal(value, two[name]), name


# --- what is minimised ---


def test_the_loss_is_a_sum_over_pixels_and_latents(make_cvae, training_images):
    objective = make_objective(
        make_cvae,
        training_images,
        likelihood="fixed",
        fixed_std=0.5,
        discretised=False,
        beta=3.0,
        drop_share=0.0,
    )
    model, (pixels, y, noise, uniform) = objective.module, objective._batch(7)
    q = model.encode(pixels, y)
    mean = model.decode(q.mean + q.log_std.exp() * noise, y)
    x = (pixels + uniform - 128.0) / 127.5
    squares = ((x - mean) / 0.5).square().sum(dim=(1, 2, 3))
    distortion = 0.5 * squares + 64 * (math.log(0.5 * 127.5) + 0.5 * math.log(2 * math.pi))
    rate = 0.5 * (q.mean**2 + (2 * q.log_std).exp() - 1 - 2 * q.log_std).sum(dim=1)
    loss, metrics = objective.loss(7)
    torch.testing.assert_close(64 * loss, (distortion + 3 * rate).mean())
    torch.testing.assert_close(metrics["kl_nats"], rate.mean())
    torch.testing.assert_close(metrics["distortion_nats"], distortion.mean())
    bits = (distortion + rate).mean() / (64 * math.log(2))
    torch.testing.assert_close(metrics["bits_per_dim"], bits)


@pytest.mark.parametrize("kind", [CvaeObjective, PriorObjective])
def test_dropped_values_have_no_say(make_cvae, training_images, kind, monkeypatch):
    table = training_images.table
    other = dataclasses.replace(
        training_images, table=dataclasses.replace(table, values=table.values.flip(0))
    )
    for dropped in (True, False):
        monkeypatch.setattr(objectives, "drop", drop_all if dropped else drop)
        losses = []
        for images in (training_images, other):
            objective = make_objective(make_cvae, images, kind, drop_share=0.0)
            objective.module.prior.standardise(torch.zeros(3), torch.ones(3))
            losses.append(objective.loss(0)[0])
        assert torch.equal(*losses) == dropped


@pytest.mark.parametrize("kind", [CvaeObjective, PriorObjective])
def test_images_are_trained_on_as_they_are(make_cvae, training_images, kind):
    """No rotation with black corners: what a step sees are images of the set, in their orientation."""
    objective = make_objective(make_cvae, training_images, kind, drop_share=0.0)
    seen = []
    for step in range(4):
        rows = training_images.training_rows[rows_of_step(16, 4, step, 0)]
        pixels, y, _, _ = objective._batch(step)
        np.testing.assert_array_equal(pixels.movedim(1, -1), training_images.pixels[rows])
        assert torch.equal(y, training_images.table.rows(rows))
        seen += rows.tolist()
    assert sorted(seen) == list(range(16))


@pytest.mark.parametrize("training", ["two_stage", "joint"])
def test_unknown_values_are_trained_on(training_images, make_config, tmp_path, training):
    """Partly and wholly unknown conditions, without any that training drops itself."""
    values = training_images.table.values.clone()
    values[::3, 0], values[::4, 1], values[[1, 17]] = math.nan, math.nan, math.nan
    images = dataclasses.replace(
        training_images, table=dataclasses.replace(training_images.table, values=values)
    )
    run = train(make_config(training=training, drop_share=0.0), images, tmp_path)
    assert all(value.isfinite().all() for value in run.model.state_dict().values())
    for stage in run.stages.values():
        assert all(math.isfinite(row["train/loss"]) for row in stage.history if "train/loss" in row)
    # Embeddings of "unknown" are the last of each attribute: rows 3 (of shade) and 5 (of tilt).
    start = new_cvae(run.model.config, run.model.attributes, CONTRACT, 0)
    for part in ("conditions", "prior_conditions"):
        before, after = (getattr(m, part).embeddings.detach() for m in (start, run.model))
        assert (before[[3, 5]] != after[[3, 5]]).any(dim=1).all(), part


def test_a_loss_is_a_function_of_weights_and_step(make_cvae, training_images):
    for kind in (CvaeObjective, PriorObjective):
        objective = make_objective(make_cvae, training_images, kind, discretised=False)
        first = objective.loss(3)[0]
        torch.rand(5)
        assert torch.equal(objective.loss(3)[0], first)
        assert not torch.equal(objective.loss(4)[0], first)


def test_the_second_stage_fits_samples_of_q_and_not_their_means(
    make_cvae, training_images, monkeypatch
):
    monkeypatch.setattr(objectives, "drop", drop_all)
    objective = make_objective(
        *(make_cvae, training_images, PriorObjective),
        training=dataclasses.replace(TRAINING, batch_size=16),
        prior="gaussian",
    )
    model = objective.module
    with torch.no_grad():  # q about as wide as its means are spread
        model.encoder.last.bias[3:] += 1.0
    pixels, y = training_images.batch(training_images.training_rows, torch.device("cpu"))
    q = model.encode(pixels, torch.full_like(y, math.nan))
    of_means = q.mean.var(dim=0, correction=0)
    aggregate = of_means + (2 * q.log_std).exp().mean(dim=0)
    assert (aggregate > 1.5 * of_means).all()
    # The moments that the objective starts from would give the answer away.
    model.prior.standardise(torch.full((3,), 0.5), torch.full((3,), 0.4))
    optimizer = torch.optim.Adam(model.prior.parameters(), lr=0.06)
    for step in range(100):
        optimizer.param_groups[0]["lr"] = 0.06 * (1 - step / 100)
        optimizer.zero_grad()
        objective.loss(step)[0].backward()
        optimizer.step()
    context = model.prior_context(torch.full((1, 2), math.nan))
    mean = model.prior.from_base(torch.zeros(1, 3), context)
    variance = (model.prior.from_base(torch.ones(1, 3), context) - mean)[0].square()
    assert ((variance / aggregate).log().abs() < 0.25).all()
    torch.testing.assert_close(mean[0], q.mean.mean(dim=0), rtol=0, atol=0.3)


def test_standardisation_has_the_moments_of_samples(make_cvae, training_images):
    objective = make_objective(make_cvae, training_images, PriorObjective)
    model, rows = objective.module, training_images.training_rows
    pixels, y = training_images.batch(rows, torch.device("cpu"))
    z = model.encode(pixels, y).sample(objective._image_noise(rows)[0])
    torch.testing.assert_close(model.prior.mean, z.mean(dim=0))
    torch.testing.assert_close(model.prior.std, z.std(dim=0, correction=0))
    names = {n for n, p in model.named_parameters() if p.requires_grad}
    assert names
    assert all(name.startswith(("prior.", "prior_conditions.")) for name in names)


# --- validation ---


def test_validation_leaves_the_mode_and_the_mode_has_no_say(make_cvae, training_images):
    """Nothing behaves otherwise in evaluation: validation cannot spoil the steps after it."""
    for kind in (CvaeObjective, PriorObjective):
        objective = make_objective(make_cvae, training_images, kind)
        losses = []
        for training in (True, False):
            objective.module.train(training)
            objective.validate()
            assert objective.module.training == training
            assert all(part.training == training for part in objective.module.modules())
            losses.append(objective.loss(5)[0])
        assert torch.equal(*losses)
        assert all(value.requires_grad for value in objective.trained.values())


@pytest.mark.parametrize("discretised", [True, False])
def test_scores_are_means_over_images_whatever_the_batch(make_cvae, training_images, discretised):
    scores = []
    for batch_size in (1, 2, 4, 64):
        training = dataclasses.replace(TRAINING, batch_size=batch_size)
        objective = make_objective(
            make_cvae, training_images, training=training, discretised=discretised
        )
        scores.append(objective.validate())
        assert objective.validate() == scores[-1]
    for score in scores[1:]:
        assert score == pytest.approx(scores[0], rel=1e-5)
    total = scores[0]["kl_nats"] + scores[0]["distortion_nats"]
    assert scores[0]["bits_per_dim"] == pytest.approx(total / (64 * math.log(2)))


def test_the_scoring_std_is_that_of_training_images(make_cvae, training_images):
    objective = make_objective(make_cvae, training_images)
    objective.validate()
    model, rows = objective.module, training_images.training_rows
    pixels, y = training_images.batch(rows, torch.device("cpu"))
    z = model.encode(pixels, y).sample(objective._image_noise(rows)[0])
    error = (model.decode(z, y) - (pixels - 127.5) / 127.5).square().mean()
    torch.testing.assert_close(model.likelihood.log_std.exp(), error.sqrt())


def test_test_images_have_no_say(training_images, make_config, tmp_path):
    pixels = training_images.pixels.copy()
    pixels[21:] = 255 - pixels[21:]  # neither trained nor validated on
    changed = dataclasses.replace(training_images, pixels=pixels)
    one = train(make_config(), training_images, tmp_path / "one")
    two = train(make_config(), changed, tmp_path / "two")
    assert_same(one.model.state_dict(), two.model.state_dict())
    pixels[16:21] = 255 - pixels[16:21]  # validated on: scores change, steps do not
    three = train(make_config(), changed, tmp_path / "three")
    for stage in ("cvae", "prior"):
        histories = [run.stages[stage].history for run in (one, three)]
        losses, scores = (
            [[r[name] for r in history if name in r] for history in histories]
            for name in ("train/loss", "validation/bits_per_dim")
        )
        assert scores[0] != scores[1]
        if stage == "cvae":
            assert losses[0] == losses[1]


def test_without_validation_images_the_last_weights_are_the_result(
    training_images, make_config, tmp_path
):
    images = dataclasses.replace(training_images, validation_rows=np.arange(0))
    run = train(make_config(), images, tmp_path)
    own = dict(run.model.named_parameters())
    for result in run.stages.values():
        assert all(torch.equal(own[name], value) for name, value in result.weights.items())


# --- the best weights ---


def test_the_best_weights_are_a_copy(make_cvae, training_images, tmp_path):
    objective = make_objective(make_cvae, training_images, best=tmp_path / "best.pt")
    assert objective.load_best() is None
    scores, kept, weights = [], [], []
    for offset in (1.0, -1.0, 0.7):  # worse than the model, the model, worse again
        with torch.no_grad():
            objective.module.decoder.last.bias.add_(offset)
        scores.append(objective.validate()["bits_per_dim"])
        kept.append(objective.load_best())
        weights.append({n: value.detach().clone() for n, value in objective.trained.items()})
    assert scores[1] < min(scores[0], scores[2])
    assert_same(dict(kept[0]), weights[0])
    assert_same(dict(kept[1]), weights[1])
    assert_same(dict(kept[2]), weights[1])


def test_the_result_is_the_best_validation_and_not_the_last(training_images, make_config, tmp_path):
    wild = dataclasses.replace(
        TRAINING, learning_rate=0.05, schedule="constant", steps=30, ema_decay=0.0
    )
    config = make_config(prior="standard")
    run = train(config, training_images, tmp_path, training=wild)
    history = run.stages["cvae"].history
    scores = [r["validation/bits_per_dim"] for r in history if "validation/bits_per_dim" in r]
    assert scores[-1] > min(scores)  # else this test shows nothing
    objective = CvaeObjective(run.model, training_images, wild, 0)
    assert objective.validate()["bits_per_dim"] == pytest.approx(min(scores), rel=1e-6)
    own = dict(run.model.named_parameters())
    last = run.stages["cvae"].weights
    assert any(not torch.equal(own[name], value) for name, value in last.items())


# --- stages ---


def test_the_second_stage_leaves_the_vae_as_it_is(training_images, make_config, tmp_path):
    alone = train(make_config(prior="standard"), training_images, tmp_path).model.state_dict()
    run = train(make_config(), training_images, tmp_path)
    assert list(run.stages) == ["cvae", "prior"]
    assert run.stages["cvae"].resumed_from == TRAINING.steps  # shared with the first run
    state = run.model.state_dict()
    vae = {name: value for name, value in state.items() if not name.startswith("prior")}
    assert_same(vae, {n: v for n, v in alone.items() if not n.startswith("prior")})
    start = new_cvae(run.model.config, run.model.attributes, CONTRACT, 0).state_dict()
    changed = [name for name, value in state.items() if not torch.equal(value, start[name])]
    assert any(name.startswith("prior.flow.") for name in changed)
    assert any(name.startswith("prior_conditions.") for name in changed)
    assert {"prior.mean", "prior.std"} <= set(changed)


@pytest.mark.parametrize("prior", ["gaussian", "spline"])
def test_joint_training_trains_everything_at_once(training_images, make_config, tmp_path, prior):
    config = make_config(training="joint", prior=prior, drop_share=0.5)
    run = train(config, training_images, tmp_path)
    assert list(run.stages) == ["cvae"]
    start = dict(new_cvae(config, run.model.attributes, CONTRACT, 0).named_parameters())
    # Couplings that start as the identity: what lies before their last layer moves a step later.
    for name, value in run.model.named_parameters():
        assert not torch.equal(value, start[name]), name
    assert not any(parameter.requires_grad for parameter in run.model.parameters())
    assert not run.model.training


def test_a_prior_without_weights_has_no_second_stage(training_images, make_config, tmp_path):
    run = train(make_config(prior="standard"), training_images, tmp_path)
    assert list(run.stages) == ["cvae"]


def test_the_second_stage_improves_the_bound(training_images, make_config, tmp_path):
    longer = dataclasses.replace(TRAINING, steps=30, validate_every=10, checkpoint_every=30)
    config = make_config(prior="gaussian", drop_share=0.0)
    run = train_cvae(
        *(config, CONTRACT, training_images, longer, longer, tmp_path), seed=0, callbacks=()
    )
    nats = [r["train/prior_nats"] for r in run.stages["prior"].history]
    assert np.mean(nats[-10:]) < np.mean(nats[:10])
    objective = CvaeObjective(run.model, training_images, longer, 0)
    before = objective.validate()["kl_nats"]
    assert PriorObjective(run.model, training_images, longer, 0).validate()["kl_nats"] < before


# --- going on ---


@pytest.fixture(scope="module")
def undisturbed():
    """Results by kind of training."""
    return {}


@pytest.mark.parametrize(
    ("training", "stage", "step"),
    [
        ("two_stage", "cvae", 3),
        ("two_stage", "prior", 1),
        ("two_stage", "prior", 5),
        ("joint", "cvae", 3),
    ],
)
def test_a_killed_run_ends_as_if_nothing_had_happened(
    training_images, make_config, tmp_path, undisturbed, training, stage, step
):
    config = make_config(training=training)
    if training not in undisturbed:
        undisturbed[training] = train(config, training_images, tmp_path / "undisturbed")
    expected = undisturbed[training]
    with pytest.raises(KilledError):
        train(config, training_images, tmp_path / "killed", callbacks=[Killer(stage, step)])
    torch.rand(3)  # the global generator has no say
    killer = Killer()
    found = train(config, training_images, tmp_path / "killed", callbacks=[killer])
    assert killer.steps[0] == (stage, step // 2 * 2 + 1)  # from the checkpoint before
    assert_same(found.model.state_dict(), expected.model.state_dict())
    assert found.fingerprint == expected.fingerprint
    for name, result in expected.stages.items():
        assert found.stages[name].history == result.history
        assert_same(found.stages[name].weights, result.weights)


def test_a_finished_run_does_no_step(training_images, make_config, tmp_path):
    first = train(make_config(), training_images, tmp_path)
    killer = Killer()
    again = train(make_config(), training_images, tmp_path, callbacks=[killer])
    assert killer.steps == []
    assert_same(first.model.state_dict(), again.model.state_dict())


def test_another_seed_table_or_setting_is_another_run(training_images, make_config, tmp_path):
    table = training_images.table
    other = dataclasses.replace(
        training_images, table=dataclasses.replace(table, values=table.values.flip(0))
    )
    fingerprints = {
        train(make_config(**changes), images, tmp_path, seed=seed).fingerprint
        for changes, images, seed in (
            ({}, training_images, 0),
            ({}, training_images, 1),
            ({}, other, 0),
            ({"prior_hidden": 4}, training_images, 0),
        )
    }
    assert len(fingerprints) == 4
    assert len(list(tmp_path.glob("cvae-*"))) == 3


def test_images_and_attributes_that_do_not_fit(training_images):
    with pytest.raises(ConfigurationError, match="23 images, 24 rows of attributes"):
        dataclasses.replace(training_images, pixels=training_images.pixels[1:])
    with pytest.raises(ConfigurationError, match="no training images"):
        dataclasses.replace(training_images, training_rows=np.arange(0))
