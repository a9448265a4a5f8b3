"""A trained posterior's folder has its model card; what came to it later is kept with the weights."""

from __future__ import annotations

import pytest

from condvae.data import open_images
from condvae.models.card import record_scores, write_model_card
from condvae.models.folder import read_card, save_vae
from condvae.training.initial import new_vae
from condvae.vdvae import ARCHITECTURES
from pipelines.conditional_training.nodes import train_partial_encoder
from pipelines.data_preparation.nodes import prepare_images_node

SCORES = {"manifest": "m" * 64, "cases": 1, "level": 0.95}


@pytest.fixture
def train(tmp_path):
    """Trains, or goes on, and returns the description of the posterior; the images are at `store`."""
    data = {"name": "few", "limit": 80, "image_size": 16, "channels": 1}
    store, _ = prepare_images_node(data, {"images": str(tmp_path)})
    vae = new_vae(ARCHITECTURES["tiny16"], 80.0, 90.0, 0)
    sha256 = save_vae(tmp_path / "vae", vae, {"licence": "as its data"})["sha256"]

    def run(seed=7, name="vdvae-cifar10-seed1"):
        return train_partial_encoder(
            image_store=store,
            pretrained_vae={"name": name, "folder": str(tmp_path / "vae"), "sha256": sha256},
            model={"architecture": "tiny16"},
            task={"name": "inpainting"},
            masks={"kinds": {"half": 1.0}, "stratified": False, "pool": 8},
            training={"steps": 2, "batch_size": 4, "warmup_steps": 0, "learning_rate": 1e-3},
            start={},
            folders={"inpaint": str(tmp_path / "inpaint")},
            device="cpu",
            seed=seed,
        )[0]

    run.store = store
    return run


def test_scores_and_licence_stay_as_long_as_the_weights(train):
    description = train()
    folder = description["folder"]
    record_scores(folder, description["sha256"], "quick", SCORES)
    page = write_model_card(folder, "mit")
    card, text = read_card(folder), page.read_text()
    assert (card["scores"], card["licence"]) == ({"quick": SCORES}, "mit")
    assert train()["sha256"] == description["sha256"]
    assert (read_card(folder), page.read_text()) == (card, text)
    train(seed=8)
    assert {"scores", "licence"}.isdisjoint(read_card(folder))
    assert "Not scored yet." in page.read_text()


def test_card_counts_images_and_names_licences(train):
    card = read_card(train()["folder"])
    images = open_images(train.store["folder"])
    counts = card["data"].pop("images")
    assert card["data"] == {
        "fingerprint": images.fingerprint,
        "images_sha256": images.images_sha256,
        "source": "digits",
        "split": "random",
        "classes": list(images.class_names),
    }
    assert sum(counts.values()) == len(images.records)
    assert counts["test"] == sum(record.split == "test" for record in images.records)
    assert card["licences"] == {"vae": "MIT-style (github.com/openai/vdvae)"}


def test_licence_of_an_unregistered_vae_is_that_on_its_own_card(train):
    card = read_card(train(name="hf://lab/vae@1")["folder"])
    assert card["licences"] == {"vae": "as its data"}
