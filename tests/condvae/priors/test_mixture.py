from __future__ import annotations

import math

import pytest
import torch

from condvae.ground.distributions import DiagonalGaussian
from condvae.priors.mixture import GaussianMixture


def random_mixture(latents=2, components=4, scale=0.7):
    mixture = GaussianMixture(latents, 3, components, 6).double()
    with torch.no_grad():
        for parameter in mixture.parameters():
            parameter.copy_(scale * torch.randn_like(parameter))
    return mixture


def as_torch(mixture, context):
    """The same mixture from torch's own parts."""
    log_weights, components = mixture(context)
    normals = torch.distributions.Normal(components.mean, components.log_std.exp())
    return torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=log_weights),
        torch.distributions.Independent(normals, 1),
    )


def test_density_is_the_textbook_mixtures():
    mixture = random_mixture()
    z, context = torch.randn(20, 2).double(), torch.randn(20, 3).double()
    log_weights, _ = mixture(context)
    torch.testing.assert_close(log_weights.exp().sum(dim=1), torch.ones(20).double())
    assert log_weights.std(dim=0).min() > 0.01
    expected = as_torch(mixture, context).log_prob(z)
    torch.testing.assert_close(mixture.log_prob(z, context), expected, rtol=0, atol=1e-12)


def test_uniform_numbers_choose_components_by_weight():
    mixture, n = random_mixture(), 1000
    context = torch.randn(1, 3).double().expand(n, -1)
    uniform = (torch.arange(n) + 0.5) / n
    with torch.no_grad():
        log_weights, components = mixture(context)
        drawn = mixture.sample(torch.zeros(n, 2).double(), context, uniform.double())
    # Without noise a draw is the mean of its component.
    distances = (drawn[:, None] - components.mean).norm(dim=2)
    assert distances.min(dim=1).values.max() == 0
    shares = torch.bincount(distances.argmin(dim=1), minlength=4) / n
    torch.testing.assert_close(shares.double(), log_weights[0].exp(), rtol=0, atol=1 / n)


def test_ends_of_the_unit_interval():
    mixture = random_mixture(components=3)
    context = torch.randn(2, 3).double()
    with torch.no_grad():
        _, components = mixture(context)
        uniform = torch.tensor([0.0, math.nextafter(1.0, 0.0)], dtype=torch.float64)
        drawn = mixture.sample(torch.zeros(2, 2).double(), context, uniform)
    assert torch.equal(drawn[0], components.mean[0, 0])
    assert torch.equal(drawn[1], components.mean[1, 2])


def test_moments_of_draws_are_the_closed_form():
    mixture, n = random_mixture(), 20000
    context = torch.randn(1, 3).double().expand(n, -1)
    with torch.no_grad():
        reference = as_torch(mixture, context[:1])
        drawn = mixture.sample(torch.randn(n, 2).double(), context, torch.rand(n).double())
    variance = reference.variance[0]
    assert ((drawn.mean(dim=0) - reference.mean[0]).abs() < 4 * (variance / n).sqrt()).all()
    deviations = (drawn - reference.mean[0]).square()
    standard_errors = deviations.std(dim=0) / math.sqrt(n)
    assert ((deviations.mean(dim=0) - variance).abs() < 4 * standard_errors).all()


def test_mean_log_density_of_draws_far_apart():
    """Components that do not overlap: the entropy is the weights' and the components' mean one."""
    mixture, n = GaussianMixture(1, 3, 3, 6).double(), 4000
    weights = torch.tensor([0.5, 0.3, 0.2]).double()
    with torch.no_grad():
        rows = torch.stack([weights.log(), torch.tensor([-50.0, 0.0, 50.0]), -torch.arange(3.0)], 1)
        mixture.network[-1].bias.copy_(rows.flatten())
        context = torch.randn(n, 3).double()
        drawn = mixture.sample(torch.randn(n, 1).double(), context, torch.rand(n).double())
        log_prob = mixture.log_prob(drawn, context)
    gaussians = 0.5 * math.log(2 * math.pi * math.e) - torch.arange(3.0)
    entropy = (weights * (gaussians - weights.log())).sum()
    assert abs(log_prob.mean() + entropy) < 4 * log_prob.std() / math.sqrt(n)


def test_one_component_is_a_gaussian():
    mixture = GaussianMixture(3, 3, 1, 6).double()
    z, context = torch.randn(4, 3).double(), torch.randn(4, 3).double()
    normal = DiagonalGaussian(torch.zeros(4, 3).double(), torch.zeros(4, 3).double())
    expected = normal.log_prob(z).sum(dim=1)
    torch.testing.assert_close(mixture.log_prob(z, context), expected, rtol=0, atol=1e-12)
    drawn = mixture.sample(z, context, torch.rand(4).double())
    torch.testing.assert_close(drawn, z, rtol=0, atol=1e-12)


def test_new_components_lie_apart():
    """Equal ones would get equal gradients for ever."""
    for components in (2, 10):
        mixture = GaussianMixture(2, 3, components, 6)
        _, gaussians = mixture(torch.zeros(1, 3))
        distances = torch.cdist(gaussians.mean[0], gaussians.mean[0])
        apart = distances[~torch.eye(components, dtype=torch.bool)]
        assert apart.min() > 1e-3
        # No component is a spike.
        assert gaussians.log_std.exp().min() > math.sqrt(1 - 0.9**2) - 1e-6


@pytest.mark.parametrize("far", [1e3, 1e4])
def test_density_far_out_is_finite(far):
    mixture = random_mixture().float()
    z = torch.full((1, 2), far, requires_grad=True)
    log_prob = mixture.log_prob(z, torch.zeros(1, 3))
    log_prob.sum().backward()
    assert log_prob.isfinite().all()
    assert z.grad.isfinite().all()
