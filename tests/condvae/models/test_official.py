"""Names, folders and official checkpoints of either kind become model folders."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest
import torch
import yaml

from condvae.ground.configuration import ConfigurationError
from condvae.ground.images import DataContract
from condvae.ipa import PartialEncoder
from condvae.models import find_model, official, resolve_posterior, resolve_vae
from condvae.models import registry as cards
from condvae.models.folder import load_posterior, load_vae, read_card, save_vae
from condvae.models.official_layout import (
    merge_conditional,
    preset_of_state,
    write_official,
    write_official_conditional,
)
from condvae.models.presets import PRESETS, Preset, StatedModel
from condvae.training.config import TrainingConfig
from condvae.vdvae import ARCHITECTURES, VDVAE, Architecture

CONTRACT = DataContract(3, 16, 110.0, 60.0)


@pytest.fixture(autouse=True)
def preset(monkeypatch):
    """A registered preset as small as a test."""
    architecture = dataclasses.replace(ARCHITECTURES["tiny16"], channels=3)
    monkeypatch.setitem(ARCHITECTURES, "colour16", architecture)
    preset = Preset("colour16", CONTRACT, TrainingConfig(), None, "a test")
    monkeypatch.setitem(PRESETS, "colour16", preset)


@pytest.fixture
def vae(make_vae):
    return make_vae(dtype=torch.float32, channels=3)


@pytest.fixture
def write_conditional(tmp_path, vae):
    """Writes a conditional file with a random partial encoder; returns its path and weights."""

    def write(condition_channels=4):
        partial = PartialEncoder(vae, condition_channels)
        path = tmp_path / "colour16-ipa-model-ema.th"
        state = merge_conditional(vae.state_dict(), partial.state_dict())
        write_official(path, {f"module.{key}": value for key, value in state.items()})
        return path, partial

    return write


@pytest.fixture
def unconditional(tmp_path, vae):
    path = tmp_path / "colour16-model-ema.th"
    write_official(path, vae.state_dict())
    return path


def sha256_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def same(loaded, original):
    found = loaded.state_dict()
    assert all(torch.equal(value, found[key]) for key, value in original.state_dict().items())


def test_conditional_file_becomes_a_posterior_that_samples(tmp_path, vae, write_conditional):
    path, partial = write_conditional()
    folder = resolve_posterior(str(path), "colour16", tmp_path / "cache")
    assert folder == tmp_path / "cache" / "converted" / sha256_of(path)[:12]
    posterior = load_posterior(folder)
    assert posterior.contract == CONTRACT
    assert posterior.card["task"] == "inpainting"
    assert posterior.card["preset"] == "colour16"
    assert posterior.card["weights_source"] == {"official": path.name, "sha256": sha256_of(path)}
    same(posterior.model.vae, vae)
    same(posterior.model.latents, partial)
    pixels = torch.randint(256, (1, 3, 16, 16), dtype=torch.uint8)
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :8] = 1
    drawn = posterior.sample(posterior.observe(pixels, mask), 2)
    assert torch.equal(drawn[..., :8], pixels[..., :8].expand(2, 1, 3, 16, 8))


def test_conditional_file_is_converted_once(tmp_path, write_conditional, monkeypatch):
    path, _ = write_conditional()
    first = resolve_posterior(str(path), "colour16", folder=tmp_path / "models")
    assert first.parent == tmp_path / "models"
    monkeypatch.setattr(official, "load_official_conditional", None)  # a second call would fail
    assert resolve_posterior(str(path), "colour16", folder=tmp_path / "models") == first


# Widths, blocks, latent channels, bottleneck and mixtures of no preset; what the tensors do not say.
STATED = StatedModel(
    encoder="16x2,16d2,8x1,8d4,2x1,2d2,1x2",
    decoder="1x2,2m1,8m2,8x2,16m8,16x1",
    image_size=16,
    mean=99.5,
    std=51.0,
    bits=5,
)
OWN = Architecture(
    **{"image_size": 16, "channels": 1, "width": 24, "latent_channels": 3, "mixtures": 4},
    **{"encoder": STATED.encoder, "decoder": STATED.decoder, "bottleneck": 0.5},
    **{"widths": "16:12", "bias_up_to": 8},
)


@pytest.fixture
def own_files(tmp_path):
    """A VAE that no preset describes, its partial encoder, and a file of each layout."""
    torch.manual_seed(5)
    vae = VDVAE(OWN, DataContract(1, 16, STATED.mean, STATED.std, STATED.bits)).requires_grad_(
        False
    )
    partial = PartialEncoder(vae, 2)
    write_official(tmp_path / "own.th", vae.state_dict())
    write_official_conditional(tmp_path / "own_ipa.th", vae, partial)
    return vae, partial


@pytest.mark.parametrize("changes", [{}, {"bottleneck": 0.25}, {"bias_up_to": 64, "widths": ""}])
def test_tensors_say_what_is_not_stated(changes):
    expected = dataclasses.replace(OWN, **changes)
    vae = VDVAE(expected, DataContract(1, 16, 99.5, 51.0, 5))
    preset = preset_of_state(vae.state_dict(), STATED, "own.th")
    assert preset.contract == vae.contract
    read = VDVAE(preset.shape, preset.contract)
    assert {k: v.shape for k, v in read.state_dict().items()} == {
        k: v.shape for k, v in vae.state_dict().items()
    }
    assert dataclasses.replace(preset.shape, bias_up_to=expected.bias_up_to) == expected


def test_own_files_become_models(tmp_path, own_files):
    vae, partial = own_files
    folder = resolve_vae(str(tmp_path / "own.th"), STATED, folder=tmp_path / "models")
    loaded, card = load_vae(folder)
    assert loaded.architecture == vae.architecture
    assert (loaded.contract, "preset" in card) == (vae.contract, False)
    same(loaded, vae)
    posterior = load_posterior(
        resolve_posterior(str(tmp_path / "own_ipa.th"), STATED, folder=tmp_path / "models")
    )
    same(posterior.model.vae, vae)
    same(posterior.model.latents, partial)
    # Other statements about the same file make another model of it.
    other = dataclasses.replace(STATED, mean=100.0, test_bits_per_dim=3.2)
    again, card = load_vae(resolve_vae(str(tmp_path / "own.th"), other, folder=tmp_path / "models"))
    assert (again.contract.mean, card["test_bits_per_dim"]) == (100.0, 3.2)


def test_statements_that_do_not_fit_the_file_are_refused(tmp_path, own_files):
    path, models = str(tmp_path / "own.th"), tmp_path / "models"
    fewer = dataclasses.replace(STATED, encoder="16x1,16d2,8x1,8d4,2x1,2d2,1x2")
    with pytest.raises(ConfigurationError, match=r"has 9 blocks in its encoder.* has 8"):
        resolve_vae(path, fewer, folder=models)
    elsewhere = dataclasses.replace(STATED, decoder="1x2,2m1,8m2,8x1,16m8,16x2")
    with pytest.raises(ConfigurationError, match=r"own\.th \(as stated\) does not fit"):
        resolve_vae(path, elsewhere, folder=models)
    with pytest.raises(ConfigurationError, match=r"conditional model.*weights\.posterior"):
        resolve_vae(str(tmp_path / "own_ipa.th"), STATED, folder=models)
    write_official(tmp_path / "other.th", {"weight": torch.zeros(2)})
    with pytest.raises(ConfigurationError, match=r"other\.th has 0 blocks in its encoder"):
        resolve_vae(str(tmp_path / "other.th"), STATED, folder=models)
    assert not models.exists()


def test_names_and_folders_of_models_are_themselves(tmp_path, make_vae):
    assert resolve_posterior("digits_inpainting") == find_model("digits_inpainting")
    assert resolve_vae("digits") == find_model("digits")
    save_vae(tmp_path / "own", make_vae(), {})
    assert resolve_vae(str(tmp_path / "own")) == tmp_path / "own"


def test_checkpoint_needs_its_preset(unconditional):
    for resolve in (resolve_vae, resolve_posterior):
        with pytest.raises(ConfigurationError, match=r"does not say what model it is.*cifar10"):
            resolve(str(unconditional))


@pytest.mark.parametrize("name", ["digits", "vdvae-cifar10-seed1"])
def test_vae_is_no_posterior(name):
    with pytest.raises(ConfigurationError, match=rf"'{name}' is a VAE, expected a posterior"):
        resolve_posterior(name)


def test_file_of_the_other_kind_is_refused_with_where_it_goes(
    tmp_path, unconditional, write_conditional
):
    models = tmp_path / "models"
    with pytest.raises(ConfigurationError, match=r"without a partial encoder.*weights\.vae"):
        resolve_posterior(str(unconditional), "colour16", folder=models)
    path, _ = write_conditional()
    with pytest.raises(ConfigurationError, match=r"conditional model.*weights\.posterior"):
        resolve_vae(str(path), "colour16", folder=models)
    assert not models.exists()


def test_partial_encoder_without_a_mask_is_refused(tmp_path, write_conditional):
    path, _ = write_conditional(condition_channels=3)
    with pytest.raises(ConfigurationError, match=r"takes 3 condition channels; inpainting takes 4"):
        resolve_posterior(str(path), "colour16", folder=tmp_path / "models")


def test_damaged_or_missing_file_is_named(tmp_path, write_conditional):
    path, _ = write_conditional()
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ConfigurationError, match=r"colour16-ipa-model-ema\.th is truncated"):
        resolve_posterior(str(path), "colour16", folder=tmp_path / "models")
    with pytest.raises(ConfigurationError, match=r"other\.th: no such file"):
        resolve_posterior(str(tmp_path / "other.th"), "colour16", folder=tmp_path / "models")


@pytest.fixture
def publish(tmp_path, monkeypatch, remote, unconditional):
    """Registers `published`, an official VAE on the test's server."""

    def write(**changes):
        remote.content = unconditional.read_bytes()
        entry = {
            "kind": "vae",
            "description": "A test.",
            "host": remote.host,
            "path": "model.th",
            "sha256": remote.sha256,
            "preset": "colour16",
            "data_contract": dataclasses.asdict(CONTRACT),
            "licence": "MIT",
            **changes,
        }
        package = tmp_path / "package"
        package.mkdir(exist_ok=True)
        (package / "cards.yaml").write_text(yaml.safe_dump({"published": entry}))
        monkeypatch.setattr(cards, "files", lambda _: package)

    return write


def test_published_name_is_fetched_and_converted(tmp_path, publish, remote, vae):
    publish()
    folder = resolve_vae("published", cache=tmp_path / "cache")
    assert folder == tmp_path / "cache" / "converted" / remote.sha256[:12]
    loaded, card = load_vae(folder)
    assert card["preset"] == "colour16"
    assert card["weights_source"] == {"official": "model.th", "sha256": remote.sha256}
    assert all(torch.equal(value, loaded.state_dict()[k]) for k, value in vae.state_dict().items())
    asked = len(remote.requests)
    assert resolve_vae("published", cache=tmp_path / "cache") == folder
    assert len(remote.requests) == asked


def test_known_mismatch_is_told_when_the_file_does_not_fit(tmp_path, publish):
    known = "reported not to fit: half of it is missing"
    publish(preset="cifar10", known_mismatch=known)
    with pytest.raises(ConfigurationError) as caught:
        resolve_vae("published", cache=tmp_path / "cache")
    message = str(caught.value)
    assert "does not fit the model" in message
    assert message.endswith(f"The published file of preset cifar10 is {known}")
    assert not (tmp_path / "cache" / "converted").exists()


def test_no_mismatch_is_told_where_none_is_known(tmp_path, publish):
    publish(preset="cifar10")
    with pytest.raises(ConfigurationError) as caught:
        resolve_vae("published", cache=tmp_path / "cache")
    assert "published file of preset" not in str(caught.value)


def test_folder_of_another_kind_of_model_is_not_taken_for_the_conversion(
    tmp_path, vae, write_conditional
):
    # A VAE that lies where the posterior would be.
    path, _ = write_conditional()
    occupied = tmp_path / "models" / sha256_of(path)[:12]
    facts = {"weights_source": {"official": path.name, "sha256": sha256_of(path)}}
    save_vae(occupied, vae, facts)
    folder = resolve_posterior(str(path), "colour16", folder=tmp_path / "models")
    assert folder == occupied
    assert read_card(folder)["kind"] == "posterior"
