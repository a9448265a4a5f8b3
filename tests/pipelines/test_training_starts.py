"""Both training nodes start where parameter section `start` says, and say so in what they write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from condvae.ground.configuration import ConfigurationError
from condvae.models.folder import load_posterior, load_vae, read_card, save_vae
from condvae.training import loop
from condvae.training.initial import new_vae
from condvae.vdvae import ARCHITECTURES
from pipelines.conditional_training.nodes import train_partial_encoder
from pipelines.data_preparation.nodes import prepare_images_node
from pipelines.pretraining.nodes import train_vae
from pipelines.runs.provenance import warn_of_seen_images
from pipelines.runs.tracking import command

MASKS = {"kinds": {"half": 0.5, "blank": 0.5}, "stratified": False, "pool": 8}
MODEL = {"architecture": "tiny16", "initialisation": "copy"}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    data = {"name": "few", "limit": 80, "image_size": 16, "channels": 1}
    return prepare_images_node(data, {"images": str(folder)})[0]


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    """Descriptions of two VAEs of one shape."""
    described = []
    for seed in (0, 1):
        folder = tmp_path_factory.mktemp("vae")
        card = save_vae(folder, new_vae(ARCHITECTURES["tiny16"], 80.0, 90.0, seed), {})
        described.append({"name": "tiny", "folder": str(folder), "sha256": card["sha256"]})
    return described


class Node:
    """One of the two nodes, with everything small."""

    def __init__(self, kind, folder, store, frozen):
        self.kind, self.store, self.frozen = kind, store, frozen
        self.folders = {"inpaint": str(folder / "inpaint"), "vae": str(folder / "vae")}

    def __call__(self, *, steps=4, vae=0, model=MODEL, seed=0, **start):
        training = {
            **{"steps": steps, "batch_size": 4, "warmup_steps": 0, "learning_rate": 1e-3},
            **{"checkpoint_every": 2, "log_every": 1},
        }
        if self.kind == "conditional":
            return train_partial_encoder(
                *(self.store, self.frozen[vae], model, {"name": "inpainting"}, MASKS),
                *(training, start, self.folders, "cpu", seed),
            )[0]
        return train_vae(self.store, model, training, start, self.folders, "cpu", seed)

    def runs(self):
        root = f"{self.folders['inpaint']}/training"
        if self.kind != "conditional":
            root = f"{self.folders['vae']}_training"
        return sorted(p.name for p in Path(root).glob("*"))

    def run_folder(self, result):
        card = read_card(result["folder"])
        root = Path(result["folder"]).parent
        name = "training" if self.kind == "conditional" else "../vae_training"
        return root / name / card["weights_source"]["run"][:12]

    def weights(self, result):
        """Trained ones by name."""
        if self.kind == "conditional":
            return load_posterior(result["folder"]).model.latents.state_dict()
        return load_vae(result["folder"])[0].state_dict()


@pytest.fixture(params=["conditional", "pretrain"])
def node(request, tmp_path, store, frozen):
    return Node(request.param, tmp_path, store, frozen)


@pytest.fixture
def conditional(tmp_path, store, frozen):
    return Node("conditional", tmp_path, store, frozen)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


def first_weights(monkeypatch, node, **start):
    """Weights at the first step of a run, and its result."""
    seen = {}
    update = loop._Run.update

    def remember(run):
        if not seen:
            seen.update({n: p.detach().clone() for n, p in run.module.named_parameters()})
        return update(run)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, "update", remember)
        result = node(**start)
    return seen, result


def test_scratch_is_the_default_and_is_written_down(node):
    result = node()
    source = read_card(result["folder"])["weights_source"]
    assert result["start"] == source["start"] == {"rung": "scratch"}
    marker = json.loads((node.run_folder(result) / "run.json").read_text())
    assert marker["fingerprint"] == source["run"]
    stated = {key: value for key, value in source.items() if key not in ("command", "run")}
    assert marker["identity"] == stated


def test_resume_goes_on_to_more_steps(node):
    whole = node.weights(node(steps=6))
    other = node.run_folder(node(steps=4))
    result = node(steps=6, resume=str(other))
    assert same(node.weights(result), whole)  # the rate is constant, so it is one run
    start = read_card(result["folder"])["weights_source"]["start"]
    theirs = json.loads((other / "run.json").read_text())["fingerprint"]
    seen = [{"name": None, "fingerprint": node.store["fingerprint"]}]
    assert start == {"rung": "resume", "run": theirs, "step": 4, "trained_on": seen}
    lines = (node.run_folder(result) / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [5, 6]
    section = "training" if node.kind == "conditional" else "pretraining"
    with pytest.raises(ConfigurationError, match=rf"start\.resume = .* raise {section}\.steps"):
        node(steps=4, seed=1, resume=str(other))


@pytest.mark.parametrize("rung", ["load", "load_part"])
def test_load_begins_with_the_weights_of_a_model(node, monkeypatch, rung):
    first = node()
    weights, sha256 = node.weights(first), first["sha256"]
    # Its own result's folder, which it will write over.
    begun, result = first_weights(monkeypatch, node, seed=1, **{rung: first["folder"]})
    assert same(begun, weights)
    assert result["folder"] == first["folder"]
    seen = [{"name": "few", "fingerprint": node.store["fingerprint"]}]
    assert result["start"] == {"rung": rung, "sha256": sha256, "trained_on": seen}
    assert read_card(result["folder"])["weights_source"]["start"] == result["start"]
    runs = node.runs()
    assert len(runs) == 2
    again = node(seed=1, **{rung: first["folder"]})
    assert (again["sha256"], again["start"]) == (result["sha256"], result["start"])
    assert again["images_per_second"] is None
    # Killed between writing the weights and the card: the same command mends it.
    (Path(first["folder"]) / "model.safetensors").write_bytes(b"half")
    assert node(seed=1, **{rung: first["folder"]})["sha256"] == result["sha256"]
    assert node.runs() == runs


def test_model_of_the_other_kind_is_refused(node):
    name, found = ("digits", "vae")
    if node.kind != "conditional":
        name, found = ("digits_inpainting", "posterior")
    with pytest.raises(
        ConfigurationError, match=rf"start\.load = '{name}': .* holds a '{found}' model, expected"
    ):
        node(load=name)
    assert node.runs() == []


def test_posterior_for_another_vae_is_refused_but_in_parts(conditional, monkeypatch):
    first = conditional()
    weights = conditional.weights(first)
    with pytest.raises(ConfigurationError, match=r"it is for another VAE than weights\.vae"):
        conditional(vae=1, load=first["folder"])
    with pytest.raises(ConfigurationError, match=r"start\.resume = .* that run has vae"):
        conditional(vae=1, steps=6, resume=str(conditional.run_folder(first)))
    begun, _ = first_weights(monkeypatch, conditional, vae=1, load_part=first["folder"])
    assert same(begun, weights)


def test_residual_heads_are_kept_and_not_mixed_with_absolute_ones(conditional, monkeypatch):
    absolute = conditional()
    other = conditional.run_folder(absolute)
    weights = conditional.weights(absolute)
    residual = {**MODEL, "initialisation": "residual"}
    with pytest.raises(
        ConfigurationError,
        match=r"absolute heads, and model\.initialisation makes residual ones",
    ):
        conditional(model=residual, load=absolute["folder"])
    with pytest.raises(ConfigurationError, match="that run has heads 'absolute', this one 'resid"):
        conditional(model=residual, steps=6, resume=str(other))
    begun, result = first_weights(
        monkeypatch, conditional, model=residual, load_part=absolute["folder"]
    )
    encoder = {name for name in weights if name.startswith("encoder.")}
    assert all(torch.equal(begun[name], weights[name]) for name in encoder)
    assert all(
        not value.any() for name, value in begun.items() if ".c4." in name and "heads" in name
    )
    assert load_posterior(result["folder"]).model.latents.head_kind == "residual"
    assert read_card(result["folder"])["heads"] == "residual"


def test_flows_are_part_of_what_a_run_is(conditional, monkeypatch):
    plain = conditional()
    card = read_card(plain["folder"])
    # The identity of runs without flows is the one from before there were any.
    assert not {"flows", "flow_layers"} & card["weights_source"].keys()
    other, weights = conditional.run_folder(plain), conditional.weights(plain)
    flows = {**MODEL, "flows": "4:affine 1:affine"}
    with pytest.raises(ConfigurationError, match=r"it has no flows, and model\.flows asks"):
        conditional(model=flows, load=plain["folder"])
    with pytest.raises(ConfigurationError, match="that run has flows 'unknown', this one '1:aff"):
        conditional(model=flows, steps=6, resume=str(other))
    # A trained Gaussian is a start: its flows begin as the identity.
    begun, result = first_weights(monkeypatch, conditional, model=flows, load_part=plain["folder"])
    assert all(torch.equal(begun[name], value) for name, value in weights.items())
    card = read_card(result["folder"])
    assert (card["flows"], card["flow_layers"]) == ("1:affine,4:affine", 2)
    assert card["weights_source"]["flows"] == "1:affine,4:affine"
    trained = conditional.weights(result)
    new = {name for name in trained if name.startswith("flows.")}
    assert new == trained.keys() - weights.keys()
    assert any(not torch.equal(trained[name], begun[name]) for name in new)


def test_weights_that_may_have_seen_test_images_are_warned_of(conditional, caplog):
    first = conditional()
    conditional.store = {**conditional.store, "fingerprint": "f" * 64}
    conditional(seed=2, load_part=first["folder"])
    assert "(start.load_part) was trained on other images, or on the same" in caplog.text


@pytest.mark.parametrize("rung", ["resume", "load"])
def test_what_a_start_has_seen_stays_with_what_is_trained_from_it(
    conditional, tmp_path, caplog, rung
):
    first = conditional()
    caplog.clear()
    path = str(conditional.run_folder(first)) if rung == "resume" else first["folder"]
    split = {"name": "few", "limit": 80, "image_size": 16, "channels": 1, "seed": 5}
    conditional.store = prepare_images_node(split, {"images": str(tmp_path / "images")})[0]
    second = conditional(steps=6, **{rung: path})
    assert f"(start.{rung}) was trained on other images, or on the same" in caplog.text
    for _ in range(2):  # once more when it is done
        caplog.clear()
        warn_of_seen_images("posterior", read_card(second["folder"]), conditional.store)
        assert "the posterior was trained on other images, or on" in caplog.text
        second = conditional(steps=6, **{rung: path})


def test_vae_of_another_contract_or_architecture_is_refused_but_in_parts(
    tmp_path, store, frozen, monkeypatch
):
    node = Node("pretrain", tmp_path, store, frozen)
    first = node()
    other = {**MODEL, "bits": 5, "mean": 100.0}
    with pytest.raises(
        ConfigurationError, match=r"start\.resume = .* that run has data_contract\."
    ):
        node(steps=6, model=other, resume=str(node.run_folder(first)))
    with pytest.raises(
        ConfigurationError,
        match=r"contract\.mean is .*, not 100\.0; its data_contract\.bits is 8, not 5 \(start\.load_",
    ):
        node(model=other, load=first["folder"])
    with pytest.raises(ConfigurationError, match=r"start\.load = 'digits': its architecture\."):
        node(load="digits")
    weights = node.weights(first)
    begun, _ = first_weights(monkeypatch, node, model=other, load_part=first["folder"])
    assert all(torch.equal(value, weights[name]) for name, value in begun.items())


def test_a_second_vae_of_one_name_leaves_the_first_where_it_can_be_found(
    tmp_path, store, frozen, caplog
):
    node = Node("pretrain", tmp_path, store, frozen)
    first = node()
    before = node.weights(first)
    node()
    assert "held the VAE of another run" not in caplog.text  # the same one once more
    second = node(seed=1)
    assert second["folder"] == first["folder"]
    kept = Path(first["folder"]).with_name(f"few-{first['sha256'][:12]}")
    assert f"made by {command()}): it is {kept} now" in caplog.text
    assert read_card(kept)["sha256"] == first["sha256"]
    assert same(load_vae(kept)[0].state_dict(), before)
    assert not same(node.weights(second), before)


def test_a_vae_that_was_replaced_since_it_was_chosen_is_refused(conditional, frozen):
    conditional.frozen = [{**frozen[0], "sha256": frozen[1]["sha256"]}]
    with pytest.raises(ConfigurationError, match="another run has replaced them"):
        conditional()
    assert conditional.runs() == []
