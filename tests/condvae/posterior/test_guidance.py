"""Guidance by both of its rules, group by group; weights 1 and 0 are c(z | y) and the prior."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from condvae.ground.configuration import ConfigurationError
from condvae.ground.distributions import DiagonalGaussian
from condvae.ipa import ConditionalModel, PartialEncoder, UnconditionalLatents
from condvae.posterior.control import draw_latents
from condvae.posterior.guidance import (
    GuidedLatents,
    extrapolate_gaussian,
    guide_gaussian,
    guide_posterior,
)
from condvae.posterior.image_posterior import ImagePosterior


def gaussian(seed, log_std):
    generator = torch.Generator().manual_seed(seed)
    shape = (2, 3, 4, 4)
    mean, spread = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return DiagonalGaussian(mean, log_std + 0.05 * spread)


@pytest.fixture
def observed(make_posterior, make_pixels):
    posterior = make_posterior()
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :9] = 1
    return posterior, posterior.observe(make_pixels(2), mask)


@pytest.mark.parametrize("weight", [0.3, 1.5, 4.0])
def test_guided_density_is_the_product_up_to_a_constant(weight):
    c, p = gaussian(0, -0.5), gaussian(1, 0.2)
    guided = guide_gaussian(c, p, weight)
    generator = torch.Generator().manual_seed(2)
    constants = []
    for _ in range(3):
        z = torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64)
        product = weight * c.log_prob(z) + (1 - weight) * p.log_prob(z)
        constants.append(product - guided.log_prob(z))
    torch.testing.assert_close(constants[0], constants[1], rtol=0, atol=1e-10)
    torch.testing.assert_close(constants[0], constants[2], rtol=0, atol=1e-10)


def law(mean, std):
    return DiagonalGaussian(torch.tensor([[[[mean]]]]), torch.tensor([[[[std]]]]).log())


def test_known_guided_law():
    # Precisions 4 and 1, weight 2: precision 2 * 4 - 1 = 7, mean (2 * 4 * 1 - 1 * 0.5) / 7.
    guided = guide_gaussian(law(1.0, 0.5), law(0.5, 1.0), 2.0)
    assert guided.mean.item() == pytest.approx(7.5 / 7)
    assert torch.exp(-2 * guided.log_std).item() == pytest.approx(7.0)


@pytest.mark.parametrize("rule", [guide_gaussian, extrapolate_gaussian])
def test_weights_one_and_zero_are_the_branches_themselves(rule):
    c, p = gaussian(0, -0.5), gaussian(1, 0.2)
    assert rule(c, p, 1.0) is c
    assert rule(c, p, 0.0) is p


@pytest.mark.parametrize(
    ("std", "mean", "variance"),
    [(0.5, 2.0, 0.25**3), (1.5, 2.0, 2.25**3)],
    ids=["narrower", "wider"],
)
def test_known_extrapolated_law(std, mean, variance):
    # Mean 0.5 + 3 * 0.5; variance 1 * (std² / 1)³. The product has no such law for the wider one.
    found = extrapolate_gaussian(law(1.0, std), law(0.5, 1.0), 3.0)
    assert found.mean.item() == pytest.approx(mean)
    assert torch.exp(2 * found.log_std).item() == pytest.approx(variance)


@pytest.mark.parametrize("weight", [0.3, 1.5, 40.0])
def test_extrapolation_is_the_published_rule_with_both_weights_one_less(weight):
    c, p = gaussian(0, 0.2), gaussian(1, -0.5)
    of_c, of_p = (torch.exp(2 * one.log_std) for one in (c, p))
    found = extrapolate_gaussian(c, p, weight)
    mean = c.mean + (weight - 1) * (c.mean - p.mean)
    variance = of_c * (of_c / of_p) ** (weight - 1)
    torch.testing.assert_close(found.mean, mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.exp(2 * found.log_std), variance, rtol=1e-10, atol=0)


def test_weight_without_a_law_is_refused_and_the_largest_is_named():
    c, p = (
        DiagonalGaussian(torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), log_std))
        for log_std in (0.5 * torch.log(torch.tensor(1.5)).item(), 0.0)
    )
    guide_gaussian(c, p, 2.99)
    with pytest.raises(ConfigurationError, match=r"guidance = 3.01: .* 1.5 times .* below 3$"):
        guide_gaussian(c, p, 3.01)


def test_weight_one_is_the_posterior_and_zero_the_prior(observed):
    posterior, y = observed
    assert guide_posterior(posterior, 1.0) is posterior
    assert guide_posterior(posterior, [1.0] * len(groups_of(posterior))) is posterior
    prior = ImagePosterior(
        ConditionalModel(posterior.model.vae, UnconditionalLatents()), posterior.task
    )
    assert torch.equal(guide_posterior(posterior, 0.0).sample(y, 2), prior.sample(y, 2))
    assert not torch.equal(posterior.sample(y, 2), prior.sample(y, 2))


def groups_of(posterior):
    return posterior.model.vae.architecture.decoder_blocks


def test_latents_without_noise_are_the_guided_means(observed):
    posterior, y = observed
    weight = 0.4
    (found, *_) = draw_latents(guide_posterior(posterior, weight), y, temperature=0.0)
    seen = {}

    def keep(group, h):
        if group.index == 0:
            features = posterior.model.latents.encode(y.condition.double())
            seen["c"] = posterior.model.latents.distribution(group, h, features)
            seen["p"] = group.prior
        return torch.zeros(group.latent_shape, dtype=torch.float64)

    with torch.no_grad():
        posterior.model.vae.decoder.descend(keep, len(y), output=False)
    precision = {name: torch.exp(-2 * law.log_std) for name, law in seen.items()}
    total = weight * precision["c"] + (1 - weight) * precision["p"]
    mean = weight * precision["c"] * seen["c"].mean + (1 - weight) * precision["p"] * seen["p"].mean
    torch.testing.assert_close(found, mean / total, rtol=1e-10, atol=1e-12)


def test_weights_by_group_take_the_first_from_y_and_the_rest_from_the_prior(observed):
    posterior, y = observed
    count = len(groups_of(posterior))
    guided = guide_posterior(posterior, [1.0, 1.0] + [0.0] * (count - 2))
    ours, theirs = (draw_latents(p, y) for p in (guided, posterior))
    assert torch.equal(ours[0], theirs[0])
    assert torch.equal(ours[1], theirs[1])
    assert not torch.equal(ours[2], theirs[2])


def test_card_says_so_and_loses_what_no_longer_holds(observed):
    posterior, _ = observed
    card = {"name": "x", "input_reference": {"draws": 1}}
    guided = guide_posterior(dataclasses.replace(posterior, card=card), 0.5)
    assert guided.card == {"name": "x", "guidance": 0.5}
    assert next(guided.to("cpu").model.latents.parameters()).dtype == torch.float64
    extrapolated = guide_posterior(posterior, 0.5, "extrapolation")
    assert extrapolated.card == {"guidance": 0.5, "guidance_rule": "extrapolation"}


def test_extrapolated_posterior_draws_where_the_product_is_refused(observed):
    posterior, y = observed
    with pytest.raises(ConfigurationError, match=r"guidance = 9.0: .* in latent group"):
        guide_posterior(posterior, 9.0).sample(y, 1)
    (found, *_) = draw_latents(guide_posterior(posterior, 9.0, "extrapolation"), y, temperature=0.0)
    (mean, *_) = draw_latents(posterior, y, temperature=0.0)
    (start, *_) = draw_latents(guide_posterior(posterior, 0.0), y, temperature=0.0)
    # The first group's prior and c(z | y) do not depend on other draws.
    torch.testing.assert_close(found, start + 9.0 * (mean - start), rtol=1e-10, atol=1e-10)


def test_unknown_rule_is_refused(observed):
    with pytest.raises(
        ConfigurationError, match=r"guidance_rule = 'sum': expected one of product, "
    ):
        guide_posterior(observed[0], 0.5, "sum")


def test_flows_are_refused_unless_their_weight_is_one(observed, make_vae):
    posterior, y = observed
    vae = posterior.model.vae
    flows = PartialEncoder(vae, 2, flows="1:affine").to(vae.dtype)
    flowing = dataclasses.replace(posterior, model=ConditionalModel(vae, flows))
    with pytest.raises(ConfigurationError, match=r"guidance = 0.5: latent group 0 .*FlowDistrib"):
        guide_posterior(flowing, 0.5).sample(y, 1)
    weights = [1.0 if block.resolution == 1 else 0.5 for block in groups_of(posterior)]
    assert guide_posterior(flowing, weights).sample(y, 1).shape[0] == 1


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (-0.5, r"guidance = -0.5: expected >= 0"),
        ([1.0, 0.5], r"guidance with 2 values: expected one number or \d+, one per latent group"),
    ],
)
def test_impossible_weights_are_refused(observed, weight, message):
    with pytest.raises(ConfigurationError, match=message):
        guide_posterior(observed[0], weight)


def test_wrapper_encodes_as_what_it_wraps(observed):
    posterior, y = observed
    latents, condition = posterior.model.latents, y.condition.double()
    found = GuidedLatents(latents, 2.0).encode(condition)
    for size, activations in latents.encode(condition).items():
        assert torch.equal(found[size], activations)
