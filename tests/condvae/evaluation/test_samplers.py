import pytest
import torch

from condvae.evaluation import SAMPLER_DEFINITIONS, make_sampler, split_temperature
from condvae.ground.configuration import ConfigurationError
from condvae.ipa import ConditionalModel


@pytest.fixture
def posterior(make_posterior):
    return make_posterior()


@pytest.fixture
def observed(posterior, make_pixels):
    pixels = make_pixels(batch=3)
    mask = torch.zeros(3, 1, 16, 16, dtype=torch.bool)
    mask[:, :, :5] = True
    return pixels, posterior.observe(pixels, mask)


def weights(sampler):
    return sampler.model.latents.state_dict()


def test_ipa_is_the_posterior_itself(posterior):
    assert make_sampler("ipa", posterior, 0) is posterior


def test_all_samplers_share_the_frozen_vae_and_the_task(posterior):
    for name in SAMPLER_DEFINITIONS:
        sampler = make_sampler(name, posterior, 0)
        assert sampler.model.vae is posterior.model.vae
        assert sampler.task is posterior.task


def test_unknown_samplers_are_refused_with_those_that_exist(posterior):
    with pytest.raises(
        ConfigurationError, match=r"'priors': expected one of ipa, untrained, prior"
    ):
        make_sampler("priors", posterior, 0)


def test_the_bound_of_the_prior_has_the_rate_of_the_unconditional_model(
    posterior, observed, monkeypatch
):
    pixels, observation = observed
    prior = make_sampler("prior", posterior, 0)
    noise = {}
    rate_nats = ConditionalModel.rate_nats

    def remember_noise(self, pixels, condition, source):
        def draw(group):
            noise[group.index] = source(group)
            return noise[group.index]

        return rate_nats(self, pixels, condition, draw)

    monkeypatch.setattr(ConditionalModel, "rate_nats", remember_noise)
    bound = prior.bound(pixels, observation, seed=4)
    vae = posterior.model.vae
    with torch.no_grad():
        elbo = vae.elbo(pixels, lambda group: noise[group.index])
    torch.testing.assert_close(bound.rate_nats, elbo.rate_nats)
    torch.testing.assert_close(
        bound.negative_elbo_nats_per_dim, elbo.negative_elbo_nats / vae.contract.dimensions
    )
    assert (bound.rate_nats > 0).all()


def test_the_prior_does_not_look_at_the_observation(posterior, observed, make_pixels):
    prior = make_sampler("prior", posterior, 0)
    _, observation = observed
    other = posterior.observe(make_pixels(batch=3, seed=9), ~observation.mask)
    settings = {"seed": 1, "paste_observed": False}
    assert torch.equal(prior.sample(observation, 2, **settings), prior.sample(other, 2, **settings))
    assert not torch.equal(
        posterior.sample(observation, 2, **settings), posterior.sample(other, 2, **settings)
    )


def test_untrained_weights_depend_on_the_seed_and_on_nothing_else(posterior):
    first = make_sampler("untrained", posterior, 3)
    torch.manual_seed(1234)
    again, other = (make_sampler("untrained", posterior, seed) for seed in (3, 4))
    for name, value in weights(first).items():
        assert torch.equal(value, weights(again)[name])
    assert any(not torch.equal(v, weights(other)[n]) for n, v in weights(first).items())
    assert any(not torch.equal(v, weights(posterior)[n]) for n, v in weights(first).items())


def test_untrained_is_frozen_and_of_the_type_of_the_vae(posterior):
    partial = make_sampler("untrained", posterior, 3).model.latents
    assert not partial.training
    assert {p.requires_grad for p in partial.parameters()} == {False}
    assert {p.dtype for p in partial.parameters()} == {torch.float64}


def test_making_samplers_does_not_change_the_posterior(posterior):
    before = {name: value.clone() for name, value in weights(posterior).items()}
    for name in SAMPLER_DEFINITIONS:
        make_sampler(name, posterior, 0)
    assert all(torch.equal(value, before[name]) for name, value in weights(posterior).items())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ipa", ("ipa", 0.9)),
        ("ipa_t0.7", ("ipa", 0.7)),
        ("prior_t1", ("prior", 1.0)),
        ("untrained_t12.50", ("untrained", 12.5)),
    ],
)
def test_a_name_may_carry_a_temperature(name, expected):
    assert split_temperature(name, 0.9) == expected


@pytest.mark.parametrize("name", ["ipa_t", "ipa_t-1", "ipa_t.7", "ipa_t0.7x", "other_t0.7", ""])
def test_other_names_are_no_samplers(name):
    with pytest.raises(ConfigurationError, match="expected one of ipa, untrained, prior"):
        split_temperature(name, 1.0)
