"""What flow heads can fit and Gaussians cannot, through the library's own objective."""

from __future__ import annotations

import math
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from condvae.ground.distributions import DiagonalGaussian
from condvae.ipa import forward_kl, run_trunk
from condvae.priors import CouplingFlow

SYSTEM = Path(__file__).parents[1] / "calibration" / "linear_gaussian.py"
LinearGaussian = runpy.run_path(str(SYSTEM))["LinearGaussian"]


def minimise(loss, parameters, steps):
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=steps,
        tolerance_grad=1e-9,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)
    with torch.no_grad():
        return loss().item()


def correlated_posterior(correlation):
    """Exact posterior N(0, covariance), unit variances, as a function of z (N,2,1,1)."""
    covariance = torch.tensor([[1.0, correlation], [correlation, 1.0]], dtype=torch.float64)
    exact = torch.distributions.MultivariateNormal(covariance.new_zeros(2), covariance)
    # Noise whose mean and covariance are exactly 0 and 1: all that quadratic log densities see.
    points = math.sqrt(2) * torch.cat([torch.eye(2), -torch.eye(2)]).double()
    return exact, points


@pytest.mark.parametrize("correlation", [0.0, 0.6, -0.9])
@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_what_a_diagonal_gaussian_makes_of_a_correlated_group(direction, correlation):
    """Forward KL keeps the marginal deviations, reverse KL gives the conditional ones."""
    exact, points = correlated_posterior(correlation)
    mean = torch.full((1, 2, 1, 1), 0.5, dtype=torch.float64, requires_grad=True)
    log_std = torch.zeros(1, 2, 1, 1, dtype=torch.float64, requires_grad=True)
    noise = points[:, :, None, None]
    draws = (points @ exact.scale_tril.T)[:, :, None, None]

    def loss():
        c = DiagonalGaussian(mean, log_std)
        if direction == "forward":
            return -c.log_prob(draws).flatten(1).sum(dim=1).mean()
        z = c.sample(noise)
        return (c.log_prob(z).flatten(1).sum(dim=1) - exact.log_prob(z.flatten(1))).mean()

    minimise(loss, [mean, log_std], 100)
    expected = 1.0 if direction == "forward" else math.sqrt(1 - correlation**2)
    torch.testing.assert_close(log_std.exp(), torch.full_like(log_std, expected), rtol=1e-6, atol=0)
    torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-6)


def pair_system():
    """One two-dimensional group; its latents are nearly anti-correlated given their noisy sum."""
    loadings = np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, -1.0]])
    return LinearGaussian(loadings, np.eye(2), 0.5, [2], seen=1)


@pytest.mark.parametrize("kind", ["affine", "spline"])
def test_flow_recovers_the_exact_posterior_of_a_correlated_group(kind):
    system = pair_system()
    gain, covariance = system.posterior(system.seen)
    model = system.train()
    _, x = system.draw(np.random.default_rng(0), 1000)
    x = torch.from_numpy(x)
    condition = x[:, : system.seen, None, None]

    def normals(group):
        return torch.randn(group.latent_shape, dtype=torch.float64)

    trunk = run_trunk(model.vae, x, normals)
    torch.manual_seed(1)
    # Context: two latents' worth of hidden state (empty here) and the one value that is seen.
    flow = CouplingFlow(kind, 2, 1, 2 + 1, layers=2, hidden=8).double()
    before = forward_kl(trunk, model.latents, condition).sum(dim=1).mean().item()
    model.latents.flows["0"] = flow
    start = forward_kl(trunk, model.latents, condition).sum(dim=1).mean().item()
    assert start == pytest.approx(before, abs=1e-12)
    after = minimise(
        lambda: forward_kl(trunk, model.latents, condition).sum(dim=1).mean(),
        list(model.latents.parameters()),
        60,
    )
    # A diagonal Gaussian loses exactly the mutual information of the two latents given y.
    correlation = covariance[0, 1] / covariance[0, 0]
    lost = -0.5 * math.log(1 - correlation**2)
    assert correlation == pytest.approx(-0.8)
    assert start - after == pytest.approx(lost, abs=0.06)

    n = 20000
    y = torch.tensor([-1.0, 0.0, 1.5], dtype=torch.float64)
    with torch.no_grad():
        features = {1: y.repeat(n)[:, None, None, None]}
        h = torch.zeros(3 * n, 2, 1, 1, dtype=torch.float64)
        c = model.latents.conditional(0, h, features[1])
        z = c.sample(torch.randn(3 * n, 2, 1, 1, dtype=torch.float64)).reshape(n, 3, 2).numpy()
    for case, value in enumerate(y.tolist()):
        draws = z[:, case]
        np.testing.assert_allclose(draws.mean(axis=0), value * gain[:, 0], atol=0.1)
        deviations = np.sqrt(np.diag(covariance))
        np.testing.assert_allclose(draws.std(axis=0), deviations, rtol=0.1)
        assert np.corrcoef(draws.T)[0, 1] == pytest.approx(correlation, abs=0.04)


def two_modes(n):
    """Draws (n,1,1,1) of an equal mixture of N(-1, 0.3) and N(1, 0.3), and their mean log density."""
    sign = torch.where(torch.rand(n, dtype=torch.float64) < 0.5, -1.0, 1.0)
    z = sign + 0.3 * torch.randn(n, dtype=torch.float64)
    modes = [DiagonalGaussian(torch.tensor(m), torch.tensor(math.log(0.3))) for m in (-1.0, 1.0)]
    logs = torch.stack([mode.log_prob(z) for mode in modes])
    return z[:, None, None, None], (logs.logsumexp(dim=0) - math.log(2)).mean().item()


def test_spline_fits_two_modes_and_a_gaussian_does_not():
    z, exact = two_modes(2000)
    fresh, exact_fresh = two_modes(2000)
    mean = torch.zeros(1, 1, 1, 1, dtype=torch.float64, requires_grad=True)
    log_std = torch.zeros(1, 1, 1, 1, dtype=torch.float64, requires_grad=True)
    context = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    flows = {
        name: CouplingFlow(kind, 1, 1, 1, layers=layers, hidden=8).double()
        for name, kind, layers in (("none", "spline", 0), ("affine", "affine", 1))
    } | {"spline": CouplingFlow("spline", 1, 1, 1, layers=1, hidden=8).double()}
    lost = {}
    for name, flow in flows.items():
        with torch.no_grad():
            mean.zero_()
            log_std.zero_()

        def log_prob(values, flow=flow):
            shape = values.shape
            base = DiagonalGaussian(mean.expand(shape), log_std.expand(shape))
            return flow.distribution(base, context.expand(shape)).log_prob(values).mean()

        minimise(lambda log_prob=log_prob: -log_prob(z), [mean, log_std, *flow.parameters()], 60)
        with torch.no_grad():
            lost[name] = exact_fresh - log_prob(fresh).item()
    # A Gaussian of the same moments: half the log of the variances' ratio, and the two modes' bit.
    moments = 0.5 * math.log(2 * math.pi * math.e * 1.09)
    assert lost["none"] == pytest.approx(moments + exact, abs=0.1)
    assert lost["affine"] == pytest.approx(lost["none"], abs=1e-3)
    assert lost["spline"] < 0.05
    base = DiagonalGaussian(mean.expand(4000, 1, 1, 1), log_std.expand(4000, 1, 1, 1))
    with torch.no_grad():
        drawn = (
            flows["spline"]
            .distribution(base, context.expand(4000, 1, 1, 1))
            .sample(torch.randn(4000, 1, 1, 1, dtype=torch.float64))
        )
    assert (drawn.abs() < 0.3).double().mean() < 0.05
    assert (drawn > 0).double().mean().item() == pytest.approx(0.5, abs=0.06)


def test_the_shape_depends_on_the_condition():
    """Two modes where y = 1, one where y = -1, with base parameters that know nothing of y."""
    z, _ = two_modes(1000)
    one = 0.5 * torch.randn_like(z)
    y = torch.cat([torch.ones_like(z), -torch.ones_like(z)])
    values = torch.cat([z, one])
    base = DiagonalGaussian(torch.zeros_like(values), torch.zeros_like(values))
    torch.manual_seed(2)
    flow = CouplingFlow("spline", 1, 1, 1, layers=1, hidden=8).double()
    minimise(
        lambda: -flow.distribution(base, y).log_prob(values).mean(), list(flow.parameters()), 60
    )
    with torch.no_grad():
        drawn = flow.distribution(base, y).sample(torch.randn_like(values)).flatten()
    near_zero = (drawn.abs() < 0.3).double()
    assert near_zero[:1000].mean() < 0.06
    assert near_zero[1000:].mean().item() == pytest.approx(math.erf(0.6 / math.sqrt(2)), abs=0.08)
