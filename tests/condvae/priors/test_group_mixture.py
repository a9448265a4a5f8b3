"""Mixtures after Gaussian heads, against torch's own mixture, grids and closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from condvae.ground.configuration import ConfigurationError
from condvae.ground.distributions import DiagonalGaussian
from condvae.priors import GroupMixture

CONTEXT = 3


def make_mixture(latents, *, scale=0.4, seed=0, components=4):
    """A mixture far from a Gaussian; scale 0 = a new one."""
    torch.manual_seed(seed)
    mixture = GroupMixture(latents, CONTEXT, 6, components).double()
    with torch.no_grad():
        for parameter in mixture.parameters() if scale else ():
            parameter.copy_(scale * torch.randn_like(parameter))
        if scale:  # far apart, and none of them wide
            rows = mixture.mixture.network[-1].bias.view(components, 1 + 2 * latents)
            rows[:, 1 : 1 + latents] = 1.5 * torch.randn(components, latents)
            rows[:, 1 + latents :] -= 0.7
    return mixture


def make_base(batch, latents, mean=0.4, log_std=0.1):
    shape = (batch, latents, 1, 1)
    return DiagonalGaussian(*(torch.full(shape, v, dtype=torch.float64) for v in (mean, log_std)))


def make_context(batch=1, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, CONTEXT, 1, 1, generator=generator).double().expand(batch, -1, -1, -1)


def as_torch(c, case=0):
    """The same law over z from torch's own parts."""
    mean, std = c.base.mean[case].flatten(), c.base.log_std[case].flatten().exp()
    normals = torch.distributions.Normal(
        mean + std * c.components.mean[case], std * c.components.log_std[case].exp()
    )
    return torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=c.log_weights[case]),
        torch.distributions.Independent(normals, 1),
    )


@pytest.mark.parametrize("latents", [1, 2, 5])
def test_density_is_the_textbook_mixtures(latents):
    n = 20
    context = torch.randn(n, CONTEXT, 1, 1).double()
    c = make_mixture(latents).distribution(make_base(n, latents), context)
    z = 2 * torch.randn(n, latents, 1, 1).double()
    terms = c.log_prob(z)
    assert terms.shape == z.shape
    expected = [as_torch(c, i).log_prob(z[i].flatten()) for i in range(n)]
    torch.testing.assert_close(terms.flatten(1).sum(dim=1), torch.stack(expected))
    # No Gaussian: weights and means differ from component to component and from case to case.
    assert c.log_weights.std(dim=1).min() > 0.05
    assert c.components.mean.std(dim=1).min() > 0.05
    assert c.log_weights.std(dim=0).min() > 0.05


@pytest.mark.parametrize(("latents", "points", "tolerance"), [(1, 4001, 1e-6), (2, 401, 1e-4)])
def test_density_integrates_to_one(latents, points, tolerance):
    line = torch.linspace(-20, 20, points, dtype=torch.float64)
    z = torch.cartesian_prod(*[line] * latents).reshape(-1, latents, 1, 1)
    mixture = make_mixture(latents)
    with torch.no_grad():
        c = mixture.distribution(make_base(len(z), latents), make_context(len(z)))
        mass = c.log_prob(z).flatten(1).sum(dim=1).exp().sum() * (line[1] - line[0]) ** latents
    assert mass.item() == pytest.approx(1.0, abs=tolerance)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("latents", [1, 5, 16])
def test_new_mixture_is_almost_its_gaussian(latents, seed):
    n = 4000
    mixture = make_mixture(latents, scale=0.0, seed=seed, components=8)
    context = torch.randn(n, CONTEXT, 1, 1).double()
    with torch.no_grad():
        c = mixture.distribution(make_base(n, latents), context)
        law = as_torch(c)
        torch.testing.assert_close(law.mean, torch.full_like(law.mean, 0.4), rtol=0, atol=1e-6)
        expected = torch.full_like(law.variance, math.exp(0.2))
        torch.testing.assert_close(law.variance, expected, rtol=1e-5, atol=0)
        # Whatever the context is.
        assert torch.equal(c.log_weights[0], c.log_weights[1])
        z = c.base.sample(torch.randn(n, latents, 1, 1).double())
        difference = (c.base.log_prob(z) - c.log_prob(z)).flatten(1).sum(dim=1)
        error = difference.std() / math.sqrt(n)
    assert 0 < error < 0.002 * latents
    assert difference.mean() < 0.01 * latents + 3 * error
    # The estimate of a divergence is the closed form but for this difference.
    with torch.no_grad():
        q = make_base(n, latents, -0.3, -0.8)
        z = q.sample(torch.randn(n, latents, 1, 1).double())
        gap = (c.kl_from(q, z) - c.base.kl_from(q)).flatten(1).sum(dim=1)
    assert abs(gap.mean()) < 0.02 * latents


def test_one_component_is_the_gaussian():
    mixture, context = make_mixture(3, scale=0.0, components=1), make_context(5)
    base, q = make_base(5, 3), make_base(5, 3, -0.3, -0.8)
    c, z = mixture.distribution(base, context), torch.randn(5, 3, 1, 1).double()
    torch.testing.assert_close(c.log_prob(z), base.log_prob(z), rtol=0, atol=1e-9)
    torch.testing.assert_close(c.kl_from(q, z), base.kl_from(q), rtol=0, atol=1e-9)
    torch.testing.assert_close(c.sample(z), base.sample(z), rtol=0, atol=1e-7)


def test_draws_follow_the_density():
    """First element, which decides the component, included (Kolmogorov-Smirnov, level 0.001)."""
    n = 4000
    c = make_mixture(2, seed=3).distribution(make_base(n, 2), make_context(n))
    with torch.no_grad():
        z = c.sample(torch.randn(n, 2, 1, 1).double()).flatten(1)
        law = as_torch(c)
        normals = law.component_distribution.base_dist
        for place in range(2):
            parts = torch.distributions.Normal(normals.loc[:, place], normals.scale[:, place])
            cumulated = (parts.cdf(z[:, place, None]) * law.mixture_distribution.probs).sum(dim=1)
            ranks = torch.arange(1, n + 1) / n
            assert (cumulated.sort().values - ranks).abs().max() < 1.95 / math.sqrt(n)
        # And both together: covariance, and the mean log density against that of torch's draws.
        weights, means = law.mixture_distribution.probs, normals.loc
        centred = means - weights @ means
        cross = (weights * centred[:, 0] * centred[:, 1]).sum()
        products = (z[:, 0] - law.mean[0]) * (z[:, 1] - law.mean[1])
        assert abs(cross) > 0.05
        assert abs(products.mean() - cross) < 4 * products.std() / math.sqrt(n)
        own, other = law.log_prob(z), law.log_prob(law.sample((n,)))
        error = math.hypot(own.std(), other.std()) / math.sqrt(n)
        assert abs(own.mean() - other.mean()) < 4 * error


def test_without_noise_a_draw_is_a_components_mean():
    n = 2000
    c = make_mixture(2).distribution(make_base(n, 2), make_context(n))
    with torch.no_grad():
        noise = torch.randn(n, 2, 1, 1).double()
        z = c.sample(noise, temperature=0.0).flatten(1)
        assert torch.equal(c.sample(noise, temperature=0.0).flatten(1), z)
        means = as_torch(c).component_distribution.base_dist.loc
        distances = torch.cdist(z, means)
        assert distances.min(dim=1).values.max() < 1e-9
        shares = torch.bincount(distances.argmin(dim=1), minlength=4) / n
        probs = c.log_weights[0].exp()
    assert ((shares - probs).abs() < 4 * (probs * (1 - probs) / n).sqrt()).all()


@pytest.mark.parametrize("other", ["gaussian", "mixture"])
def test_kl_estimate_is_unbiased(other):
    n, mixture = 4000, make_mixture(1, seed=1)

    def pair(size):
        c = mixture.distribution(make_base(size, 1, 0.0, 0.2), make_context(size))
        q = make_base(size, 1, 0.9, -0.7)
        return (q, c) if other == "gaussian" else (c, q)

    with torch.no_grad():
        grid = torch.linspace(-15, 15, 20001, dtype=torch.float64)[:, None, None, None]
        q, c = pair(len(grid))
        log_q, log_c = q.log_prob(grid).flatten(), c.log_prob(grid).flatten()
        exact = (log_q.exp() * (log_q - log_c)).sum() * 30 / 20000
        q, c = pair(n)
        z = q.sample(torch.randn(n, 1, 1, 1).double())
        estimate = c.kl_from(q, z).flatten()
        plain = (q.log_prob(z) - c.log_prob(z)).flatten()
    assert exact > 0.1
    assert abs(estimate.mean() - exact) < 4 * estimate.std() / math.sqrt(n)
    difference = estimate - plain
    assert difference.std() == 0 if other == "mixture" else difference.std() > 0.1


def test_floor_is_the_bases():
    mixture, context = make_mixture(2), make_context(3)
    base = make_base(3, 2, 0.4, -400.0)
    log_std = base.log_std.clone().requires_grad_(True)
    c = mixture.distribution(DiagonalGaussian(base.mean, log_std), context)
    q, z = make_base(3, 2), torch.zeros(3, 2, 1, 1).double()
    assert not c.kl_from(q, z).isfinite().all()
    terms = c.with_floor(-3.0).kl_from(q, z)
    floored = mixture.distribution(make_base(3, 2, 0.4, -3.0), context)
    torch.testing.assert_close(terms, floored.kl_from(q, z))
    terms.sum().backward()
    assert log_std.grad.abs().min() > 0


def test_extreme_noise_is_finite():
    noise = torch.tensor([-40.0, -6.0, 6.0, 40.0])[:, None, None, None].double()
    for scale in (0.0, 0.7):
        mixture = make_mixture(1, scale=scale)
        assert mixture.distribution(make_base(4, 1), make_context(4)).sample(noise).isfinite().all()


def test_half_precision_does_not_enter():
    mixture = make_mixture(2).float()
    base = DiagonalGaussian(torch.zeros(5, 2, 1, 1), torch.zeros(5, 2, 1, 1))
    context, z = torch.randn(5, CONTEXT, 1, 1), torch.randn(5, 2, 1, 1)
    with torch.no_grad():
        expected = mixture.distribution(base, context)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = mixture.distribution(base, context)
    assert torch.equal(found.log_prob(z), expected.log_prob(z))
    assert torch.equal(found.sample(z), expected.sample(z))


def test_components_come_apart_and_see_the_condition():
    """Two modes where y = 1, one where y = -1, both with the Gaussian's mean and deviation."""
    torch.manual_seed(2)
    mixture = GroupMixture(2, 1, 16)
    optimizer = torch.optim.Adam(mixture.parameters(), lr=0.01)

    def draw(n):
        y = 2.0 * torch.randint(2, (n, 1)) - 1.0
        sign = 2.0 * torch.randint(2, (n, 2)) - 1.0
        two = (sign + 0.3 * torch.randn(n, 2)) / math.sqrt(1.09)
        z = torch.where(y > 0, two, torch.randn(n, 2))
        return z[:, :, None, None], y[:, :, None, None]

    def log_prob(z, y):
        base = DiagonalGaussian(torch.zeros_like(z), torch.zeros_like(z))
        return mixture.distribution(base, y).log_prob(z).flatten(1).sum(dim=1)

    for _ in range(400):
        optimizer.zero_grad()
        (-log_prob(*draw(256)).mean()).backward()
        optimizer.step()
    with torch.no_grad():
        z, y = draw(4000)
        base = DiagonalGaussian(torch.zeros_like(z), torch.zeros_like(z))
        two = y.flatten() > 0
        # Of each element two modes of width 0.3 in a law of width sqrt(1.09).
        gain = (log_prob(z, y) - base.log_prob(z).flatten(1).sum(dim=1))[two].mean()
        assert gain.item() == pytest.approx(
            2 * (math.log(math.sqrt(1.09) / 0.3) - math.log(2)), abs=0.2
        )
        drawn = mixture.distribution(base, y).sample(torch.randn_like(z)).flatten(1)
        near = (drawn.abs() < 0.25).float().mean(dim=1)
    assert near[two].mean() < 0.06
    assert near[~two].mean().item() == pytest.approx(math.erf(0.25 / math.sqrt(2)), abs=0.05)


def test_every_weight_is_reached():
    mixture = make_mixture(3)
    base = make_base(20, 3)
    c = mixture.distribution(base, torch.randn(20, CONTEXT, 1, 1).double())
    c.log_prob(torch.randn(20, 3, 1, 1).double()).sum().backward()
    for name, parameter in mixture.named_parameters():
        assert (parameter.grad != 0).any(), name


def test_what_does_not_fit_is_refused():
    base = DiagonalGaussian(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4))
    with pytest.raises(
        ConfigurationError, match=r"latents of shape \(2, 4, 4\): a mixture expects"
    ):
        GroupMixture(2, 3, 4).distribution(base, torch.zeros(1, 3, 4, 4))
    with pytest.raises(ConfigurationError, match="components = 0"):
        GroupMixture(2, 3, 4, 0)
