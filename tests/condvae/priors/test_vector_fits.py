"""What the priors can fit and what they cannot, against entropies and gaps that are known."""

from __future__ import annotations

import math

import pytest
import torch

from condvae.priors import make_prior

WIDTH = 0.3


def fit(prior, draw_pairs, *, steps=100, rate=0.05):
    """Second stage: maximum likelihood on fresh draws (z, context) at every step."""
    parameters = [p for p in prior.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        (-prior.log_prob(*draw_pairs(256)).mean()).backward()
        optimizer.step()
        schedule.step()
    return prior.eval().requires_grad_(False)


def new_prior(kind, latents, features=1, **options):
    torch.manual_seed(3)
    return make_prior(kind, latents, features, **({"layers": 2, "hidden": 16} | options))


def four_modes(n):
    """Draws of q(z|x) for four x: normals of width 0.3 at the corners of a square on its tip."""
    corners = math.sqrt(2) * torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    z = corners[torch.randint(4, (n,))] + WIDTH * torch.randn(n, 2)
    return z, torch.ones(n, 1)


def log_density_of_four_modes(z):
    corners = math.sqrt(2) * torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    normal = torch.distributions.Normal(corners, WIDTH)
    return normal.log_prob(z[:, None]).sum(dim=2).logsumexp(dim=1) - math.log(4)


def test_a_flow_finds_four_modes_that_a_gaussian_smears():
    """A Gaussian loses log(1 + 1 / 0.3^2) - log 4 = 1.1 nats, a flow less than a seventh of it."""
    z, context = four_modes(4000)
    exact = log_density_of_four_modes(z).mean().item()
    gap = math.log(1 + 1 / WIDTH**2) - 2 * math.log(2)
    lost = {}
    for kind in ("gaussian", "mixture", "spline"):
        prior = fit(new_prior(kind, 2, layers=3), four_modes)
        lost[kind] = exact - prior.log_prob(z, context).mean().item()
    assert lost["gaussian"] == pytest.approx(gap, abs=0.05)
    assert lost["spline"] < 0.15
    assert lost["mixture"] < 0.05
    # Draws of the spline, judged by the true density: nothing between the modes.
    with torch.no_grad():
        drawn = prior.sample(torch.randn(4000, 2), context)
    lost_at_draws = (log_density_of_four_modes(drawn) < -6).float().mean()
    assert lost_at_draws < 0.08
    # The four have a quarter of the draws each.
    quadrant = (drawn @ torch.tensor([[1.0, 1.0], [1.0, -1.0]]) > 0).long()
    shares = torch.bincount(quadrant[:, 0] * 2 + quadrant[:, 1], minlength=4) / 4000
    torch.testing.assert_close(shares, torch.full((4,), 0.25), rtol=0, atol=0.05)


def every_dimension_twice(n):
    """Three independent dimensions, each an equal mixture of N(-1, 0.3) and N(1, 0.3)."""
    sign = 2.0 * torch.randint(2, (n, 3)) - 1.0
    return sign + WIDTH * torch.randn(n, 3), torch.ones(n, 1)


def test_every_dimension_can_have_two_modes_but_not_in_the_paper():
    # N(0, 1 + 0.3^2) has this share between the modes, the target 0.01.
    smeared = math.erf(0.3 / math.sqrt(2 * (1 + WIDTH**2)))
    assert smeared > 0.2
    for kind in ("spline", "mixture", "paper"):
        prior = fit(new_prior(kind, 3, components=30), every_dimension_twice)
        drawn = prior.sample(torch.randn(4000, 3), torch.ones(4000, 1), uniform=torch.rand(4000))
        between = (drawn.abs() < 0.3).float().mean(dim=0)
        if kind == "paper":
            # Its first half, here one dimension, is the Gaussian's; see test_published.py.
            assert between[0].item() == pytest.approx(smeared, abs=0.03)
            continue
        assert between.max() < 0.08
        shares = (drawn > 0).float().mean(dim=0)
        torch.testing.assert_close(shares, torch.full((3,), 0.5), rtol=0, atol=0.06)


def two_shapes(n):
    """Equal means, deviations and (no) correlation: two modes where y = 1, one where y = -1."""
    y = 2.0 * torch.randint(2, (n, 1)) - 1.0
    sign = 2.0 * torch.randint(2, (n, 2)) - 1.0
    two = (sign + WIDTH * torch.randn(n, 2)) / math.sqrt(1 + WIDTH**2)
    return torch.where(y > 0, two, torch.randn(n, 2)), y


@pytest.mark.parametrize("kind", ["spline", "paper"])
def test_conditions_that_differ_in_shape_only(kind):
    """The Gaussian is held at N(0, I) for both y: what tells them apart is the flow's."""
    prior = new_prior(kind, 2)
    prior.gaussian.requires_grad_(False)
    fit(prior, two_shapes)
    z, y = two_shapes(4000)
    odds = prior.log_prob(z, y) - prior.log_prob(z, -y)
    drawn = prior.sample(torch.randn(4000, 2), y)
    near = (drawn.abs() < 0.25).float().mean(dim=1)
    two, one = near[y[:, 0] > 0].mean().item(), near[y[:, 0] < 0].mean().item()
    if kind == "paper":
        assert torch.equal(odds, torch.zeros_like(odds))
        assert two == pytest.approx(one, abs=0.03)
        return
    assert odds.mean() > 0.8
    assert two < 0.08
    assert one == pytest.approx(math.erf(0.25 / math.sqrt(2)), abs=0.04)
