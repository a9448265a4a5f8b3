"""Flat models on disk."""

import json

import pytest
import torch

from condvae.cvae.folder import load_cvae, save_cvae
from condvae.ground.configuration import ConfigurationError
from condvae.models.folder import read_card
from condvae.priors.vector import PRIORS


@pytest.fixture
def saved(make_cvae, tmp_path):
    model = make_cvae(dtype=torch.float32)
    model.likelihood.keep_std(0.04)
    save_cvae(tmp_path, model, {"name": "stand-in", "weights_source": {"run": "abc"}})
    return tmp_path, model


def change_card(folder, **changes):
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, **changes}))


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("likelihood", ["optimal", "learned", "logistic_mixture"])
def test_a_model_comes_back_the_same(
    make_cvae, make_pixels, make_conditions, tmp_path, prior, likelihood
):
    model = make_cvae(dtype=torch.float32, prior=prior, likelihood=likelihood, channels=3)
    model.prior.standardise(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([1.0, 2.0, 0.5]))
    if likelihood == "optimal":
        model.likelihood.keep_std(0.04)
    save_cvae(tmp_path, model, {})
    found, _ = load_cvae(tmp_path)
    assert found.config == model.config
    assert found.attributes == model.attributes
    assert found.contract == model.contract
    assert not found.training
    assert not any(parameter.requires_grad for parameter in found.parameters())
    pixels, y = make_pixels(3, 3, 8), make_conditions(3)
    expected = model.eval().log_prob(pixels, y, 3)
    torch.testing.assert_close(found.log_prob(pixels, y, 3), expected, rtol=1e-6, atol=0)
    for name, value in model.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name


def test_the_card_says_what_it_is(saved):
    folder, model = saved
    card = read_card(folder, "cvae")
    assert card["name"] == "stand-in"
    assert card["weights_source"] == {"run": "abc"}
    assert card["attributes"][0] == {
        **{"name": "shade", "values": ["dark", "middle", "bright"]},
        **{"mean": 0.0, "std": 1.0},
    }
    assert card["attributes"][1]["mean"] == 2.0
    assert card["data_contract"]["size"] == 8
    assert card["parameters"] == sum(p.numel() for p in model.parameters())
    with pytest.raises(ConfigurationError, match="expected 'vae'"):
        read_card(folder, "vae")


def test_facts_of_another_model_do_not_override(make_cvae, tmp_path):
    card = save_cvae(tmp_path, make_cvae(dtype=torch.float32), {"kind": "vae", "sha256": "0"})
    assert card["kind"] == "cvae"
    load_cvae(tmp_path)


def test_loading_leaves_the_global_generator(saved):
    before = torch.get_rng_state()
    load_cvae(saved[0])
    assert torch.equal(before, torch.get_rng_state())


def test_altered_weights_are_refused(saved):
    folder, _ = saved
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-3] ^= 1
    (folder / "model.safetensors").write_bytes(bytes(data))
    with pytest.raises(ConfigurationError, match="half-written, damaged or altered"):
        load_cvae(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "vae"}, "holds a 'vae' model"),
        ({"attributes": None}, "attributes = None: expected a list"),
        ({"attributes": [{"values": ["a"]}]}, r"missing parameter attributes\[0\]\.name"),
        ({"attributes": [{"name": "a", "values": ["b", "c"]}]}, "embeddings"),
        ({"model": {"latents": 5}}, "mis-shaped|shape|missing"),
        ({"model": {"latent": 5}}, r"unknown parameter model\.latent"),
        ({"data_contract": {"size": 8}}, "missing parameter data_contract"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(saved, changes, message):
    folder, _ = saved
    change_card(folder, **changes)
    with pytest.raises(ConfigurationError, match=message):
        load_cvae(folder)


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(ConfigurationError, match=r"card\.json is missing"):
        load_cvae(tmp_path)
