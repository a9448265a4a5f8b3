"""An official checkpoint as the frozen VAE: converted once, refused by name where it does not fit."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest
import torch
import yaml

from condvae.ground.configuration import ConfigurationError, read_config
from condvae.ground.images import DataContract
from condvae.models import official as official_files
from condvae.models.folder import load_vae
from condvae.models.official_layout import write_official
from condvae.models.presets import PRESETS, Preset
from condvae.training.config import TrainingConfig
from condvae.vdvae import ARCHITECTURES
from pipelines.parameters import WeightsConfig
from pipelines.pretrained_weights import nodes

STORE = {
    **{"name": "colour", "fingerprint": "f" * 64, "channels": 3, "image_size": 16},
    **{"training_mean": 80.0, "training_std": 90.0},
}


@pytest.fixture
def vae(make_vae):
    return make_vae(dtype=torch.float32, channels=3)


@pytest.fixture
def official(tmp_path, monkeypatch, vae):
    """A registered preset and a file that fits it."""
    monkeypatch.setitem(
        ARCHITECTURES, "colour16", dataclasses.replace(ARCHITECTURES["tiny16"], channels=3)
    )
    contract = DataContract(3, 16, 110.0, 60.0)
    preset = Preset("colour16", contract, TrainingConfig(), None, "a test")
    monkeypatch.setitem(PRESETS, "colour16", preset)
    monkeypatch.setitem(
        PRESETS, "low_bits", dataclasses.replace(preset, contract=DataContract(3, 16, 110, 60, 5))
    )
    path = tmp_path / "own" / "colour16-iter-7-model-ema.th"
    write_official(path, {f"module.{k}": v for k, v in vae.state_dict().items()})
    return path


def fetch(tmp_path, store=STORE, **weights):
    folders = {"vae": str(tmp_path / "models" / "vae")}
    return nodes.fetch_weights(store, weights, {"architecture": "tiny16"}, folders, 0)


def sha256_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_file_becomes_a_model_folder(tmp_path, official, vae):
    found = fetch(tmp_path, vae=str(official), preset="colour16")
    digest = sha256_of(official)
    assert found["folder"] == str(tmp_path / "models" / "vae" / digest[:12])
    loaded, card = load_vae(found["folder"])
    assert card["sha256"] == found["sha256"]
    assert card["weights_source"] == {"official": "colour16-iter-7-model-ema.th", "sha256": digest}
    assert card["preset"] == "colour16"
    assert loaded.contract == PRESETS["colour16"].contract
    own = vae.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in loaded.state_dict().items())


def test_it_is_converted_once(tmp_path, official, monkeypatch):
    first = fetch(tmp_path, vae=str(official), preset="colour16")
    monkeypatch.setattr(official_files, "load_official_vae", None)  # calling it again would fail
    assert fetch(tmp_path, vae=str(official), preset="colour16") == first


def test_half_written_conversion_is_made_again(tmp_path, official):
    first = fetch(tmp_path, vae=str(official), preset="colour16")
    weights = tmp_path / "models" / "vae" / sha256_of(official)[:12] / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-5])
    assert fetch(tmp_path, vae=str(official), preset="colour16") == first
    assert weights.read_bytes() == whole


def test_other_preset_of_the_same_shapes_is_converted_anew(tmp_path, official):
    fetch(tmp_path, vae=str(official), preset="colour16")
    found = fetch(tmp_path, vae=str(official), preset="low_bits")
    assert load_vae(found["folder"])[0].contract.bits == 5


def test_changed_file_is_another_model(tmp_path, official, vae):
    first = fetch(tmp_path, vae=str(official), preset="colour16")
    with torch.no_grad():
        vae.decoder.gain += 1.0
    write_official(official, vae.state_dict())
    assert fetch(tmp_path, vae=str(official), preset="colour16")["folder"] != first["folder"]


def test_damaged_or_wrong_files_leave_nothing(tmp_path, official):
    whole = official.read_bytes()
    official.write_bytes(whole[:-100])
    with pytest.raises(ConfigurationError, match=r"colour16-iter-7-model-ema\.th is truncated"):
        fetch(tmp_path, vae=str(official), preset="colour16")
    official.write_bytes(whole)
    with pytest.raises(ConfigurationError, match=r"\(preset cifar10\) does not fit the model"):
        fetch(tmp_path, vae=str(official), preset="cifar10")
    with pytest.raises(ConfigurationError, match=r"checkpoint .*other\.th: no such file"):
        fetch(tmp_path, vae=str(official.with_name("other.th")), preset="colour16")
    assert not (tmp_path / "models").exists()


def test_images_must_fit(tmp_path, official):
    with pytest.raises(ConfigurationError, match=r"takes 3 x 16² images, the data have 3 x 32²"):
        fetch(tmp_path, {**STORE, "image_size": 32}, vae=str(official), preset="colour16")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            {"vae": "a/model.th"},
            r"^weights\.preset = None: 'a/model\.th' .* cifar10",
        ),
        (
            {"posterior": "a/ipa.th"},
            r"^weights\.preset = None: 'a/ipa\.th' .* cifar10",
        ),
        ({"preset": "cifar10"}, r"^weights\.preset = 'cifar10': only for official checkpoints"),
        (
            {"vae": "a.th", "preset": "cifar"},
            r"^weights\.preset = 'cifar': .*did you mean 'cifar10'",
        ),
    ],
)
def test_preset_and_file_belong_together(weights, message):
    with pytest.raises(ConfigurationError, match=message):
        read_config(WeightsConfig, weights, "weights")


def test_preset_may_be_of_the_posterior_alone():
    read_config(WeightsConfig, {"posterior": "a/ipa.th", "preset": "cifar10"}, "weights")


def test_base_parameters_name_every_preset(pytestconfig):
    text = (pytestconfig.rootpath / "conf/base/parameters/weights.yml").read_text()
    assert yaml.safe_load(text)["weights"]["preset"] is None
    assert " | ".join(PRESETS) in text
