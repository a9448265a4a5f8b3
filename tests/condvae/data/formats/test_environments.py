"""The `data` section of every environment prepares a stand-in in the official layout."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from condvae.data import DataConfig, prepare_images
from condvae.ground.configuration import read_config
from condvae.models.presets import preset_named

CONF = Path(__file__).resolve().parents[4] / "conf"


def make_stand_in(stand_ins, source, folder, size):
    """A small data set in the layout of `source`, of the size its environment asks for."""
    builders = {
        "mnist": lambda: stand_ins.idx(folder),
        "fashion_mnist": lambda: stand_ins.idx(folder, packed=False),
        "cifar10": lambda: stand_ins.cifar10(folder),
        "imagenet32": lambda: stand_ins.imagenet_batches(folder, size),
        "imagenet64": lambda: stand_ins.imagenet_pictures(folder, size),
        "ffhq": lambda: stand_ins.ffhq_pictures(folder, count=12, size=size),
        "celeba": lambda: stand_ins.celeba(folder),
        "celebahq": lambda: stand_ins.ffhq_pictures(folder, count=20, size=128),
        "edges2shoes": lambda: stand_ins.edges(folder, source, size=256),
        "edges2handbags": lambda: stand_ins.edges(folder, source, size=256),
        "chest_xray14": lambda: stand_ins.chest_xray(folder, size=512),
    }
    builders[source]()


ENVIRONMENTS = sorted(
    path.parent.name
    for path in CONF.glob("*/parameters.yml")
    if "path" in (yaml.safe_load(path.read_text()).get("data") or {})
)


def test_there_is_an_environment_for_each_data_set():
    expected = "celeba64 celebahq256 chest_xray14 cifar10 edges2handbags edges2shoes fashion_mnist"
    assert {*expected.split(), "ffhq256", "imagenet32", "imagenet64", "mnist"} <= set(ENVIRONMENTS)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_environment_prepares_its_data_set(environment, stand_ins, tmp_path):
    section = yaml.safe_load((CONF / environment / "parameters.yml").read_text())["data"]
    assert section["path"] == f"data/01_raw/{section['source']}"
    size = section["image_size"]
    make_stand_in(stand_ins, section["source"], tmp_path / "raw", size)
    config = read_config(DataConfig, section | {"path": str(tmp_path / "raw")}, "data")
    store = prepare_images(config, tmp_path / "store")
    assert store.config.name == environment
    assert store.pixels.shape[1:] == (size, size, section["channels"])
    assert all(len(store.indices(split)) for split in ("train", "validation", "test"))
    if config.split == "official":
        assert not set(store.indices("train")) & set(store.indices("test"))
    architecture = yaml.safe_load((CONF / environment / "parameters.yml").read_text())["model"][
        "architecture"
    ]
    if architecture in ("cifar10", "imagenet32", "imagenet64", "ffhq256"):
        contract = preset_named(architecture).contract
        assert (contract.size, contract.channels) == (size, section["channels"])
