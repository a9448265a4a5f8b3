"""Bits and normalisation of a new VAE are those of `model`, and runs that differ in them never mix."""

from __future__ import annotations

import pytest

from condvae.ground.images import DataContract
from condvae.models.folder import load_vae, read_card
from pipelines.data_preparation.nodes import prepare_images_node
from pipelines.pretrained_weights.nodes import fetch_weights
from pipelines.pretraining.nodes import train_vae

PRETRAINING = {"steps": 2, "batch_size": 4, "warmup_steps": 0, "log_every": 1}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    data = {"name": "few", "limit": 60, "image_size": 16, "channels": 1}
    return prepare_images_node(data, {"images": str(tmp_path_factory.mktemp("images"))})[0]


@pytest.fixture
def train(tmp_path, store):
    def run(**model):
        model = {"architecture": "tiny16", **model}
        found = train_vae(
            image_store=store,
            model=model,
            pretraining=PRETRAINING,
            start={},
            folders={"vae": str(tmp_path / "vae"), "inpaint": str(tmp_path / "inpaint")},
            device="cpu",
            seed=0,
        )
        return load_vae(found["folder"])[0].contract, read_card(found["folder"])

    return run


def test_default_contract_is_that_of_the_training_images(train, store):
    contract, _ = train()
    assert contract == DataContract(1, 16, store["training_mean"], store["training_std"], 8)


def test_stated_contract_is_trained_with_and_decides_which_run_it_is(train, store):
    stated, card = train(bits=5, mean=112.8666757481, std=69.84780273)
    assert stated == DataContract(1, 16, 112.8666757481, 69.84780273, 5)
    assert card["weights_source"]["data_contract"]["bits"] == 5
    _, other = train(bits=5, mean=112.8666757481)
    assert other["weights_source"]["run"] != card["weights_source"]["run"]
    # Stating what would be taken anyway changes nothing.
    _, default = train()
    _, same = train(mean=store["training_mean"], std=store["training_std"], bits=8)
    assert same["weights_source"]["run"] == default["weights_source"]["run"]


def test_random_vae_has_the_stated_contract(tmp_path, store):
    found = fetch_weights(
        store,
        {"vae": "random", "allow_untrained": True},
        {"architecture": "tiny16", "bits": 5, "mean": 100.0},
        {"vae": str(tmp_path / "vae")},
        0,
    )
    contract = load_vae(found["folder"])[0].contract
    assert contract == DataContract(1, 16, 100.0, store["training_std"], 5)


def test_softplus_stds_decide_which_run_it_is_and_stating_the_default_does_not(train):
    _, default = train()
    _, stated = train(latent_std="exp")
    _, smooth = train(latent_std="softplus")
    assert stated["weights_source"]["run"] == default["weights_source"]["run"]
    assert smooth["weights_source"]["run"] != default["weights_source"]["run"]
    assert smooth["architecture"]["latent_std"] == "softplus"
