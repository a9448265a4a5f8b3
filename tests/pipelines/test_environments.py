"""Every environment is accepted as it is and agrees with the published model it names."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from condvae.cvae import CvaeConfig, new_cvae, sample
from condvae.data import DataConfig
from condvae.data.config import OFFICIAL_SOURCES
from condvae.ground.attributes import BINARY, Attribute
from condvae.ground.configuration import read_config
from condvae.ground.images import DataContract
from condvae.models import read_cards
from condvae.models.presets import PRESETS
from condvae.training import TrainingConfig
from condvae.vdvae import architecture_named
from pipelines.data_preparation.nodes import prepare_images_node
from pipelines.parameters import AttributesConfig, WeightsConfig, check_parameters

CONF = Path(__file__).resolve().parents[2] / "conf"
ENVIRONMENTS = sorted(path.parent.name for path in CONF.glob("*/parameters.yml"))
PUBLISHED = {
    "cifar10": "vdvae-cifar10-seed1",
    "imagenet32": "vdvae-imagenet32",
    "imagenet64": "vdvae-imagenet64",
    "ffhq256": "vdvae-ffhq256",
    "celeba64": "vdvae-imagenet64",
    "celebahq256": "vdvae-ffhq256",
    "edges2shoes": "vdvae-imagenet64",
    "edges2handbags": "vdvae-imagenet64",
}


def merge(into, values):
    """As Kedro's loader does with `merge_strategy: soft`."""
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value
    return into


def load(environment):
    parameters = {}
    for path in sorted(CONF.glob("base/parameters/*.yml")):
        merge(parameters, yaml.safe_load(path.read_text()))
    return merge(parameters, yaml.safe_load((CONF / environment / "parameters.yml").read_text()))


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_environment_is_accepted(environment):
    # Without a project folder, neither images nor weights have to be there.
    check_parameters(load(environment))


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_published_data_sets_are_trained_on_with_new_masks_at_every_step(environment):
    parameters = load(environment)
    published = parameters["data"]["source"] in (*OFFICIAL_SOURCES, "celebahq")
    assert (parameters["masks"]["pool"] is None) == published


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_images_fit_the_architecture(environment):
    parameters = load(environment)
    data = read_config(DataConfig, parameters["data"], "data")
    shape = architecture_named(parameters["model"]["architecture"])
    assert (shape.image_size, shape.channels) == (data.image_size, data.channels)


@pytest.mark.parametrize(
    ("environment", "preset"),
    [
        *((name, name) for name in ("cifar10", "imagenet32", "imagenet64", "ffhq256")),
        *((name, "imagenet64") for name in ("edges2shoes", "edges2handbags")),
    ],
)
def test_a_new_vae_is_normalised_as_the_published_one(environment, preset):
    model, contract = load(environment)["model"], PRESETS[preset].contract
    found = (model["mean"], model["std"], model["bits"])
    assert found == (contract.mean, contract.std, contract.bits)


@pytest.mark.parametrize(("environment", "card"), PUBLISHED.items())
def test_published_weights_fit_images_and_architecture(environment, card):
    parameters = load(environment)
    weights = read_config(WeightsConfig, parameters["weights"], "weights")
    assert weights.vae == card
    contract = read_cards()[card].data_contract
    data = read_config(DataConfig, parameters["data"], "data")
    assert (contract.size, contract.channels) == (data.image_size, data.channels)
    assert read_cards()[card].preset == parameters["model"]["architecture"]


def test_faces_have_all_attributes_the_published_split_and_any_size():
    parameters = load("celeba64")
    config = read_config(AttributesConfig, parameters["attributes"], "attributes")
    assert config.conditions == ("all",)
    assert config.hold_out
    assert parameters["data"]["split"] == "official"
    # As the page on images from attributes has it, for the size of De (2025).
    page = (CONF.parent / "docs/attributes.md").read_text()
    (command,) = re.findall(r"--env=celeba64 --pipeline=attributes --params=(\S*86\S*)", page)
    changes = dict(item.split("=") for item in command.split(","))
    values = {k.partition(".")[2]: yaml.safe_load(v) for k, v in changes.items()}
    data = read_config(DataConfig, {**parameters["data"], **values}, "data")
    assert (data.image_size, data.crop) == (86, 172)
    attributes = [Attribute(f"a{i}", BINARY) for i in range(40)]
    small = {**parameters["cvae"], "width": 2, "features": 4, "prior_hidden": 4, "prior_layers": 1}
    contract = DataContract(3, data.image_size, 120.0, 60.0)
    model = new_cvae(read_config(CvaeConfig, small, "cvae"), attributes, contract, 0)
    images = sample(model, torch.full((1, 40), torch.nan), 2)
    assert images.shape == (2, 1, 3, 86, 86)


@pytest.mark.parametrize("environment", ["cifar10", "imagenet32", "imagenet64", "ffhq256"])
@pytest.mark.parametrize(
    ("section", "settings"), [("training", "conditional"), ("pretraining", "unconditional")]
)
def test_optimiser_is_the_published_one(environment, section, settings):
    found = read_config(TrainingConfig, load(environment)[section], section)
    published = getattr(PRESETS[environment], settings)
    for name in (
        *("steps", "batch_size", "learning_rate", "betas", "weight_decay", "warmup_steps"),
        *("schedule", "ema_decay", "clip_norm", "precision"),
    ):
        assert getattr(found, name) == getattr(published, name), name


@pytest.mark.parametrize(
    ("environment", "rate", "batch", "steps"),
    [
        # Harvey et al. 2022, table of training costs.
        ("edges2shoes", 2e-4, 4, 250_000),
        ("edges2handbags", 2e-4, 4, 260_000),
        ("chest_xray14", 1.5e-4, 8, 180_000),
    ],
)
def test_sets_without_a_published_vae_have_the_published_conditional_settings(
    environment, rate, batch, steps
):
    training = read_config(TrainingConfig, load(environment)["training"], "training")
    assert (training.learning_rate, training.batch_size, training.steps) == (rate, batch, steps)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_long_pretraining_survives_a_divergence(environment):
    found = read_config(TrainingConfig, load(environment)["pretraining"], "pretraining")
    assert found.max_restarts == (3 if found.steps >= 100_000 else 0)


def test_identical_images_of_an_official_split_are_marked_in_the_manifest(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
    images[[12, 20]] = images[5]
    np.save(tmp_path / "ffhq-256.npy", images)
    data = {
        "name": "ffhq256",
        "source": "ffhq",
        "path": str(tmp_path),
        "image_size": 8,
        "channels": 3,
        "split": "official",
        "accept_licence": True,
    }
    store, manifest = prepare_images_node(data, {"images": str(tmp_path / "stores")})
    assert (store["count"], store["duplicates_kept"], store["duplicates_dropped"]) == (30, 2, 0)
    assert store["validation_is_test"] is True
    assert str(manifest["duplicate_of"].dtype) == "Int64"
    again = manifest["duplicate_of"].dropna()
    assert again.to_dict() == {12: 5, 20: 5}
    assert set(manifest["split"]) == {"train", "test"}
