"""What a run of conditional training is, and what it writes."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from condvae import load_posterior, load_vae
from condvae.data import DataConfig, prepare_images
from condvae.ground.configuration import ConfigurationError
from condvae.masks.sampling import MaskConfig
from condvae.models.conditional_run import ConditionalRun, ConditionalSettings
from condvae.models.folder import read_card, save_vae
from condvae.tasks import Inpainting
from condvae.tasks.labels import ClassLabel
from condvae.training import ObjectiveConfig, TrainingConfig
from condvae.training.initial import new_vae
from condvae.training.start import StartConfig
from condvae.vdvae import ARCHITECTURES

OUTPUT_HEAD = {"vae.decoder.out_net.out_conv.weight", "vae.decoder.out_net.out_conv.bias"}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    config = DataConfig(name="few", limit=80, image_size=16, channels=1)
    return prepare_images(config, tmp_path_factory.mktemp("images"))


@pytest.fixture
def train(tmp_path, images):
    """Trains two steps with an objective; returns the posterior and the finished run."""
    card = save_vae(tmp_path / "vae", new_vae(ARCHITECTURES["tiny16"], 80.0, 90.0, 0), {})

    def train(objective=None, task=None, *, folder="result", start=None, masks=None, **settings):
        settings = ConditionalSettings(
            task or Inpainting(),
            TrainingConfig(steps=2, batch_size=4, warmup_steps=0, learning_rate=1e-3),
            masks or MaskConfig({"half": 1.0}, stratified=False, pool=8),
            ObjectiveConfig(**(objective or {})),
            **settings,
        )
        vae, _ = load_vae(tmp_path / "vae")
        parts = (settings, vae, card["sha256"], images, tmp_path / folder)
        run = ConditionalRun(*parts, StartConfig(**(start or {})))
        run.train()
        bar = SimpleNamespace(update=lambda _: None)
        run.save({"name": "few"}, {"command": "test"}, lambda *_: nullcontext(bar))
        return load_posterior(tmp_path / folder / "posterior"), run

    return train


def test_without_a_pool_every_observation_has_a_mask_of_its_own(train, monkeypatch):
    seen = []
    observe = Inpainting.observe

    def note(task, subject, contract, *names):
        seen.append(subject.mask.clone())
        return observe(task, subject, contract, *names)

    monkeypatch.setattr(Inpainting, "observe", note)
    masks = MaskConfig({"rectangles": 1.0}, stratified=False, pool=None)
    posterior, _ = train(masks=masks)
    drawn = torch.cat(seen[:2]).flatten(1)  # of the two steps, four images each
    assert len(drawn.unique(dim=0)) == len(drawn) == 8
    assert posterior.card["weights_source"]["masks"]["pool"] is None
    # The masks of a step follow from the seed: a run that goes on has those it would have had.
    seen.clear()
    again, _ = train(masks=masks, folder="again")
    assert torch.equal(torch.cat(seen[:2]).flatten(1), drawn)
    assert again.card["sha256"] == posterior.card["sha256"]


def test_default_choices_are_no_part_of_the_identity(train):
    posterior, run = train()
    # Runs from before there was a choice of objectives go on.
    assert run.start.identity.keys() == {
        *("training", "masks", "initialisation", "heads", "task", "vae", "data", "seed", "start")
    }
    assert "vae_changed" not in posterior.card
    assert {"vae", "command", "run"} < posterior.card["weights_source"].keys()
    named, _ = train({"name": "ipa_r"}, folder="other", first_groups=2)
    source = named.card["weights_source"]
    assert (source["objective"], source["first_groups"]) == ({"name": "ipa_r"}, 2)
    assert named.card["first_groups"] == 2
    assert source["run"] != posterior.card["weights_source"]["run"]
    resumed = run.folder / "training" / run.start.fingerprint[:12]
    with pytest.raises(ConfigurationError, match="that run has first_groups 'unknown', this one 2"):
        train(folder="other", start={"resume": str(resumed)}, first_groups=2)


@pytest.mark.parametrize(
    "objective", [{"trainable": "output_head"}, {"trainable": "all"}, {"name": "joint"}]
)
def test_changed_vae_is_saved_and_declared(train, tmp_path, objective):
    posterior, _ = train(objective)
    frozen, _ = load_vae(tmp_path / "vae")
    own = posterior.model.vae.state_dict()
    changed = {n for n, v in frozen.state_dict().items() if not torch.equal(v, own[n])}
    head = {name.removeprefix("vae.") for name in OUTPUT_HEAD}
    assert changed == head if objective.get("trainable") == "output_head" else head < changed
    card = posterior.card
    assert card["vae_changed"] is True
    assert card["vae_sha256"] == save_vae(tmp_path / "again", posterior.model.vae, {})["sha256"]
    assert card["vae_sha256"] != card["weights_source"]["vae"]
    # Nothing fits the prior when everything is trained, and the scores go by it.
    assert ("input_reference" in card) == (objective.get("trainable") == "output_head")
    again, _ = train(objective)
    assert again.card == card


@pytest.mark.parametrize("trainable", ["output_head", "all"])
def test_fine_tuning_begins_with_a_trained_posterior(train, monkeypatch, trainable):
    first, run = train()
    tuned = {"start": {"load": str(run.folder / "posterior")}, "folder": "tuned"}
    with torch.no_grad():
        weight = next(first.model.latents.parameters()).clone()
    second, _ = train({"trainable": trainable}, **tuned)
    start = second.card["weights_source"]["start"]
    assert start["sha256"] == first.card["sha256"]
    moved = (next(second.model.latents.parameters()) - weight).abs().max()
    assert 0 < moved < 0.01  # two steps away
    # The tuned one goes on as what it is, and is no start for the frozen VAE.
    on = {"load": str(run.folder.parent / "tuned" / "posterior")}
    third, _ = train({"trainable": "all"}, folder="third", start=on)
    assert third.card["vae_sha256"] != second.card["vae_sha256"]
    with pytest.raises(ConfigurationError, match=r"it is for another VAE than weights\.vae"):
        train(folder="fourth", start=on)


def test_objectives_that_the_task_forbids_are_refused_before_anything_is_written(train, tmp_path):
    with pytest.raises(ConfigurationError, match="'ipa_r' needs"):
        train({"name": "ipa_r"}, ClassLabel(10))
    assert not (tmp_path / "result").exists()


def test_finished_run_is_not_trained_again(train):
    posterior, run = train({"name": "ipa_r"})
    again, second = train({"name": "ipa_r"})
    assert again.card == posterior.card
    assert read_card(run.folder / "posterior") == again.card
    assert second.train().images_per_second is None
