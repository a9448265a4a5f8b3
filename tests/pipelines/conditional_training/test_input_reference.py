"""The card of a trained posterior holds what the input check compares with."""

from __future__ import annotations

import pytest
import torch

from condvae import load_posterior
from condvae.data import open_images
from condvae.ground.configuration import ConfigurationError
from condvae.masks.sampling import MaskConfig
from condvae.models import conditional_run as conditional_training
from condvae.models.folder import read_card, save_posterior, save_vae
from condvae.posterior.input_check import check_observations, input_reference, most_observations
from condvae.training.initial import new_vae
from condvae.vdvae import ARCHITECTURES
from pipelines.conditional_training.nodes import train_partial_encoder
from pipelines.data_preparation.nodes import prepare_images_node

KINDS = {"half": 1.0}


@pytest.fixture
def train(tmp_path):
    """Trains, or goes on, and returns the description of the posterior; the images are at `store`."""
    data = {"name": "few", "limit": 80, "image_size": 16, "channels": 1}
    store, _ = prepare_images_node(data, {"images": str(tmp_path)})
    vae = new_vae(ARCHITECTURES["tiny16"], 80.0, 90.0, 0)
    sha256 = save_vae(tmp_path / "vae", vae, {})["sha256"]

    def run(seed=7):
        return train_partial_encoder(
            image_store=store,
            pretrained_vae={"name": "tiny", "folder": str(tmp_path / "vae"), "sha256": sha256},
            model={"architecture": "tiny16"},
            task={"name": "inpainting"},
            masks={"kinds": KINDS, "stratified": False, "pool": 8},
            training={"steps": 2, "batch_size": 4, "warmup_steps": 0, "learning_rate": 1e-3},
            start={},
            folders={"inpaint": str(tmp_path / "inpaint")},
            device="cpu",
            seed=seed,
        )[0]

    run.store = store
    return run


def test_card_holds_the_scores_of_the_validation_images(train):
    result = train()
    posterior, images = load_posterior(result["folder"]), open_images(train.store["folder"])
    rows = images.indices("validation")
    scored = []
    expected = input_reference(
        posterior, images.pixels, rows, MaskConfig(KINDS), seed=7, progress=scored.append
    )
    assert scored == [len(rows)]
    assert most_observations(len(rows)) == 5 * len(rows)
    assert most_observations(10_000) == 995
    reference = posterior.card["input_reference"]
    assert (reference["seed"], list(reference["bins"])) == (7, ["40_60"])
    assert reference["bins"]["40_60"] == pytest.approx(expected["bins"]["40_60"], rel=1e-4)
    assert reference["bins"]["40_60"]["n"] == len(rows)

    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :8] = 1
    observation = posterior.observe(torch.zeros(1, 1, 16, 16, dtype=torch.uint8), mask)
    (verdict,) = check_observations(posterior, observation)
    assert not verdict.checked
    assert f"only {len(rows)} validation images" in verdict.message


def test_finished_run_scores_nothing_again(train, monkeypatch):
    calls = []

    def count(*arguments, **options):
        calls.append(options["seed"])
        return input_reference(*arguments, **options)

    monkeypatch.setattr(conditional_training, "input_reference", count)
    folder = train()["folder"]
    card = read_card(folder)
    train()
    assert read_card(folder) == card
    assert calls == [7]
    # Another run, and then the first one's card is not there any more.
    train(seed=8)
    train()
    assert calls == [7, 8, 7]
    assert read_card(folder) == card
    # The same run's card over other weights says nothing of these.
    posterior = load_posterior(folder)
    with torch.no_grad():
        next(posterior.model.latents.parameters()).add_(1)
    save_posterior(folder, posterior, card)
    train()
    assert calls == [7, 8, 7, 7]


def test_running_out_of_memory_names_the_parameter(train, monkeypatch):
    def exhaust(*_, **__):
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(conditional_training, "input_reference", exhaust)
    with pytest.raises(ConfigurationError, match=r"training\.batch_size = 4; lower it"):
        train()
