"""`fit` on a regression with three weights: what a run writes, how it goes on, what it refuses."""

import errno
import json
import logging
import math
import os
from dataclasses import replace

import pytest
import torch
from torch import nn

from condvae.ground.configuration import ConfigurationError
from condvae.training import guard
from condvae.training.config import TrainingConfig
from condvae.training.guard import TrainingDivergedError
from condvae.training.loop import fit, learning_rate_at
from condvae.training.randomness import step_rng
from condvae.training.state import CheckpointFolder

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


# --- restarts ---

FRAGILE = replace(CONFIG, steps=40, max_restarts=2)


class Fragile(Regression):
    """Not finite from draw 12 on, at the first restart too; a run that starts twice gets through."""

    def loss(self, draw):
        loss, metrics = super().loss(draw)
        attempt, step = divmod(draw, 40)
        return (loss * float("nan") if attempt < 2 and step >= 12 else loss), metrics


@pytest.fixture
def impatient(monkeypatch):
    """Runs diverge after 8 steps that are not finite: restarts come soon."""
    monkeypatch.setattr(guard, "MAX_NON_FINITE", 8)


@pytest.fixture(scope="module")
def restarted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("restarted")
    objective = Fragile()
    callback = Recorder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guard, "MAX_NON_FINITE", 8)
        result, _ = run(folder, config=FRAGILE, objective=objective, callbacks=[callback])
    return result, (folder / "metrics.jsonl").read_bytes(), objective, callback, checkpoints(folder)


def test_a_run_that_diverges_goes_back_and_goes_on_with_other_draws(restarted):
    result, _, objective, _, kept = restarted
    # From the newest checkpoint whose update was taken; when that is of no help, from the one before.
    assert objective.steps == [
        *range(20),
        *range(40 + 10, 40 + 20),
        *range(80 + 5, 80 + 40),
    ]
    assert kept == [35, 40]
    assert result.resumed_from == 0
    distances = [r["validation/distance"] for r in result.history if "validation/distance" in r]
    assert len(distances) == 7
    assert distances == sorted(distances, reverse=True)


def test_history_of_a_restarted_run_is_of_the_steps_that_count(restarted):
    history = restarted[0].history
    assert [r["step"] for r in history] == list(range(2, 41, 2))
    assert [r["train/restarts"] for r in history] == [0.0] * 2 + [2.0] * 18
    for record in history:
        rate = learning_rate_at(FRAGILE, record["step"] - 1)
        assert record["train/learning_rate"] == rate / 4 ** (record["step"] > 5)
    assert history[-1]["train/skipped_updates"] == 0.0


def test_callbacks_hear_that_a_run_begins_again(restarted):
    events = restarted[3].events
    starts = [e[2] for e in events if e[0] == "start"]
    assert starts == [0, 10, 5]
    at = [i for i, e in enumerate(events) if e[0] == "start"]
    assert all(events[i - 1] == ("end",) for i in at[1:])
    assert events[-1] == ("end",)


def test_a_restart_has_the_optimiser_and_averages_of_its_checkpoint(tmp_path, restarted):
    # The same by hand: five plain steps, then the third attempt's draws at a quarter of the rate.
    class ByHand(Regression):
        def loss(self, step):
            return super().loss(step if step < 5 else 80 + step)

    with pytest.raises(KilledError):
        run(tmp_path, config=replace(FRAGILE, max_restarts=0), callbacks=[Recorder(6, kill)])
    plain = torch.load(tmp_path / "checkpoint-000000005.pt", weights_only=True)
    folder = tmp_path / "by_hand"
    slower = replace(FRAGILE, learning_rate=FRAGILE.learning_rate / 4, max_restarts=0)
    CheckpointFolder(folder, "toy").save(
        5, {k: v for k, v in plain.items() if k not in ("format", "fingerprint", "step")}
    )
    result, objective = run(folder, config=slower, objective=ByHand())
    assert objective.steps == [80 + step for step in range(5, 40)]
    assert torch.equal(result.weights["weight"], restarted[0].weights["weight"])


class KilledAfter:
    """A callback that ends the process after so many updates of it."""

    def __init__(self, updates):
        self.left = updates

    def on_start(self, *_):
        pass

    on_metrics = on_start

    def on_step(self, _):
        self.left -= 1
        if not self.left:
            kill()

    def on_end(self):
        pass


@pytest.mark.parametrize(
    "updates", [(3,), (12, 5), (19,), (20,), (24,), (28,), (29,), (45,), (60, 3), (19, 9, 1)]
)
def test_a_killed_run_with_restarts_ends_as_if_it_had_not_been(
    tmp_path, restarted, impatient, updates
):
    # 19 updates until the first restart, 9 more until the second, 35 to the end.
    for number in updates:
        with pytest.raises(KilledError):
            run(
                tmp_path,
                config=FRAGILE,
                objective=Fragile(),
                callbacks=[KilledAfter(number)],
            )
    result, _ = run(tmp_path, config=FRAGILE, objective=Fragile())
    assert_same(tmp_path, result, restarted[:2])


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("name", "occurrence"),
    [
        ("checkpoint-000000000.pt", 1),
        ("checkpoint-000000010.pt", 2),  # the first restart
        ("metrics.jsonl", 2),
        ("checkpoint-000000005.pt", 2),  # the second: then 10 is removed
        ("metrics.jsonl", 3),
        ("checkpoint-000000010.pt", 3),
    ],
)
def test_a_kill_while_a_restart_is_written_changes_nothing(
    tmp_path, restarted, impatient, monkeypatch, name, occurrence, when
):
    original, seen = os.replace, []

    def replace_or_die(source, target):
        seen.append(os.path.basename(target))
        dies = seen[-1] == name and seen.count(name) == occurrence
        if dies and when == "before":
            kill()
        original(source, target)
        if dies:
            kill()

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace_or_die)
        with pytest.raises(KilledError):
            run(tmp_path, config=FRAGILE, objective=Fragile())
    result, _ = run(tmp_path, config=FRAGILE, objective=Fragile())
    assert_same(tmp_path, result, restarted[:2])
    assert checkpoints(tmp_path) == [35, 40]


def test_a_restart_is_said_in_one_line(tmp_path, impatient, caplog):
    with caplog.at_level(logging.WARNING, logger="condvae.training.loop"):
        run(tmp_path, config=FRAGILE, objective=Fragile())
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("regression diverged at step 19 (gradients were not finite in 8 steps")
    assert first.endswith("restart 1 of 2, from step 10 at 0.5 times the learning rate")
    assert second.endswith("restart 2 of 2, from step 5 at 0.25 times the learning rate")


def test_a_run_that_has_no_restart_left_ends_with_the_steps_of_those_it_had(tmp_path, impatient):
    config = replace(FRAGILE, max_restarts=1)
    for _ in range(2):  # again: the same end
        with pytest.raises(TrainingDivergedError, match=r"restarted from steps 10\)$"):
            run(tmp_path, config=config, objective=Fragile())


def test_a_run_that_diverges_before_its_first_checkpoint_starts_from_its_beginning(tmp_path):
    config = replace(CONFIG, steps=60, checkpoint_every=1000, max_restarts=1)
    result, objective = run(tmp_path, config=config, objective=Broken(range(1, 60)))
    assert objective.steps == [*range(51), *range(60, 120)]
    assert checkpoints(tmp_path) == [0, 60]
    assert result.weights["weight"].isfinite().all()
    again, objective = run(tmp_path, config=config, objective=Broken(range(1, 60)))
    assert objective.steps == []
    assert torch.equal(again.weights["weight"], result.weights["weight"])


def test_gradients_that_explode_are_gone_back_from(tmp_path):
    class Steep(Regression):
        def loss(self, draw):
            loss, metrics = super().loss(draw)
            return (loss * 1e5 if 30 <= draw < 100 else loss), metrics

    config = replace(CONFIG, steps=100, checkpoint_every=25, clip_norm=1.0, skip_rule="none")
    _, objective = run(
        tmp_path / "restarts", config=replace(config, max_restarts=1), objective=Steep()
    )
    # 30 norms before the explosion: as many after it lift the median off them.
    assert objective.steps == [*range(60), *range(150, 200)]
    _, objective = run(tmp_path / "none", config=config, objective=Steep())
    assert objective.steps == list(range(100))


def test_weights_that_are_not_finite_are_never_written(tmp_path):
    class Poisoned(Regression):
        def loss(self, draw):
            result = super().loss(draw)
            if draw == 19:  # the last step: no later gradient tells
                self.module.weight.data[0, 1] = math.inf
            return result

    with pytest.raises(TrainingDivergedError, match="weights are not finite after 20 steps"):
        run(tmp_path / "none", objective=Poisoned())
    assert checkpoints(tmp_path / "none") == [10, 15]
    result, objective = run(
        tmp_path / "one", config=replace(CONFIG, max_restarts=1), objective=Poisoned()
    )
    assert objective.steps == [*range(20), *range(35, 40)]
    assert result.weights["weight"].isfinite().all()


def test_restarts_that_are_not_needed_change_nothing(tmp_path, undisturbed):
    result, _ = run(tmp_path, config=replace(CONFIG, max_restarts=3))
    assert torch.equal(result.weights["weight"], undisturbed[0].weights["weight"])
    without = [
        {k: v for k, v in record.items() if k != "train/restarts"} for record in result.history
    ]
    assert without == undisturbed[0].history
    assert checkpoints(tmp_path) == [15, 20]


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
