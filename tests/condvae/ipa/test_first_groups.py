"""Only the first groups are conditioned, the rest is drawn from the prior."""

from __future__ import annotations

import pytest
import torch

from condvae import load_posterior
from condvae.ground.configuration import ConfigurationError
from condvae.ipa import (
    ConditionalModel,
    PartialEncoder,
    UnconditionalLatents,
    forward_kl,
    initialise,
    run_trunk,
)
from condvae.models.folder import posterior_source, read_card, save_posterior
from condvae.models.official_layout import write_official_conditional
from condvae.posterior.image_posterior import ImagePosterior
from condvae.tasks import Inpainting, Subject

GROUPS = 5


@pytest.fixture
def setting(make_vae, make_pixels):
    """Groups at 1, 4, 4, 8, 16; a partial encoder of all and one of the first two, same weights."""
    vae, pixels = make_vae(decoder="1x1,4m1,4x1,8m4,16m8"), make_pixels(3)
    torch.manual_seed(4)
    full = PartialEncoder(vae, 2).double()
    first = PartialEncoder(vae, 2, first_groups=2).double()
    state = full.state_dict()
    first.load_state_dict({name: state[name] for name in first.state_dict()})
    mask = make_pixels(3, seed=2) > 100
    y = Inpainting().observe(Subject(pixels, mask), vae.contract).to(vae.device, vae.dtype)
    return vae, full, first, pixels, y


def test_only_the_first_groups_have_heads(setting):
    vae, full, first, _, _ = setting
    assert (full.first_groups, first.first_groups) == (None, 2)
    heads = {name.split(".")[1] for name in first.state_dict() if name.startswith("heads.")}
    assert heads == {"0", "1"}
    assert PartialEncoder(vae, 2, first_groups=GROUPS).first_groups is None
    flowing = PartialEncoder(vae, 2, flows="4:affine", first_groups=2)
    assert list(flowing.flows) == ["1"]
    with pytest.raises(ConfigurationError, match="resolution of flows = 8"):
        PartialEncoder(vae, 2, flows="8:affine", first_groups=2)
    for number in (0, 6):
        with pytest.raises(ConfigurationError, match=f"first_groups = {number}: .* 5 latent grou"):
            PartialEncoder(vae, 2, first_groups=number)


def test_trunk_stops_after_the_first_groups(setting, make_noise):
    vae, full, first, pixels, y = setting
    visited = []
    for index, block in enumerate(vae.decoder.dec_blocks):
        block.enc.register_forward_hook(lambda *_, index=index: visited.append(index))
    trunk = run_trunk(vae, pixels, make_noise(), groups=2)
    assert visited == [0, 1]
    whole = run_trunk(vae, pixels, make_noise())
    for a, b in zip(
        trunk.hidden + trunk.latents, whole.hidden[:2] + whole.latents[:2], strict=True
    ):
        assert torch.equal(a, b)
    rates = forward_kl(trunk, first, y.condition)
    expected = forward_kl(whole, full, y.condition)[:, :2]
    torch.testing.assert_close(rates, expected, rtol=0, atol=1e-12)


def test_other_groups_are_rated_by_the_prior(setting, make_noise):
    vae, full, first, pixels, y = setting
    rates = [
        ConditionalModel(vae, latents).rate_nats(pixels, y.condition, make_noise())[0]
        for latents in (first, full, UnconditionalLatents())
    ]
    torch.testing.assert_close(rates[0][:, :2], rates[1][:, :2], rtol=0, atol=1e-12)
    torch.testing.assert_close(rates[0][:, 2:], rates[2][:, 2:], rtol=0, atol=1e-12)
    assert (rates[1] - rates[2]).abs().min() > 1e-6
    trunk = run_trunk(vae, pixels, make_noise(), priors=True)
    torch.testing.assert_close(forward_kl(trunk, first, y.condition), rates[0], rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="group 2 has no head"):
        forward_kl(run_trunk(vae, pixels, make_noise()), first, y.condition)


def test_sampling_takes_the_prior_below_with_its_own_temperature(setting, make_noise):
    vae, full, first, _, y = setting
    temperature, noise = (1.0, 0.9, 0.8, 0.5, 0.0), make_noise()
    features = full.encode(y.condition)

    def choose(group, h):
        if group.index < 2:
            drawn = full.distribution(group, h, features)
            mean, std = drawn.mean, drawn.log_std.exp()
        else:
            mean, log_std = group.block.prior(h)[:, : 2 * full.heads[0].c4.out_channels // 2].chunk(
                2, 1
            )
            std = log_std.exp()
        return mean + temperature[group.index] * std * noise(group)

    expected = vae.decoder.likelihood_parameters(vae.decoder.descend(choose, 3))
    model = ConditionalModel(vae, first)
    found = model.sample_output(first.encode(y.condition), 3, make_noise(), temperature)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("how", ["copy", "random", "residual"])
def test_initialisation_fills_the_heads_there_are(setting, how):
    vae, _, _, _, _ = setting
    kind = "residual" if how == "residual" else "absolute"
    first, full = (PartialEncoder(vae, 2, kind, first_groups=k).double() for k in (2, None))
    for partial in (first, full):
        initialise(partial, vae, how, 3)
    state = full.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in first.state_dict().items())


def test_model_folder_keeps_the_number_of_groups(setting, tmp_path):
    vae, full, first, _, y = setting
    vae, first, full = vae.float(), first.float(), full.float()
    posterior = ImagePosterior(ConditionalModel(vae, first), Inpainting())
    card = save_posterior(tmp_path / "first", posterior, {})
    assert card["first_groups"] == 2
    loaded = load_posterior(tmp_path / "first")
    assert loaded.model.latents.first_groups == 2
    assert torch.equal(loaded.sample(y, 2), posterior.sample(y, 2))
    other = ImagePosterior(ConditionalModel(vae, full), Inpainting())
    # Facts may be another model's card.
    assert "first_groups" not in save_posterior(tmp_path / "full", other, card)
    assert "flows" not in read_card(tmp_path / "full")
    named = (str(tmp_path / "first"), vae, "inpainting", "absolute")
    assert posterior_source(*named, first_groups=2).differences == ()
    (difference,) = posterior_source(*named).differences
    assert difference == (
        "it conditions the first 2 groups, and model.first_groups asks for all groups"
    )
    with pytest.raises(ConfigurationError, match="partial encoder of 2 groups cannot be written"):
        write_official_conditional(tmp_path / "model.th", vae, first)
