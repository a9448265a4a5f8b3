"""The five rungs, on a regression with two layers."""

import json
import logging
import shutil
import weakref
from dataclasses import asdict, replace

import pytest
import torch
from torch import nn

from condvae.ground.configuration import ConfigurationError, read_config
from condvae.training.config import TrainingConfig
from condvae.training.loop import fit, learning_rate_at
from condvae.training.randomness import step_rng
from condvae.training.start import Source, StartConfig, find_start, trained_on, was_started_from
from condvae.training.state import CheckpointFolder

CONFIG = TrainingConfig(
    steps=20, batch_size=4, learning_rate=0.02, warmup_steps=3, checkpoint_every=5, log_every=2
)
SHORT = replace(CONFIG, steps=10)
UNKNOWN = [{"name": None, "fingerprint": None}]  # the toy's runs say nothing of their data


class Regression:
    """Squared error of two layers; counts steps."""

    name = "toy"
    section = "training"

    def __init__(self, hidden=4):
        self.module = nn.Sequential(nn.Linear(3, hidden), nn.Linear(hidden, 1, bias=False))
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for parameter in self.module.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        self.steps = []

    def loss(self, step):
        self.steps.append(step)
        x = torch.from_numpy(step_rng(0, step).standard_normal((4, 3)).astype("float32"))
        return (self.module(x)[:, 0] - x.sum(dim=1)).square().mean(), {}

    def validate(self):
        return {}


class KilledError(Exception):
    pass


class Killer:
    """A callback that ends the run after a step, before its checkpoint is written."""

    def __init__(self, at):
        self.at = at

    def on_start(self, *_):
        pass

    on_metrics = on_start

    def on_end(self):
        pass

    def on_step(self, step):
        if step == self.at:
            raise KilledError


class Place:
    """A folder of runs and a model, and what a node does with them."""

    def __init__(self, folder):
        self.runs = folder / "training"
        self.model = folder / "model.pt"
        self.opened = []

    def open_source(self, name):
        self.opened.append(name)
        if not self.model.exists():
            raise ConfigurationError(f"{name} is half-written")
        card, weights, differences = torch.load(self.model, weights_only=True)
        return Source(card, weights, tuple(differences))

    def save_model(self, sha256, weights, *, run=None, differences=()):
        card = {"sha256": sha256, "weights_source": {"run": run}}
        torch.save((card, dict(weights), list(differences)), self.model)

    def find(self, config=CONFIG, *, vae="v", shared=(), **start):
        identity = {"training": asdict(config), "vae": vae}
        chosen = read_config(StartConfig, start, "start")
        return find_start(chosen, identity, self.runs, self.open_source, shared=shared)

    def run(self, config=CONFIG, *, hidden=4, kill=0, **start):
        chosen, objective = self.find(config, **start), Regression(hidden)
        folder = self.folder_of(chosen)
        callbacks = [Killer(kill)]
        result = fit(
            config, objective, folder, chosen.fingerprint, start=chosen, callbacks=callbacks
        )
        return result, objective, folder

    def folder_of(self, start):
        return self.runs / start.fingerprint[:12]


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.fixture
def other(place):
    """Folder of a run of ten steps."""
    return place.run(SHORT)[2]


@pytest.fixture
def weights():
    """Of a trained model, unlike those any run starts with."""
    generator = torch.Generator().manual_seed(11)
    state = Regression().module.state_dict()
    return {name: torch.randn(v.shape, generator=generator) for name, v in state.items()}


def started(caplog):
    """The lines that say how runs started."""
    return [r.getMessage() for r in caplog.records if " starts at step " in r.getMessage()]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(autouse=True)
def heard(caplog):
    caplog.set_level(logging.INFO, logger="condvae.training.start")


# --- what is asked for ---


def test_nothing_is_scratch_and_one_thing_is_chosen():
    assert StartConfig().chosen == ("scratch", None)
    for rung in ("resume", "load", "load_part"):
        assert StartConfig(**{rung: "there"}).chosen == (rung, "there")


def test_two_starts_are_refused():
    with pytest.raises(
        ConfigurationError,
        match=r"start\.resume = 'a', load_part = 'b': expected at most one of them",
    ):
        read_config(StartConfig, {"resume": "a", "load_part": "b"}, "start")


# --- the rungs ---


def test_scratch_is_the_module_as_it_is(place, caplog, tmp_path):
    result, _, folder = place.run()
    plain = fit(CONFIG, Regression(), tmp_path / "plain", "any")
    assert same(result.weights, plain.weights)
    assert started(caplog)[0] == "toy starts at step 0 from scratch"
    assert json.loads((folder / "run.json").read_text())["identity"]["start"] == {"rung": "scratch"}


def test_own_checkpoint_is_the_first_rung(place, caplog):
    with pytest.raises(KilledError):
        place.run(kill=12)
    result, objective, folder = place.run()
    assert (result.resumed_from, objective.steps) == (10, list(range(10, 20)))
    assert started(caplog)[-1] == (
        f"toy starts at step 10 from its own checkpoint {folder / 'checkpoint-000000010.pt'}"
    )


def test_resumed_run_ends_as_one_run_of_all_steps(place, other, caplog):
    whole, _, _ = place.run()
    result, objective, folder = place.run(resume=str(other))
    assert objective.steps == list(range(10, 20))
    assert same(result.weights, whole.weights)
    assert started(caplog)[-1].startswith(f"toy starts at step 10 from the run in {other}: ")
    assert "start.resume" in started(caplog)[-1]
    # Records begin where the run does, and are those of the whole run from there on.
    assert [r["step"] for r in records(folder)] == [12, 14, 16, 18, 20]
    assert result.history == whole.history[5:]


def test_resumed_run_leaves_what_it_started_from_as_it_was(place, other, tmp_path):
    first, second = (
        fit(CONFIG, Regression(), tmp_path / name, start.fingerprint, start=start)
        for name, start in (
            ("a", place.find(resume=str(other))),
            ("b", place.find(resume=str(other))),
        )
    )
    assert same(first.weights, second.weights)


@pytest.mark.parametrize("rung", ["resume", "load"])
def test_run_that_has_begun_does_not_keep_what_it_started_from(place, other, weights, rung):
    place.save_model("a" * 64, weights)
    start = place.find(**{rung: str(other) if rung == "resume" else "mine"})
    tensors = start.state["trainable"] if start.state else start.source.weights
    held = weakref.ref(tensors["0.bias"])
    del tensors
    seen = []

    class Watch(Killer):
        def on_step(self, step):
            seen.append(held())

    folder, callbacks = place.folder_of(start), [Watch(0)]
    fit(CONFIG, Regression(), folder, start.fingerprint, start=start, callbacks=callbacks)
    assert seen
    assert set(seen) == {None}


def test_whether_a_run_has_begun_is_seen_without_loading_it(place, weights, monkeypatch):
    place.save_model("a" * 64, weights)
    place.run(load="mine")
    monkeypatch.setattr(CheckpointFolder, "load_latest", None)
    assert place.find(load="mine").source is not None
    place.model.unlink()
    assert place.find(load="mine").source is None


def test_resumed_run_goes_on_with_its_own_settings(place, other):
    config = replace(CONFIG, weight_decay=0.5, betas=(0.5, 0.6), learning_rate=0.07)
    chosen, objective = place.find(config, resume=str(other)), Regression()
    steps = []

    class Watch(Killer):
        def on_step(self, step):
            steps.append(step)

    folder = place.folder_of(chosen)
    fit(config, objective, folder, chosen.fingerprint, start=chosen, callbacks=[Watch(0)])
    state = torch.load(folder / "checkpoint-000000020.pt", weights_only=True)["optimizer"]
    (group,) = state["param_groups"]
    assert (group["weight_decay"], group["betas"], group["lr"]) == (0.5, (0.5, 0.6), 0.07)
    assert steps[0] == 11


def test_loaded_weights_are_where_weights_and_averages_start(place, weights, caplog):
    place.save_model("s" * 64, weights)
    # No rate, no decay: what comes out is what went in.
    still = replace(CONFIG, learning_rate=1e-30, weight_decay=0.0)
    result, objective, folder = place.run(still, load="mine")
    assert objective.steps == list(range(20))
    assert same(result.weights, weights)
    assert started(caplog) == [
        "toy starts at step 0 from the weights of mine, sha256 ssssssssssss (start.load)"
    ]
    state = torch.load(folder / "checkpoint-000000020.pt", weights_only=True)
    assert same(state["average"], weights)
    assert len(records(folder)) == 10


def test_loaded_run_has_a_fresh_optimiser(place, weights, tmp_path):
    place.save_model("s" * 64, weights)
    result, _, _ = place.run(load="mine")
    objective = Regression()
    objective.module.load_state_dict(weights)
    by_hand = fit(CONFIG, objective, tmp_path / "hand", "any")
    assert same(result.weights, by_hand.weights)


def test_part_takes_what_fits_and_names_the_rest(place, weights, caplog):
    extra = {f"head.{i}": torch.zeros(1) for i in range(7)}
    place.save_model("p" * 64, {**weights, **extra, "0.bias": torch.zeros(9)})
    still = replace(CONFIG, learning_rate=1e-30, weight_decay=0.0)
    result, _, _ = place.run(still, load_part="mine")
    fresh = Regression().module.state_dict()
    expected = {**weights, "0.bias": fresh["0.bias"]}
    assert same(result.weights, expected)
    (line,) = started(caplog)
    assert line == (
        "toy starts at step 0 from the weights of mine, sha256 pppppppppppp (start.load_part): "
        "2 tensors taken, 8 left out (0.bias, head.0, head.1, head.2, head.3, head.4 and 2 more)"
    )


def test_part_of_another_kind_of_model_is_taken_and_said(place, weights, caplog):
    place.save_model("p" * 64, weights, differences=["its task is 'edges'"])
    place.run(load_part="mine")
    assert started(caplog)[0].endswith("3 tensors taken, 0 left out; its task is 'edges'")


# --- what is refused, before anything is written ---


def refused(place, message, config=CONFIG, **start):
    before = sorted(place.runs.glob("*"))
    with pytest.raises(ConfigurationError, match=message):
        place.run(config, **start)
    assert sorted(place.runs.glob("*")) == before


def test_strict_load_lists_what_does_not_fit(place, weights):
    place.save_model("s" * 64, {**weights, "head": torch.zeros(1), "0.bias": torch.zeros(9)})
    refused(place, r"start\.load = 'mine' does not fit the model: 2 entries differ", load="mine")


def test_strict_load_of_another_kind_of_model(place, weights):
    place.save_model("s" * 64, weights, differences=["another VAE", "another task"])
    refused(
        place, r"start\.load = 'mine': another VAE; another task \(start\.load_part", load="mine"
    )


def test_part_that_fits_nowhere(place):
    place.save_model("s" * 64, {"a": torch.zeros(1), "0.bias": torch.zeros(9)})
    refused(
        place, r"start\.load_part = 'mine': none of its 2 tensors fits the model", load_part="mine"
    )


def test_source_that_cannot_be_opened(place):
    for rung in ("load", "load_part"):
        refused(place, rf"start\.{rung} = 'mine': mine is half-written", **{rung: "mine"})


@pytest.mark.parametrize("content", [None, "{", "[]", "{}"])
def test_folder_that_holds_no_run(place, tmp_path, content):
    folder = tmp_path / "empty"
    folder.mkdir()
    if content is not None:
        (folder / "run.json").write_text(content)
    refused(place, r"start\.resume = '.*empty': not the folder of a training", resume=str(folder))
    assert [p.name for p in folder.iterdir()] == ([] if content is None else ["run.json"])


def test_run_without_a_readable_checkpoint(place, other):
    for file in other.glob("checkpoint-*.pt"):
        file.write_bytes(b"damaged")
    refused(place, r"start\.resume = .*: no checkpoint there can be read", resume=str(other))


def test_run_that_has_done_as_many_steps(place, other):
    message = r"start\.resume = .* has done 10 steps, this run ends at 10: raise training\.steps"
    refused(place, message, SHORT, resume=str(other))


def test_run_of_other_shapes(place, other):
    message = r"start\.resume = .* does not fit the model: 3 entries differ"
    refused(place, message, resume=str(other), hidden=5)


def test_run_that_was_for_another_model(place, other):
    with pytest.raises(
        ConfigurationError, match=r"start\.resume = .*: that run has vae 'v', this one 'w'"
    ):
        place.find(resume=str(other), vae="w", shared=("vae",))
    marker = json.loads((other / "run.json").read_text())
    del marker["identity"]
    (other / "run.json").write_text(json.dumps(marker))
    with pytest.raises(ConfigurationError, match="that run has vae 'unknown', this one 'v'"):
        place.find(resume=str(other), shared=("vae",))


def test_architecture_that_only_one_of_two_runs_states(place, other):
    marker = json.loads((other / "run.json").read_text())

    def find(theirs, own):
        marker["identity"]["vae"] = theirs
        (other / "run.json").write_text(json.dumps(marker))
        return place.find(resume=str(other), vae=own, shared=("vae",))

    plain, smooth = {"width": 16}, {"width": 16, "latent_std": "softplus"}
    assert find(smooth, smooth).rung == "resume"
    with pytest.raises(
        ConfigurationError, match=r"vae\.latent_std 'softplus', this one 'unstated'"
    ):
        find(smooth, plain)
    with pytest.raises(ConfigurationError, match=r"vae\.latent_std 'unknown', this one 'softplus'"):
        find(plain, smooth)


def test_restarts_of_the_other_run_do_not_lower_the_rate_of_this_one(place, other):
    newest = other / "checkpoint-000000010.pt"
    torch.save(torch.load(newest, weights_only=True) | {"restarts": [5, 5]}, newest)
    result, objective, _ = place.run(resume=str(other))
    rates = {r["step"]: r["train/learning_rate"] for r in result.history}
    assert rates[20] == learning_rate_at(CONFIG, 19)
    assert objective.steps == list(range(10, 20))


def test_damaged_newest_checkpoint_of_the_other_run_is_passed_over(place, other):
    (other / "checkpoint-000000010.pt").write_bytes(b"damaged")
    start = place.find(resume=str(other))
    assert start.identity["start"]["step"] == 5


# --- identity ---


def test_what_a_run_starts_from_is_part_of_what_it_is(place, other, weights):
    place.save_model("a" * 64, weights)
    starts = [
        place.find(),
        place.find(load="mine"),
        place.find(load_part="mine"),
        place.find(resume=str(other)),
    ]
    place.save_model("b" * 64, weights)
    starts.append(place.find(load="mine"))
    assert len({start.fingerprint for start in starts}) == 5
    run = json.loads((other / "run.json").read_text())["fingerprint"]
    assert [start.identity["start"] for start in starts] == [
        {"rung": "scratch"},
        {"rung": "load", "sha256": "a" * 64, "trained_on": []},
        {"rung": "load_part", "sha256": "a" * 64, "trained_on": []},
        {"rung": "resume", "run": run, "step": 10, "trained_on": UNKNOWN},
        {"rung": "load", "sha256": "b" * 64, "trained_on": []},
    ]


def test_data_are_handed_down_from_start_to_start():
    first = {"name": "digits", "weights_source": {"data": "a", "start": {"rung": "scratch"}}}
    assert trained_on(first) == [{"name": "digits", "fingerprint": "a"}]
    start = {"rung": "load", "trained_on": trained_on(first)}
    second = {"name": "faces", "weights_source": {"data": "b", "start": start}}
    assert trained_on(second) == [{"name": "faces", "fingerprint": "b"}, *trained_on(first)]
    again = {**first, "weights_source": {"data": "a", "start": start}}
    assert trained_on(again) == trained_on(first)
    assert trained_on({"weights_source": None}) == []


def test_where_the_source_lies_is_not_part_of_it(place, other, weights, tmp_path):
    place.save_model("a" * 64, weights)
    assert place.find(load="here").fingerprint == place.find(load="there").fingerprint
    moved = shutil.copytree(other, tmp_path / "moved")
    first, second = (place.find(resume=str(folder)) for folder in (other, moved))
    assert first.fingerprint == second.fingerprint


# --- kills ---


@pytest.fixture(params=["resume", "load", "load_part"])
def start(request, place, other, weights):
    """Arguments of a run from each of the rungs in between, its source made."""
    place.save_model(
        "a" * 64, {**weights, "extra": torch.zeros(1)} if "part" in request.param else weights
    )
    return {request.param: str(other) if request.param == "resume" else "mine"}


@pytest.mark.parametrize("kills", [(11,), (16,), (12, 17, 20)])
def test_killed_run_ends_as_if_it_had_not_been(place, start, kills):
    for step in kills:
        with pytest.raises(KilledError):
            place.run(kill=step, **start)
    result, _, folder = place.run(**start)
    history = (folder / "metrics.jsonl").read_bytes()
    shutil.rmtree(folder)
    whole, _, same_folder = place.run(**start)
    assert same_folder == folder
    assert same(result.weights, whole.weights)
    assert history == (folder / "metrics.jsonl").read_bytes()
    assert place.run(**start)[1].steps == []


def test_begun_run_goes_on_when_its_source_is_gone(place, start, other, caplog):
    with pytest.raises(KilledError):
        place.run(kill=17, **start)
    shutil.rmtree(other)
    place.model.unlink()
    result, objective, folder = place.run(**start)
    assert result.resumed_from == 15
    assert objective.steps == list(range(15, 20))
    assert "its own checkpoint" in started(caplog)[-1]
    # Another rung from the same place is another run,
    (rung, path) = next(iter(start.items()))
    other_rung = "load" if rung != "load" else "load_part"
    with pytest.raises(ConfigurationError, match=rf"start\.{other_rung} = "):
        place.run(**{other_rung: path})
    # and without both there is nothing to go on from.
    for file in folder.glob("checkpoint-*.pt"):
        file.write_bytes(b"damaged")
    with pytest.raises(ConfigurationError, match=r"start\.(resume|load|load_part) = "):
        place.run(**start)


def test_begun_run_goes_on_when_the_other_run_has_moved_on(place, other):
    with pytest.raises(KilledError):
        place.run(kill=17, resume=str(other))
    longer = torch.load(other / "checkpoint-000000010.pt", weights_only=True) | {"step": 12}
    torch.save(longer, other / "checkpoint-000000012.pt")
    result, _, _ = place.run(resume=str(other))
    assert result.resumed_from == 15
    # A run that has not begun takes the newest.
    fresh = replace(CONFIG, steps=14)
    assert place.find(fresh, resume=str(other)).identity["start"]["step"] == 12


@pytest.mark.parametrize("rung", ["load", "load_part"])
def test_run_that_overwrites_its_source_is_done_and_not_begun_again(place, weights, rung):
    place.save_model("a" * 64, weights)
    result, _, folder = place.run(**{rung: "mine"})
    run = json.loads((folder / "run.json").read_text())["fingerprint"]
    # Killed while it wrote: the source cannot be read.
    place.model.unlink()
    assert place.run(**{rung: "mine"})[1].steps == []
    # Written.
    place.save_model("b" * 64, result.weights, run=run)
    again, objective, same_folder = place.run(**{rung: "mine"})
    assert (objective.steps, same_folder) == ([], folder)
    assert same(again.weights, result.weights)


def test_model_replaced_by_another_is_another_start(place, weights):
    place.save_model("a" * 64, weights)
    _, _, first = place.run(load="mine")
    place.save_model("b" * 64, {name: -value for name, value in weights.items()}, run="c" * 64)
    result, objective, second = place.run(load="mine")
    assert first != second
    assert objective.steps == list(range(20))
    assert result.resumed_from == 0
    # The first model is back: its run is there still.
    place.save_model("a" * 64, weights)
    assert place.run(load="mine")[2] == first


def test_what_runs_were_started_from_can_be_asked(place, other, weights):
    place.save_model("a" * 64, weights)
    assert not was_started_from(place.runs, "mine")
    place.run(load="mine")
    assert was_started_from(place.runs, "mine")
    assert not was_started_from(place.runs, "yours")
    assert not was_started_from(place.runs / "nowhere", "mine")
