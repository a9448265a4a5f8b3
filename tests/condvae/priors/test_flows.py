from __future__ import annotations

import math

import pytest
import torch

from condvae.ground.configuration import ConfigurationError
from condvae.ground.distributions import DiagonalGaussian
from condvae.priors import UNIVARIATES, CouplingFlow, transformed_elements

kinds = pytest.mark.parametrize("kind", list(UNIVARIATES))
shapes = pytest.mark.parametrize("shape", [(1, 1), (5, 1), (3, 2), (2, 4)])
CONTEXT = 3


def make_flow(kind, shape, *, layers=4, scale=0.6, seed=0, dtype=torch.float64):
    """A flow far from the identity; scale 0 = a new one."""
    generator = torch.Generator().manual_seed(seed)
    flow = CouplingFlow(kind, *shape, CONTEXT, layers=layers, hidden=6)
    with torch.no_grad():
        for parameter in flow.parameters() if scale else ():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return flow.to(dtype)


def make_values(shape, batch=3, dtype=torch.float64):
    """Latents, context and a base whose deviations are 0.3 to 3."""
    z, resolution = shape
    size = (batch, z, resolution, resolution)
    base = DiagonalGaussian(torch.randn(size, dtype=dtype), 0.5 * torch.randn(size, dtype=dtype))
    context = torch.randn(batch, CONTEXT, resolution, resolution, dtype=dtype)
    return base, 1.5 * torch.randn(size, dtype=dtype), context


@kinds
@shapes
def test_log_determinant_against_the_jacobian(kind, shape):
    flow = make_flow(kind, shape)
    _, u, context = make_values(shape)
    noise, log_slopes = flow(u, context)
    assert noise.shape == log_slopes.shape == u.shape
    assert (noise - u).abs().max() > 0.1
    for case in range(len(u)):
        jacobian = torch.autograd.functional.jacobian(
            lambda value, case=case: flow(value, context[case : case + 1])[0], u[case : case + 1]
        )
        n = u[0].numel()
        expected = torch.linalg.slogdet(jacobian.reshape(n, n))
        assert expected.sign == 1
        assert abs(log_slopes[case].sum() - expected.logabsdet) < 1e-8


@kinds
@shapes
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_inverse(kind, shape, dtype, tolerance):
    flow = make_flow(kind, shape, layers=2, scale=0.25, dtype=dtype)
    _, u, context = make_values(shape, 100, dtype)
    with torch.no_grad():
        noise, log_slopes = flow(u, context)
        assert (noise - u).abs().max() > 0.1
        assert kind == "additive" or log_slopes.abs().max() > 0.3
        torch.testing.assert_close(flow.inverse(noise, context), u, rtol=0, atol=tolerance)
        again, _ = flow(flow.inverse(u, context), context)
    torch.testing.assert_close(again, u, rtol=0, atol=tolerance)


@kinds
def test_half_precision_does_not_enter(kind):
    flow = make_flow(kind, (4, 2), dtype=torch.float32)
    _, u, context = make_values((4, 2), 20, torch.float32)
    with torch.no_grad():
        expected = flow(u, context)[0], flow.inverse(u, context)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = flow(u, context)[0], flow.inverse(u, context)
            # A context that networks before made under autocast is widened.
            widened = flow(u, context.bfloat16())[0]
    assert all(map(torch.equal, found, expected))
    assert torch.equal(widened, flow(u, context.bfloat16().float())[0])


@shapes
def test_every_two_layers_transform_every_element_once(shape):
    masks = [transformed_elements(*shape, layer) for layer in range(8)]
    assert all(mask.shape == (1, shape[0], shape[1], shape[1]) for mask in masks)
    if shape == (1, 1):
        assert all(mask.all() for mask in masks)
        return
    for first, second in zip(masks[::2], masks[1::2], strict=True):
        assert torch.equal(first, ~second)


def test_halves_alternate_over_channels_and_positions():
    first = transformed_elements(4, 2, 0)[0].int().tolist()
    even, odd = [[1, 0], [0, 1]], [[0, 1], [1, 0]]
    assert first == [even, odd, even, odd]
    assert transformed_elements(4, 2, 2)[0].int().tolist() == [even, even, odd, odd]
    assert transformed_elements(5, 1, 0).flatten().int().tolist() == [1, 0, 1, 0, 1]
    assert transformed_elements(5, 1, 3).flatten().int().tolist() == [0, 0, 1, 1, 0]


@kinds
def test_a_layer_is_triangular(kind):
    """What a layer leaves alone does not change; what it changes looks at no other changed element."""
    flow = make_flow(kind, (4, 1), layers=1)
    _, u, context = make_values((4, 1), 1)
    jacobian = torch.autograd.functional.jacobian(lambda v: flow(v, context)[0], u).reshape(4, 4)
    changed = transformed_elements(4, 1, 0).flatten()
    assert torch.equal(jacobian[~changed], torch.eye(4, dtype=u.dtype)[~changed])
    block = jacobian[changed][:, changed]
    assert torch.equal(block, block.diagonal().diag())
    assert jacobian[changed][:, ~changed].abs().min() > 0


@kinds
@shapes
def test_every_element_depends_on_the_context(kind, shape):
    flow = make_flow(kind, shape, layers=2)
    _, u, context = make_values(shape, 1)
    u = u.clamp(-4, 4)
    changed = (flow(u, context)[0] - flow(u, -context)[0]).abs()
    assert changed.min() > 1e-6


@kinds
@shapes
def test_new_flow_is_its_gaussian(kind, shape):
    flow = make_flow(kind, shape, scale=0.0)
    base, z, context = make_values(shape)
    c = flow.distribution(base, context)
    for temperature in (1.0, 0.7, 0.0):
        drawn = c.sample(z, temperature)
        torch.testing.assert_close(drawn, base.sample(z, temperature), rtol=0, atol=1e-13)
    torch.testing.assert_close(c.log_prob(z), base.log_prob(z), rtol=0, atol=1e-12)
    q = make_values(shape)[0]
    torch.testing.assert_close(c.kl_from(q, z), base.kl_from(q), rtol=0, atol=1e-12)


@kinds
def test_no_layers_are_the_gaussian(kind):
    flow = make_flow(kind, (2, 4), layers=0)
    base, z, context = make_values((2, 4))
    c, q = flow.distribution(base, context), make_values((2, 4))[0]
    assert list(flow.parameters()) == []
    assert torch.equal(c.sample(z), base.sample(z))
    torch.testing.assert_close(c.log_prob(z), base.log_prob(z), rtol=0, atol=1e-14)
    torch.testing.assert_close(c.kl_from(q, z), base.kl_from(q), rtol=0, atol=1e-14)


@kinds
@shapes
def test_density_of_draws_by_change_of_variables(kind, shape):
    """Log density of a draw = that of its noise less the log-determinant of the sampling map."""
    flow = make_flow(kind, shape, layers=3)
    base, noise, context = make_values(shape, 1)
    c, n = flow.distribution(base, context), noise[0].numel()
    jacobian = torch.autograd.functional.jacobian(c.sample, noise).reshape(n, n)
    expected = -0.5 * noise.square().sum() - 0.5 * n * math.log(2 * math.pi)
    expected = expected - torch.linalg.slogdet(jacobian).logabsdet
    log_prob = c.log_prob(c.sample(noise))
    assert log_prob.shape == noise.shape
    assert abs(log_prob.sum() - expected) < 1e-8


def grid(dimensions, points, reach=12.0):
    """Points (points ** dimensions, dimensions,1,1) and the volume of one."""
    line = torch.linspace(-reach, reach, points, dtype=torch.float64)
    mesh = torch.meshgrid(*[line] * dimensions, indexing="ij")
    values = torch.stack([m.flatten() for m in mesh], dim=1)
    return values[:, :, None, None], (2 * reach / (points - 1)) ** dimensions


def density_on_grid(flow, mean, log_std, context, dimensions, points):
    z, volume = grid(dimensions, points)
    base = DiagonalGaussian(torch.full_like(z, mean), torch.full_like(z, log_std))
    with torch.no_grad():
        terms = flow.distribution(base, context.expand(len(z), -1, -1, -1)).log_prob(z)
    return z, terms.sum(dim=(1, 2, 3)), volume


@kinds
@pytest.mark.parametrize(("dimensions", "points", "tolerance"), [(1, 20001, 1e-4), (2, 201, 5e-3)])
def test_density_integrates_to_one(kind, dimensions, points, tolerance):
    flow = make_flow(kind, (dimensions, 1), layers=2)
    context = torch.randn(1, CONTEXT, 1, 1, dtype=torch.float64)
    _, log_density, volume = density_on_grid(flow, 0.4, 0.1, context, dimensions, points)
    assert (log_density.exp().sum() * volume).item() == pytest.approx(1.0, abs=tolerance)


@kinds
def test_draws_follow_the_density(kind):
    """The density's cumulative function makes draws uniform (Kolmogorov-Smirnov, level 0.001)."""
    flow, n = make_flow(kind, (1, 1), layers=2, seed=3), 4000
    context = torch.randn(1, CONTEXT, 1, 1, dtype=torch.float64)
    z, log_density, volume = density_on_grid(flow, 0.4, 0.1, context, 1, 20001)
    cumulative = (log_density.exp() * volume).cumsum(dim=0)
    shape = (n, 1, 1, 1)
    base = DiagonalGaussian(*(torch.full(shape, v, dtype=torch.float64) for v in (0.4, 0.1)))
    with torch.no_grad():
        drawn = flow.distribution(base, context.expand(n, -1, -1, -1)).sample(
            torch.randn(shape, dtype=torch.float64)
        )
    uniform = cumulative[torch.searchsorted(z.flatten(), drawn.flatten())].sort().values
    ranks = torch.arange(1, n + 1) / n
    assert (uniform - ranks).abs().max() < 1.95 / math.sqrt(n)
    # Not so for the base.
    assert (base.log_prob(drawn) - base.log_prob(base.sample(drawn))).abs().max() > 0.1


@kinds
@pytest.mark.parametrize("other", ["gaussian", "flow"])
def test_kl_estimate_is_unbiased(kind, other):
    n = 4000
    flow = make_flow(kind, (1, 1), layers=2, seed=1)
    context = torch.randn(1, CONTEXT, 1, 1, dtype=torch.float64)

    def distribution(mean, log_std, size):
        shape = (size, 1, 1, 1)
        base = DiagonalGaussian(
            *(torch.full(shape, v, dtype=torch.float64) for v in (mean, log_std))
        )
        return base, flow.distribution(base, context.expand(size, -1, -1, -1))

    def pair(size):
        q, c = distribution(0.9, -0.7, size)[0], distribution(0.0, 0.2, size)[1]
        return (q, c) if other == "gaussian" else (c, q)

    z, volume = grid(1, 20001)
    with torch.no_grad():
        q, c = pair(len(z))
        log_q, log_c = q.log_prob(z).flatten(), c.log_prob(z).flatten()
        exact = (log_q.exp() * (log_q - log_c)).sum() * volume
        q, c = pair(n)
        z = q.sample(torch.randn(n, 1, 1, 1, dtype=torch.float64))
        estimate, plain = c.kl_from(q, z).flatten(), (q.log_prob(z) - c.log_prob(z)).flatten()
    standard_error = estimate.std() / math.sqrt(n)
    assert exact > 0.1
    assert abs(estimate.mean() - exact) < 4 * standard_error
    if other == "gaussian":
        assert estimate.std() < plain.std()


def test_kl_of_a_gaussian_from_a_flow_needs_a_draw():
    base, z, context = make_values((2, 1))
    c = make_flow("affine", (2, 1)).distribution(base, context)
    with pytest.raises(ValueError, match="z = None: KL from FlowDistribution"):
        base.kl_from(c)
    terms = base.kl_from(c, z)
    torch.testing.assert_close(terms, c.log_prob(z) - base.log_prob(z))


@kinds
def test_floor_is_the_bases(kind):
    base, _, context = make_values((2, 1))
    log_std = (base.log_std - 400.0).requires_grad_(True)
    c = make_flow(kind, (2, 1)).distribution(DiagonalGaussian(base.mean, log_std), context)
    q = make_values((2, 1))[0]
    z = q.mean
    assert not c.kl_from(q, z).isfinite().all()
    terms = c.with_floor(-3.0).kl_from(q, z)
    expected = c.flow.distribution(
        DiagonalGaussian(base.mean, torch.full_like(base.mean, -3.0)), context
    ).kl_from(q, z)
    torch.testing.assert_close(terms, expected)
    terms.sum().backward()
    assert log_std.grad.abs().min() > 0


@pytest.mark.parametrize(
    ("kind", "layers", "message"),
    [("cubic", 2, "flow = 'cubic': expected one of affine, spline"), ("affine", -1, "flow_layers")],
)
def test_flows_that_do_not_exist(kind, layers, message):
    with pytest.raises(ConfigurationError, match=message):
        CouplingFlow(kind, 2, 1, CONTEXT, layers=layers, hidden=4)
