from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from condvae import load_posterior, load_vae
from condvae.ground.configuration import ConfigurationError
from condvae.ground.devices import place
from condvae.ground.files import sha256_of_file
from condvae.ipa import ConditionalModel, PartialEncoder, UnconditionalLatents
from condvae.models.folder import (
    posterior_source,
    read_card,
    save_posterior,
    save_vae,
    vae_source,
)


@pytest.fixture
def vae(make_vae):
    return place(make_vae(dtype=torch.float32), "cpu")


@pytest.fixture
def posterior(make_posterior):
    posterior = make_posterior(dtype=torch.float32)
    place(posterior.model.vae, "cpu")
    place(posterior.model.latents, "cpu")
    return posterior


def rewrite_card(folder, **changes):
    path = folder / "card.json"
    card = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(card))


def test_vae_round_trip(tmp_path, vae, make_pixels, make_noise):
    card = save_vae(tmp_path / "vae", vae, {"weights_source": "made here"})
    loaded, read = load_vae(tmp_path / "vae")
    assert read == card
    assert (loaded.architecture, loaded.contract) == (vae.architecture, vae.contract)
    for key, value in vae.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)
    pixels = make_pixels()
    a, b = (m.elbo(pixels, make_noise(dtype=torch.float32)) for m in (vae, loaded))
    assert torch.equal(a.rate_nats, b.rate_nats)
    assert torch.equal(a.pixel_nats, b.pixel_nats)
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())


def test_posterior_round_trip(tmp_path, posterior, make_pixels):
    save_posterior(tmp_path / "posterior", posterior, {"weights_source": "made here"})
    loaded = load_posterior(tmp_path / "posterior")
    pixels, mask = make_pixels(2), make_pixels(2, seed=3) > 128
    observation = posterior.observe(pixels, mask)
    assert torch.equal(loaded.sample(observation, 3), posterior.sample(observation, 3))
    a, b = (p.bound(pixels, observation) for p in (posterior, loaded))
    assert torch.equal(a.rate_nats, b.rate_nats)
    assert torch.equal(a.all_nats, b.all_nats)
    modules = (loaded.model.vae, loaded.model.latents)
    assert not any(m.training or p.requires_grad for m in modules for p in m.parameters())


def test_card(tmp_path, posterior):
    card = save_posterior(tmp_path, posterior, {"weights_source": "here", "steps": 3})
    assert json.loads((tmp_path / "card.json").read_text()) == card
    assert card["format"] == 1
    assert card["kind"] == "posterior"
    assert card["task"] == "inpainting"
    assert card["heads"] == "absolute"
    assert card["steps"] == 3
    assert card["architecture"] == posterior.model.vae.architecture.facts()
    assert card["data_contract"] == dataclasses.asdict(posterior.contract)
    assert card["sha256"] == sha256_of_file(tmp_path / "model.safetensors")
    modules = (posterior.model.vae, posterior.model.latents)
    assert card["parameters"] == sum(p.numel() for m in modules for p in m.parameters())
    assert load_posterior(tmp_path).card == card
    assert load_posterior(str(tmp_path)).card == card


def test_facts_of_another_card_do_not_override_the_truth(tmp_path, vae, posterior):
    facts = save_vae(tmp_path / "vae", vae, {"weights_source": "here"})
    card = save_posterior(tmp_path / "posterior", posterior, {**facts, "task": "other"})
    assert card["kind"] == "posterior"
    assert card["task"] == "inpainting"
    assert card["sha256"] != facts["sha256"]
    assert card["weights_source"] == "here"
    load_posterior(tmp_path / "posterior")


def test_prior_standing_in_cannot_be_saved(tmp_path, posterior):
    model = ConditionalModel(posterior.model.vae, UnconditionalLatents())
    with pytest.raises(ConfigurationError, match="partial encoder"):
        save_posterior(tmp_path / "p", dataclasses.replace(posterior, model=model), {})
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("missing", ["card.json", "model.safetensors"])
def test_missing_file_is_named(tmp_path, vae, missing):
    save_vae(tmp_path, vae, {})
    (tmp_path / missing).unlink()
    with pytest.raises(ConfigurationError, match=f"{tmp_path} is not a model folder: {missing} is"):
        load_vae(tmp_path)


@pytest.mark.parametrize("text", [b"", b"{", b'{"format": 1', b"\xff\xfe\x00"])
def test_damaged_card_is_named(tmp_path, vae, text):
    save_vae(tmp_path, vae, {})
    (tmp_path / "card.json").write_bytes(text)
    with pytest.raises(ConfigurationError, match=r"card\.json is not valid JSON"):
        load_vae(tmp_path)


@pytest.mark.parametrize(
    ("text", "found"), [('{"format": 2}', "2"), ("{}", "None"), ("[]", "None")]
)
def test_other_formats_are_refused(tmp_path, vae, text, found):
    save_vae(tmp_path, vae, {})
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(
        ConfigurationError, match=rf"card\.json: format {found}, this version reads 1"
    ):
        load_vae(tmp_path)


def test_weights_of_another_model_are_refused(tmp_path, make_vae):
    for seed in (1, 2):
        save_vae(tmp_path / str(seed), make_vae(seed=seed, dtype=torch.float32), {})
    (tmp_path / "1" / "model.safetensors").write_bytes(
        (tmp_path / "2" / "model.safetensors").read_bytes()
    )
    with pytest.raises(
        ConfigurationError, match=r"1/model\.safetensors has sha256 .* its card says"
    ):
        load_vae(tmp_path / "1")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_truncated_weights_are_refused(tmp_path, vae, share):
    save_vae(tmp_path, vae, {})
    weights = tmp_path / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ConfigurationError, match=r"model\.safetensors has sha256"):
        load_vae(tmp_path)
    # Even when the card agrees with the damaged file.
    rewrite_card(tmp_path, sha256=sha256_of_file(weights))
    with pytest.raises(ConfigurationError, match=r"model\.safetensors cannot be read"):
        load_vae(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_flipped_bit_in_the_weights_is_refused(tmp_path, vae, share):
    save_vae(tmp_path, vae, {})
    weights = tmp_path / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[int(share * len(data))] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ConfigurationError, match=r"model\.safetensors has sha256 .*damaged"):
        load_vae(tmp_path)


@pytest.mark.parametrize("kind", ["vae", "posterior"])
def test_other_kind_is_refused(tmp_path, vae, posterior, kind):
    if kind == "vae":
        save_vae(tmp_path, vae, {})
        load = load_posterior
    else:
        save_posterior(tmp_path, posterior, {})
        load = load_vae
    other = "posterior" if kind == "vae" else "vae"
    with pytest.raises(ConfigurationError, match=f"holds a '{kind}' model, expected '{other}'"):
        load(tmp_path)
    assert read_card(tmp_path)["kind"] == kind


def test_weights_that_do_not_fit_the_card_are_listed(tmp_path, vae):
    card = save_vae(tmp_path, vae, {})
    rewrite_card(tmp_path, architecture=card["architecture"] | {"latent_channels": 3})
    with pytest.raises(ConfigurationError, match=r"shape: decoder\.dec_blocks\.0\.z_proj\.weight"):
        load_vae(tmp_path)


def test_unknown_hyper_parameter_is_refused(tmp_path, vae):
    card = save_vae(tmp_path, vae, {})
    rewrite_card(tmp_path, architecture=card["architecture"] | {"depth": 3})
    with pytest.raises(ConfigurationError, match=r"unknown parameter architecture\.depth"):
        load_vae(tmp_path)


def test_saving_over_an_old_model(tmp_path, make_vae):
    for seed in (1, 2):
        vae = make_vae(seed=seed, dtype=torch.float32)
        save_vae(tmp_path, vae, {"seed": seed})
    loaded, card = load_vae(tmp_path)
    assert card["seed"] == 2
    assert torch.equal(loaded.decoder.gain, vae.decoder.gain)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["card.json", "model.safetensors"]


def test_interrupted_between_weights_and_card(tmp_path, make_vae, monkeypatch):
    old, new = (make_vae(seed=seed, dtype=torch.float32) for seed in (1, 2))

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("condvae.models.folder.write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            save_vae(tmp_path / "first", new, {})
    with pytest.raises(ConfigurationError, match=r"card\.json is missing"):
        load_vae(tmp_path / "first")

    save_vae(tmp_path / "over", old, {})
    with monkeypatch.context() as patch:
        patch.setattr("condvae.models.folder.write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            save_vae(tmp_path / "over", new, {})
    with pytest.raises(ConfigurationError, match="half-written, damaged or altered"):
        load_vae(tmp_path / "over")
    save_vae(tmp_path / "over", new, {})
    assert torch.equal(load_vae(tmp_path / "over")[0].decoder.gain, new.decoder.gain)


def test_full_disk_leaves_the_old_model(tmp_path, make_vae, monkeypatch):
    old, new = (make_vae(seed=seed, dtype=torch.float32) for seed in (1, 2))
    save_vae(tmp_path, old, {})

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            save_vae(tmp_path, new, {})
    assert torch.equal(load_vae(tmp_path)[0].decoder.gain, old.decoder.gain)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["card.json", "model.safetensors"]


def residual_posterior(posterior):
    vae = posterior.model.vae
    partial = place(PartialEncoder(vae, 2, "residual"), "cpu")
    return dataclasses.replace(posterior, model=ConditionalModel(vae, partial))


def test_kind_of_heads_is_restored(tmp_path, posterior, make_pixels):
    own = residual_posterior(posterior)
    card = save_posterior(tmp_path, own, {"heads": "absolute"})
    assert card["heads"] == "residual"
    loaded = load_posterior(tmp_path)
    assert loaded.model.latents.head_kind == "residual"
    observation = own.observe(make_pixels(2), make_pixels(2, seed=3) > 128)
    drawn = own.sample(observation, 3)
    assert torch.equal(loaded.sample(observation, 3), drawn)
    # The same weights as absolute heads are another posterior.
    rewrite_card(tmp_path, heads="absolute")
    assert not torch.equal(load_posterior(tmp_path).sample(observation, 3), drawn)


def test_cards_from_before_there_were_kinds_mean_absolute_heads(tmp_path, posterior):
    card = save_posterior(tmp_path, posterior, {})
    del card["heads"]
    (tmp_path / "card.json").write_text(json.dumps(card))
    assert load_posterior(tmp_path).model.latents.head_kind == "absolute"
    rewrite_card(tmp_path, heads="relative")
    with pytest.raises(ConfigurationError, match="heads = 'relative': expected one of absolute"):
        load_posterior(tmp_path)


def flow_posterior(posterior):
    vae = posterior.model.vae
    partial = place(PartialEncoder(vae, 2, "absolute", "4:affine 1:spline", 3), "cpu")
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in partial.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return dataclasses.replace(posterior, model=ConditionalModel(vae, partial))


def test_flows_are_restored(tmp_path, posterior, make_pixels):
    own = flow_posterior(posterior)
    card = save_posterior(tmp_path / "flows", own, {"flows": "16:affine", "flow_layers": 1})
    assert (card["flows"], card["flow_layers"]) == ("1:spline,4:affine", 3)
    loaded = load_posterior(tmp_path / "flows")
    pixels, mask = make_pixels(2), make_pixels(2, seed=3) > 128
    observation = own.observe(pixels, mask)
    assert torch.equal(loaded.sample(observation, 3), own.sample(observation, 3))
    a, b = (p.bound(pixels, observation).rate_nats for p in (own, loaded))
    assert torch.equal(a, b)
    # Another posterior's card brings no flows to one without.
    card = save_posterior(tmp_path / "plain", posterior, card)
    assert not {"flows", "flow_layers"} & card.keys()
    assert not load_posterior(tmp_path / "plain").model.latents.flows


def test_cards_that_say_nothing_of_flows_mean_none(tmp_path, posterior):
    card = save_posterior(tmp_path, posterior, {})
    assert not {"flows", "flow_layers"} & card.keys()
    assert not load_posterior(tmp_path).model.latents.flows
    vae = posterior.model.vae
    assert posterior_source(str(tmp_path), vae, "inpainting", "absolute").differences == ()


@pytest.mark.parametrize(
    ("flows", "layers", "asked"),
    [
        ("", 2, "no flows"),
        ("1:spline", 3, "flows 1:spline of 3 layers"),
        ("1:spline,4:affine", 2, "flows 1:spline,4:affine of 2 layers"),
    ],
)
def test_other_flows_are_said_and_offered_under_other_names(
    tmp_path, posterior, flows, layers, asked
):
    own = flow_posterior(posterior)
    save_posterior(tmp_path, own, {})
    args = (str(tmp_path), own.model.vae, "inpainting", "absolute")
    source = posterior_source(*args, flows, layers)
    assert source.differences == (
        f"it has flows 1:spline,4:affine of 3 layers, and model.flows asks for {asked}",
    )
    state = own.model.latents.state_dict()
    same = posterior_source(*args, "4:affine,1:spline", 3)
    assert same.differences == ()
    assert same.weights.keys() == state.keys()
    assert source.weights.keys() == {
        f"other_{name}" if name.startswith("flows.") else name for name in state
    }


def test_kind_of_std_is_on_the_card_and_tells_equal_weights_apart(tmp_path, make_vae, make_pixels):
    kinds = {std: make_vae(dtype=torch.float32, latent_std=std) for std in ("exp", "softplus")}
    cards = {std: save_vae(tmp_path / std, vae, {}) for std, vae in kinds.items()}
    assert "latent_std" not in cards["exp"]["architecture"]
    assert cards["softplus"]["architecture"]["latent_std"] == "softplus"
    assert cards["exp"]["sha256"] != cards["softplus"]["sha256"]
    for std, vae in kinds.items():
        loaded, _ = load_vae(tmp_path / std)
        assert loaded.architecture == vae.architecture
    smooth = kinds["softplus"]
    differences = vae_source(
        str(tmp_path / "exp"), smooth.architecture, smooth.contract
    ).differences
    assert differences == ("its architecture.latent_std is 'exp', not 'softplus'",)


def test_posterior_over_equal_weights_with_another_std_is_another(tmp_path, make_posterior):
    kinds = {s: make_posterior(dtype=torch.float32, latent_std=s) for s in ("exp", "softplus")}
    for std, posterior in kinds.items():
        save_posterior(tmp_path / std, posterior, {})
    for std, expected in (("exp", ("it is for another VAE than weights.vae",)), ("softplus", ())):
        source = posterior_source(
            str(tmp_path / std), kinds["softplus"].model.vae, "inpainting", "absolute"
        )
        assert source.differences == expected


def test_vae_as_a_source(tmp_path, vae, posterior):
    card = save_vae(tmp_path / "vae", vae, {"weights_source": {"run": "f" * 64}})
    source = vae_source(str(tmp_path / "vae"), vae.architecture, vae.contract)
    assert (source.card, source.made_by, source.differences) == (card, "f" * 64, ())
    own = vae.state_dict()
    assert source.weights.keys() == own.keys()
    assert all(torch.equal(value, own[name]) for name, value in source.weights.items())
    save_posterior(tmp_path / "posterior", posterior, {})
    with pytest.raises(ConfigurationError, match="holds a 'posterior' model, expected 'vae'"):
        vae_source(str(tmp_path / "posterior"), vae.architecture, vae.contract)
    with pytest.raises(ConfigurationError, match="neither a registered name"):
        vae_source(str(tmp_path / "nowhere"), vae.architecture, vae.contract)


def test_posterior_as_a_source(tmp_path, posterior):
    save_posterior(tmp_path, posterior, {"weights_source": "made here"})
    source = posterior_source(str(tmp_path), posterior.model.vae, "inpainting", "absolute")
    assert source.made_by is None
    assert source.differences == ()
    own = posterior.model.latents.state_dict()
    assert source.weights.keys() == own.keys()
    assert all(torch.equal(value, own[name]) for name, value in source.weights.items())


def test_what_makes_a_posterior_another_model_is_said(tmp_path, posterior, make_vae):
    save_posterior(tmp_path, posterior, {})
    folder = str(tmp_path)
    wider = make_vae(dtype=torch.float32, latent_channels=3)
    for other in (make_vae(seed=9, dtype=torch.float32), wider):
        source = posterior_source(folder, other, "inpainting", "absolute")
        assert source.differences == ("it is for another VAE than weights.vae",)
    vae = posterior.model.vae
    (difference,) = posterior_source(folder, vae, "edges", "absolute").differences
    assert difference == "its task is 'inpainting', not 'edges'"
    source = posterior_source(folder, vae, "inpainting", "residual")
    assert source.differences == (
        "it has absolute heads, and model.initialisation makes residual ones",
    )
    # Under a name of their own, so that nothing takes them for what they are not.
    heads = {name for name in source.weights if "heads" in name}
    assert heads
    assert all(name.startswith("absolute_heads.") for name in heads)
