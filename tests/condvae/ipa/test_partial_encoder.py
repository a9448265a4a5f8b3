from __future__ import annotations

import pytest
import torch

from condvae.ground.configuration import ConfigurationError
from condvae.ground.images import encoder_input
from condvae.ipa import (
    INITIALISATIONS,
    ConditionalModel,
    PartialEncoder,
    UnconditionalLatents,
    forward_kl,
    heads_for,
    initialise,
    run_trunk,
)
from condvae.tasks import Inpainting, Subject


def observe(vae, pixels, mask):
    return (
        Inpainting()
        .observe(Subject(pixels, mask), vae.contract)
        .to(vae.device, vae.dtype)
        .condition
    )


def all_observed(pixels):
    return torch.ones_like(pixels[:, :1])


def partial_of(vae, seed=3):
    torch.manual_seed(seed)
    return PartialEncoder(vae, vae.contract.channels + 1).to(vae.dtype)


def residual_of(vae, seed=3):
    torch.manual_seed(seed)
    return PartialEncoder(vae, vae.contract.channels + 1, "residual").to(vae.dtype)


@pytest.mark.parametrize("channels", [1, 3])
def test_copied_and_all_observed_gives_no_rate(make_vae, make_pixels, make_noise, channels):
    vae, pixels = make_vae(channels=channels), make_pixels(4, channels)
    partial = partial_of(vae)
    initialise(partial, vae, "copy", 0)
    # Exactly the encoder's own input, in float64, beside the mask.
    x = encoder_input(pixels, vae.contract, torch.float64)
    condition = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
    rate = forward_kl(run_trunk(vae, pixels, make_noise()), partial, condition)
    assert rate.shape == (4, len(vae.decoder.dec_blocks))
    assert rate.abs().max() <= 1e-12
    # Less than everything costs something, in every group.
    condition = observe(vae, pixels, all_observed(pixels) * 0)
    rate = forward_kl(run_trunk(vae, pixels, make_noise()), partial, condition)
    assert rate.min() > 1e-8
    assert rate.sum(dim=1).min() > 1.0


def test_copy_is_a_copy(make_vae):
    vae = make_vae()
    partial = partial_of(vae)
    initialise(partial, vae, "copy", 0)
    before = vae.encoder.enc_blocks[0].c1.weight.clone()
    with torch.no_grad():
        for parameter in partial.parameters():
            parameter.zero_()
    assert torch.equal(vae.encoder.enc_blocks[0].c1.weight, before)


def test_random_depends_on_its_seed_only(make_vae):
    vae = make_vae()
    partials = [partial_of(vae, seed) for seed in (1, 2, 3)]
    state = torch.get_rng_state()
    for partial, seed in zip(partials, (7, 7, 8), strict=True):
        initialise(partial, vae, "random", seed)
    assert torch.equal(torch.get_rng_state(), state)
    a, b, c = (torch.cat([p.flatten() for p in m.parameters()]) for m in partials)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_unknown_initialisation(make_vae):
    vae = make_vae()
    with pytest.raises(
        ConfigurationError,
        match="initialisation = 'copied': expected one of copy, random, residual",
    ):
        initialise(partial_of(vae), vae, "copied", 0)
    assert INITIALISATIONS == ("copy", "random", "residual")


def test_unknown_heads(make_vae):
    with pytest.raises(
        ConfigurationError, match="heads = 'relative': expected one of absolute, re"
    ):
        PartialEncoder(make_vae(), 2, "relative")


@pytest.mark.parametrize(
    ("how", "heads"), [("copy", "residual"), ("random", "residual"), ("residual", "absolute")]
)
def test_initialisation_for_other_heads_is_refused_and_changes_nothing(make_vae, how, heads):
    vae = make_vae()
    partial = residual_of(vae) if heads == "residual" else partial_of(vae)
    before = {name: value.clone() for name, value in partial.state_dict().items()}
    with pytest.raises(ConfigurationError, match=f"initialisation = '{how}' is for .* has {heads}"):
        initialise(partial, vae, how, 0)
    assert all(torch.equal(value, before[n]) for n, value in partial.state_dict().items())
    assert heads_for(how) != heads


@pytest.mark.parametrize("channels", [1, 3])
def test_residual_starts_as_the_prior_whatever_is_observed(
    make_vae, make_pixels, make_noise, channels
):
    vae, pixels = make_vae(channels=channels), make_pixels(4, channels)
    partial = residual_of(vae)
    initialise(partial, vae, "residual", 0)
    trunk = run_trunk(vae, pixels, make_noise(), priors=True)
    expected = vae.elbo(pixels, make_noise()).rate_nats
    assert expected.min() > 1e-3
    for mask in (all_observed(pixels), all_observed(pixels) * 0):
        condition = observe(vae, pixels, mask)
        rate = forward_kl(trunk, partial, condition)
        torch.testing.assert_close(rate, expected, rtol=0, atol=1e-9)
        model = ConditionalModel(vae, partial)
        walked, _ = model.rate_nats(pixels, condition, make_noise())
        torch.testing.assert_close(walked, expected, rtol=0, atol=1e-9)


def test_residual_is_a_copy_but_for_the_last_convolutions(make_vae):
    vae = make_vae()
    partial, copied = residual_of(vae), partial_of(vae)
    initialise(partial, vae, "residual", 0)
    initialise(copied, vae, "copy", 0)
    for (name, value), other in zip(partial.named_parameters(), copied.parameters(), strict=True):
        if name.startswith("heads") and ".c4." in name:
            assert not value.any()
            assert other.any()
        else:
            assert torch.equal(value, other), name


def test_residual_heads_add_to_the_priors_mean_and_log_std(make_vae, make_pixels, make_noise):
    vae, pixels, noise = make_vae(), make_pixels(2), make_noise()
    partial = residual_of(vae)
    features = partial.encode(observe(vae, pixels, all_observed(pixels)))

    def choose(group, h):
        c = partial.distribution(group, h, features)
        out = partial.heads[group.index](torch.cat([h, features[group.block.resolution]], dim=1))
        assert torch.equal(c.mean, group.prior.mean + out[:, :2])
        assert torch.equal(c.log_std, group.prior.log_std + out[:, 2:])
        return noise(group)

    vae.decoder.descend(choose, 2)


def test_heads_over_a_vae_with_softplus_stds_have_them_too(make_vae, make_pixels, make_noise):
    vae, pixels, noise = make_vae(latent_std="softplus"), make_pixels(2), make_noise()
    condition = observe(vae, pixels, all_observed(pixels))
    absolute, residual = partial_of(vae), residual_of(vae)

    def choose(group, h):
        for partial, start in ((absolute, 1.0), (residual, group.prior.log_std.exp())):
            features = partial.encode(condition)
            c = partial.distribution(group, h, features)
            together = torch.cat([h, features[group.block.resolution]], dim=1)
            std = start * torch.log2(1 + 2 ** partial.heads[group.index](together)[:, 2:])
            torch.testing.assert_close(c.log_std.exp(), std, rtol=1e-12, atol=1e-12)
        return noise(group)

    vae.decoder.descend(choose, 2)
    # So a copy knows all that the posterior knows, and a residual start all that the prior does.
    initialise(absolute, vae, "copy", 0)
    x = encoder_input(pixels, vae.contract, torch.float64)
    everything = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
    assert forward_kl(run_trunk(vae, pixels, noise), absolute, everything).abs().max() <= 1e-12
    initialise(residual, vae, "residual", 0)
    rate = forward_kl(run_trunk(vae, pixels, noise, priors=True), residual, condition)
    expected = vae.elbo(pixels, noise).rate_nats
    torch.testing.assert_close(rate, expected, rtol=0, atol=1e-9)


def test_wrong_number_of_condition_channels(make_vae):
    partial = partial_of(make_vae())
    with pytest.raises(ConfigurationError, match=r"condition with 1 channels: .* built for 2"):
        partial.encode(torch.zeros(1, 1, 16, 16, dtype=torch.float64))


def test_distribution_is_the_block_on_hidden_state_and_features(make_vae, make_pixels, make_noise):
    vae = make_vae()
    partial = partial_of(vae)
    pixels, noise = make_pixels(2), make_noise()
    features = partial.encode(observe(vae, pixels, all_observed(pixels)))

    def choose(group, h):
        conditional = partial.distribution(group, h, features)
        head = partial.heads[group.index]
        out = head(torch.cat([h, features[group.block.resolution]], dim=1))
        assert torch.equal(conditional.mean, out[:, :2])
        assert torch.equal(conditional.log_std, out[:, 2:])
        return noise(group)

    vae.decoder.descend(choose, 2)


def test_unconditional_latents_are_the_prior(make_vae, make_noise):
    vae, noise, latents = make_vae(), make_noise(), UnconditionalLatents()
    features = latents.encode(torch.zeros(2, 2, 16, 16))

    def choose(group, h):
        distribution = latents.distribution(group, h, features)
        assert torch.equal(distribution.mean, group.prior.mean)
        assert torch.equal(distribution.log_std, group.prior.log_std)
        return noise(group)

    vae.decoder.descend(choose, 2)


@pytest.mark.parametrize("channels", [1, 3])
def test_hidden_pixels_do_not_matter(make_posterior, make_pixels, channels):
    posterior = make_posterior(channels=channels)
    pixels, others = make_pixels(3, channels), make_pixels(3, channels, seed=5)
    mask = make_pixels(3, 1, seed=6) > 150
    changed = torch.where(mask, pixels, others)
    assert not torch.equal(pixels, changed)
    a, b = posterior.observe(pixels, mask), posterior.observe(changed, mask)
    assert torch.equal(a.condition, b.condition)
    features = [posterior.model.latents.encode(o.condition.double()) for o in (a, b)]
    assert all(torch.equal(features[0][r], features[1][r]) for r in features[0])
    for paste in (True, False):
        drawn = [posterior.sample(o, 3, paste_observed=paste) for o in (a, b)]
        assert torch.equal(*drawn)
    # One observed pixel does matter.
    where = mask[0, 0].nonzero()[0]
    changed[0, 0, where[0], where[1]] ^= 128
    c = posterior.observe(changed, mask)
    assert not torch.equal(
        posterior.sample(a, 3, paste_observed=False)[:, 0],
        posterior.sample(c, 3, paste_observed=False)[:, 0],
    )
