"""`fit` on a regression with three weights: what a run writes, how it goes on, what it refuses."""

import errno
import json
import logging
import os
from dataclasses import replace

import pytest
import torch
from torch import nn

from condvae.configuration import ConfigurationError
from condvae.training.config import TrainingConfig
from condvae.training.guard import TrainingDivergedError
from condvae.training.loop import fit
from condvae.training.randomness import step_rng

CONFIG = TrainingConfig(
    steps=20,
    batch_size=4,
    learning_rate=0.05,
    warmup_steps=3,
    schedule="cosine",
    ema_decay=0.9,
    checkpoint_every=5,
    log_every=2,
    validate_every=6,
)
TRUTH = torch.tensor([1.0, -2.0, 0.5])


class Regression:
    """Squared error of a linear map; counts what is called."""

    name = "regression"
    section = "toy"

    def __init__(self):
        self.module = nn.Linear(3, 1, bias=False)
        with torch.no_grad():
            self.module.weight.zero_()
        self.steps = []
        self.weights_at_validation = []

    def loss(self, step):
        self.steps.append(step)
        x = torch.from_numpy(step_rng(0, step).standard_normal((4, 3)).astype("float32"))
        loss = (self.module(x)[:, 0] - x @ TRUTH).square().mean()
        return loss, {"mean_input": x.mean()}

    def validate(self):
        assert not torch.is_grad_enabled()
        self.weights_at_validation.append(self.module.weight.detach().clone())
        return {"distance": float((self.module.weight - TRUTH).square().sum())}


class KilledError(Exception):
    pass


class Recorder:
    """A callback that notes events and may raise or act after a step."""

    def __init__(self, at=None, act=None):
        self.events = []
        self.at, self.act = at, act

    def on_start(self, name, step, steps, batch_size):
        self.events.append(("start", name, step, steps, batch_size))

    def on_step(self, step):
        self.events.append(("step", step))
        if step == self.at:
            self.act()

    def on_metrics(self, step, metrics):
        self.events.append(("metrics", step, dict(metrics)))

    def on_end(self):
        self.events.append(("end",))


def kill():
    raise KilledError


def run(folder, *, callbacks=(), config=CONFIG, fingerprint="toy", objective=None):
    objective = objective or Regression()
    return fit(config, objective, folder, fingerprint, callbacks=callbacks), objective


def interrupt(folder, step, **settings):
    with pytest.raises(KilledError):
        run(folder, callbacks=[Recorder(step, kill)], **settings)


def checkpoints(folder):
    return sorted(int(path.stem.split("-")[1]) for path in folder.glob("checkpoint-*.pt"))


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    result, _ = run(folder)
    return result, (folder / "metrics.jsonl").read_bytes()


def assert_same(folder, result, undisturbed):
    expected, history = undisturbed
    assert set(result.weights) == set(expected.weights)
    for name, value in expected.weights.items():
        assert torch.equal(result.weights[name], value)
    assert result.history == expected.history
    assert (folder / "metrics.jsonl").read_bytes() == history


# --- one undisturbed run ---


def test_two_fresh_runs_are_identical(tmp_path, undisturbed):
    torch.manual_seed(1234)  # the global generator has no say
    result, objective = run(tmp_path)
    assert objective.steps == list(range(20))
    assert_same(tmp_path, result, undisturbed)


def test_training_approaches_the_truth(undisturbed):
    distances = [
        r["validation/distance"] for r in undisturbed[0].history if "validation/distance" in r
    ]
    assert distances[-1] < 0.7 * float(TRUTH.square().sum())
    assert distances == sorted(distances, reverse=True)


def test_a_finished_run_does_no_step_and_gives_the_same(tmp_path, undisturbed):
    run(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    result, objective = run(tmp_path)
    assert objective.steps == []
    assert objective.weights_at_validation == []
    assert result.resumed_from == 20
    assert result.images_per_second is None
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert_same(tmp_path, result, undisturbed)


def test_two_checkpoints_are_kept_and_no_temporary_file(tmp_path):
    run(tmp_path)
    assert checkpoints(tmp_path) == [15, 20]
    assert {p.name for p in tmp_path.iterdir() if "checkpoint" not in p.name} == {
        "run.json",
        "lock",
        "metrics.jsonl",
    }


def test_history_has_the_logged_steps_the_validations_and_the_last_one(undisturbed):
    history = undisturbed[0].history
    assert [r["step"] for r in history] == [2, 4, 6, 8, 10, 12, 14, 16, 18, 20]
    validated = [r["step"] for r in history if "validation/distance" in r]
    assert validated == [6, 12, 18, 20]
    assert all(r["images_seen"] == 4 * r["step"] for r in history)
    assert set(history[0]) == {
        *("step", "images_seen", "train/loss", "train/mean_input", "train/learning_rate"),
        *("train/gradient_norm", "train/skipped_updates"),
    }


def test_validation_sees_the_averaged_weights_and_training_does_not(tmp_path):
    result, objective = run(tmp_path)
    assert torch.equal(objective.weights_at_validation[-1], result.weights["weight"])
    assert not torch.equal(objective.module.weight, result.weights["weight"])


def test_callbacks_hear_everything_in_order(tmp_path, undisturbed):
    callback = Recorder()
    run(tmp_path, callbacks=[callback])
    assert callback.events[0] == ("start", "regression", 0, 20, 4)
    assert callback.events[-1] == ("end",)
    assert [e[1] for e in callback.events if e[0] == "step"] == list(range(1, 21))
    heard = [
        {"step": e[1], "images_seen": 4 * e[1], **e[2]} for e in callback.events if len(e) == 3
    ]
    assert heard == undisturbed[0].history


def test_callbacks_hear_the_end_of_a_run_that_fails(tmp_path):
    callback = Recorder(7, kill)
    with pytest.raises(KilledError):
        run(tmp_path, callbacks=[callback])
    assert callback.events[-1] == ("end",)


def test_only_what_requires_gradients_is_trained_and_saved(tmp_path):
    objective = Regression()
    objective.module.register_parameter("frozen", nn.Parameter(torch.ones(2), requires_grad=False))
    result, _ = run(tmp_path, objective=objective)
    assert set(result.weights) == {"weight"}
    assert torch.equal(objective.module.frozen, torch.ones(2))
    saved = torch.load(tmp_path / "checkpoint-000000020.pt", weights_only=True)
    assert set(saved["trainable"]) == set(saved["average"]) == {"weight"}


def test_first_update_is_adamw_with_warmup_and_decay(tmp_path):
    config = replace(CONFIG, steps=1, ema_decay=0.0, weight_decay=0.1, warmup_steps=4)
    objective = Regression()
    with torch.no_grad():
        objective.module.weight.fill_(0.5)
    objective.loss(0)[0].backward()
    sign = objective.module.weight.grad.sign()
    result, _ = run(tmp_path, config=config, objective=objective)
    rate = 0.05 / 4  # Adam's first step has length rate, whatever the gradient
    expected = 0.5 * (1 - rate * 0.1) - rate * sign
    torch.testing.assert_close(result.weights["weight"], expected)


def test_gradients_are_clipped_but_their_own_norm_is_reported(tmp_path):
    class Steep(Regression):
        def loss(self, step):
            return self.module.weight.sum() * 1000.0, {}

    result, objective = run(
        tmp_path, objective=Steep(), config=replace(CONFIG, steps=1, clip_norm=3.0, log_every=1)
    )
    assert result.history[0]["train/gradient_norm"] == pytest.approx(1000.0 * 3**0.5)
    assert objective.module.weight.grad.norm() == pytest.approx(3.0, rel=1e-5)


# --- interrupted runs ---


@pytest.mark.parametrize("step", [1, 4, 5, 6, 13, 20])
def test_an_interrupted_run_ends_as_if_it_had_not_been(tmp_path, undisturbed, step):
    interrupt(tmp_path, step)
    result, objective = run(tmp_path)
    assert result.resumed_from == (step - 1) // 5 * 5  # on_step comes before the checkpoint
    assert objective.steps == list(range(result.resumed_from, 20))
    assert_same(tmp_path, result, undisturbed)


def test_many_interruptions_leave_no_double_or_missing_record(tmp_path, undisturbed):
    for step in (3, 8, 8, 14, 17, 19):
        interrupt(tmp_path, step)
    result, _ = run(tmp_path)
    steps = [record["step"] for record in records(tmp_path)]
    assert steps == sorted(set(steps)) == list(range(2, 21, 2))
    assert_same(tmp_path, result, undisturbed)


def test_callbacks_hear_where_a_run_goes_on(tmp_path):
    interrupt(tmp_path, 12)
    callback = Recorder()
    run(tmp_path, callbacks=[callback])
    assert callback.events[0] == ("start", "regression", 10, 20, 4)
    assert callback.events[1] == ("step", 11)


@pytest.mark.parametrize("kept_share", [0.0, 0.5, 0.99])
def test_a_truncated_checkpoint_is_named_and_the_older_one_used(
    tmp_path, undisturbed, caplog, kept_share
):
    interrupt(tmp_path, 12)
    newest = tmp_path / "checkpoint-000000010.pt"
    content = newest.read_bytes()
    newest.write_bytes(content[: int(len(content) * kept_share)])
    with caplog.at_level(logging.WARNING):
        result, _ = run(tmp_path)
    assert result.resumed_from == 5
    assert str(newest) in caplog.text
    assert_same(tmp_path, result, undisturbed)


def test_without_any_readable_checkpoint_training_starts_again(tmp_path, undisturbed):
    interrupt(tmp_path, 12)
    for path in tmp_path.glob("checkpoint-*.pt"):
        path.write_bytes(b"damaged")
    result, _ = run(tmp_path)
    assert result.resumed_from == 0
    assert_same(tmp_path, result, undisturbed)


@pytest.mark.parametrize("ending", ['{"step": 11, "images_', '{"step": 11', "\0\0\0\0", "{"])
def test_a_half_written_last_record_is_dropped(tmp_path, undisturbed, ending):
    interrupt(tmp_path, 12)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(ending)
    result, _ = run(tmp_path)
    assert_same(tmp_path, result, undisturbed)


def test_the_folder_of_another_run_is_refused_before_any_step(tmp_path):
    interrupt(tmp_path, 12)
    objective = Regression()
    with pytest.raises(ConfigurationError, match="belongs to another run"):
        run(tmp_path, fingerprint="other settings", objective=objective)
    assert objective.steps == []
    assert checkpoints(tmp_path) == [5, 10]


# --- a full disk ---


class Disk:
    """A disk that may be full: then the named call fails after half of its work."""

    def __init__(self, monkeypatch, call):
        self.full = False
        self.failures = 0
        owner = {"torch.save": torch, "os.fsync": os, "os.replace": os}[call]
        name = call.split(".")[1]
        original = getattr(owner, name)

        def limited(*arguments):
            if not self.full:
                return original(*arguments)
            self.failures += 1
            if call == "torch.save":
                arguments[1].write(b"half of a checkpoint")
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(owner, name, limited)

    def fill(self):
        self.full = True


@pytest.mark.parametrize("call", ["torch.save", "os.fsync", "os.replace"])
def test_a_full_disk_costs_nothing_but_the_steps_since_the_last_checkpoint(
    tmp_path, undisturbed, monkeypatch, call
):
    disk = Disk(monkeypatch, call)
    with pytest.raises(OSError, match="No space left") as caught:
        run(tmp_path, callbacks=[Recorder(8, disk.fill)])
    assert caught.value.errno == errno.ENOSPC
    assert disk.failures == 1
    assert {p.name for p in tmp_path.iterdir()} == {
        *("run.json", "lock", "metrics.jsonl", "checkpoint-000000005.pt")
    }
    disk.full = False
    result, _ = run(tmp_path)
    assert result.resumed_from == 5
    assert_same(tmp_path, result, undisturbed)


# --- what goes wrong in the loss ---


class Broken(Regression):
    """The loss is not finite at the given steps."""

    def __init__(self, bad):
        super().__init__()
        self.bad = bad

    def loss(self, step):
        loss, metrics = super().loss(step)
        return (loss * float("nan") if step in self.bad else loss), metrics


def test_a_loss_that_is_not_finite_leaves_weights_and_history_clean(tmp_path):
    result, objective = run(tmp_path, objective=Broken({3, 4, 9}))
    assert objective.module.weight.isfinite().all()
    assert result.history[1]["step"] == 4
    assert "train/loss" not in result.history[1]  # JSON has no NaN
    assert result.history[-1]["train/skipped_updates"] == 3.0
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()


def test_skipped_updates_are_counted_across_an_interruption(tmp_path):
    bad = {3, 4, 9, 16}
    whole, _ = run(tmp_path / "whole", objective=Broken(bad))
    interrupt(tmp_path / "cut", 12, objective=Broken(bad))
    parts, _ = run(tmp_path / "cut", objective=Broken(bad))
    assert parts.history == whole.history
    assert parts.history[-1]["train/skipped_updates"] == 4.0


def test_training_that_stays_not_finite_ends_with_an_error_and_good_weights(tmp_path):
    config = replace(CONFIG, steps=100)
    objective = Broken(range(12, 100))
    with pytest.raises(TrainingDivergedError, match="last checkpoint"):
        run(tmp_path, config=config, objective=objective)
    assert len(objective.steps) == 12 + 50
    saved = torch.load(tmp_path / f"checkpoint-{checkpoints(tmp_path)[-1]:09d}.pt")
    assert saved["trainable"]["weight"].isfinite().all()


def test_running_out_of_memory_names_the_parameter_to_lower(tmp_path):
    class Greedy(Regression):
        def loss(self, step):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 80.00 GiB")

    with pytest.raises(ConfigurationError, match=r"toy\.batch_size = 4; lower it"):
        run(tmp_path, objective=Greedy())


def test_an_objective_with_nothing_to_train_is_refused(tmp_path):
    objective = Regression()
    objective.module.requires_grad_(False)
    with pytest.raises(ValueError, match="'regression' has no trainable parameters"):
        run(tmp_path / "run", objective=objective)
    assert not (tmp_path / "run").exists()
