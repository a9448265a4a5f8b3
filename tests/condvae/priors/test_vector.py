from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
import zuko

from condvae.ground.configuration import ConfigurationError
from condvae.ipa import PartialEncoder
from condvae.ipa.heads import FLOWS
from condvae.priors import PRIORS, UNIVARIATES, make_prior
from condvae.priors.univariate import BINS, BOUND, SMALLEST_SLOPE

every = pytest.mark.parametrize("kind", PRIORS)
maps = pytest.mark.parametrize("kind", [kind for kind in PRIORS if kind != "mixture"])
FITTED = [kind for kind in PRIORS if kind != "standard"]
COUPLINGS = list(UNIVARIATES)
FEATURES = 3


def new_prior(kind, latents=4, **options):
    options = {"layers": 4, "hidden": 6, "components": 3} | options
    return make_prior(kind, latents, FEATURES, **options)


def make(kind, latents=4, *, scale=0.5, seed=0, dtype=torch.float64, **options):
    """A prior far from a new one: random weights, last layers and standardisation included."""
    generator = torch.Generator().manual_seed(seed)
    prior = new_prior(kind, latents, **options)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    mean = torch.randn(latents, generator=generator)
    prior.standardise(mean, 0.5 + torch.rand(latents, generator=generator))
    return prior.to(dtype)


def draw(batch, latents=4, dtype=torch.float64):
    """Latents, context and the uniform numbers that mixtures need."""
    z = 1.5 * torch.randn(batch, latents, dtype=dtype)
    return z, torch.randn(batch, FEATURES, dtype=dtype), torch.rand(batch, dtype=dtype)


@every
@pytest.mark.parametrize("latents", [1, 2, 5])
def test_shapes(kind, latents):
    prior = make(kind, latents)
    z, context, uniform = draw(7, latents)
    log_prob = prior.log_prob(z, context)
    drawn = prior.sample(z, context, 0.8, uniform)
    assert (log_prob.shape, drawn.shape) == ((7,), (7, latents))
    assert log_prob.isfinite().all()
    assert drawn.isfinite().all()


@maps
@pytest.mark.parametrize("latents", [1, 2, 5])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_inverse(kind, latents, dtype, tolerance):
    prior = make(kind, latents, scale=0.3, dtype=dtype)
    z, context, _ = draw(200, latents, dtype)
    with torch.no_grad():
        u = prior.to_base(z, context)
        if kind != "standard":
            assert (u - z).abs().max() > 0.3
        torch.testing.assert_close(prior.from_base(u, context), z, rtol=0, atol=tolerance)
        again = prior.to_base(prior.from_base(z, context), context)
    torch.testing.assert_close(again, z, rtol=0, atol=tolerance)


@maps
@pytest.mark.parametrize("latents", [1, 2, 5])
def test_log_prob_is_the_noises_and_the_jacobians(kind, latents):
    prior = make(kind, latents)
    z, context, _ = draw(4, latents)
    log_prob = prior.log_prob(z, context)
    for case in range(len(z)):
        y = context[case : case + 1]
        jacobian = torch.autograd.functional.jacobian(
            lambda value, y=y: prior.to_base(value[None], y)[0], z[case]
        )
        determinant = torch.linalg.slogdet(jacobian)
        u = prior.to_base(z[case : case + 1], y)
        normal = torch.distributions.Normal(0.0, 1.0).log_prob(u).sum()
        assert determinant.sign == 1
        assert abs(log_prob[case] - normal - determinant.logabsdet) < 1e-8


@maps
def test_a_draw_is_the_inverse_of_scaled_noise(kind):
    prior = make(kind)
    noise, context, _ = draw(5)
    for temperature in (1.0, 0.6, 0.0):
        drawn = prior.sample(noise, context, temperature)
        torch.testing.assert_close(drawn, prior.from_base(temperature * noise, context))


def make_plane(kind):
    """A prior over the plane, no Gaussian if it can, and smooth enough for the grid."""
    scale = 0.35 if kind in {"mixture", "paper"} else 0.5
    prior = make(kind, 2, scale=scale, seed=1, layers=2)
    prior.standardise(torch.tensor([0.3, -0.4]), torch.tensor([1.2, 1.0]))
    with torch.no_grad():
        for parameter in prior.gaussian[-1].parameters() if hasattr(prior, "gaussian") else ():
            parameter.mul_(0.2)
    return prior


def density(prior, context, points=241, reach=9.0):
    """Log density on a grid over the plane, as (points, points), and the area of one point."""
    line = torch.linspace(-reach, reach, points, dtype=torch.float64)
    z = torch.stack(torch.meshgrid(line, line, indexing="ij"), dim=-1).reshape(-1, 2)
    with torch.no_grad():
        log_density = prior.log_prob(z, context.expand(len(z), -1))
    return log_density.reshape(points, points), (line[1] - line[0]) ** 2


def chi_square(drawn, log_density, area, cells=40, reach=9.0):
    """Of draws in a grid of cells against what the density gives them, in standard deviations.

    Cells that expect fewer than 10 draws are merged into one.
    """
    points = len(log_density)
    assert (points - 1) % cells == 0
    width = (points - 1) // cells
    # Trapezoids: what lies on a border belongs to both sides by halves.
    kernel = torch.ones(width + 1, dtype=torch.float64)
    kernel[0] = kernel[-1] = 0.5
    mass = log_density.exp()[None, None] * area
    share = F.conv2d(mass, torch.outer(kernel, kernel)[None, None], stride=width).flatten()
    place = ((drawn + reach) / (2 * reach) * cells).floor().long().clamp(0, cells - 1)
    found = torch.bincount(place[:, 0] * cells + place[:, 1], minlength=cells**2).double()
    expected = len(drawn) * share / share.sum()
    rare = expected < 10
    found = torch.cat([found[~rare], found[rare].sum()[None]])
    expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
    freedom = len(found) - 1
    assert freedom > 10
    value = ((found - expected).square() / expected.clamp(min=1e-9)).sum()
    return ((value - freedom) / math.sqrt(2 * freedom)).item()


@every
def test_draws_follow_the_density(kind):
    """The density has mass 1, cells have their share of draws, and log p(draws) its mean."""
    prior, n = make_plane(kind), 20000
    _, context, _ = draw(1, 2)
    noise, _, uniform = draw(n, 2)
    noise = noise / 1.5
    log_density, area = density(prior, context)
    mass = log_density.exp() * area
    assert mass.sum().item() == pytest.approx(1.0, abs=5e-3)
    contexts = context.expand(n, -1)
    with torch.no_grad():
        drawn = prior.sample(noise, contexts, uniform=uniform)
        log_prob = prior.log_prob(drawn, contexts)
    # Chi square of this many degrees is nearly normal, its upper tail a little heavier.
    assert chi_square(drawn, log_density, area) < 5
    entropy = -(mass * log_density).sum() / mass.sum()
    standard_error = log_prob.std() / math.sqrt(n)
    assert abs(log_prob.mean() + entropy) < 4 * standard_error + 2e-3


@pytest.mark.parametrize("kind", [*COUPLINGS, "paper"])
def test_draws_without_the_inverse_flow_are_found_out(kind):
    """What the published sampler does, decode the base variable, fails the test above."""
    prior, n = make_plane(kind), 20000
    _, context, _ = draw(1, 2)
    contexts, noise = context.expand(n, -1), torch.randn(n, 2, dtype=torch.float64)
    log_density, area = density(prior, context)
    gaussian = make("gaussian", 2)
    gaussian.load_state_dict(prior.state_dict(), strict=False)
    with torch.no_grad():
        assert chi_square(gaussian.sample(noise, contexts), log_density, area) > 20


@pytest.mark.parametrize("kind", ["standard", "gaussian"])
def test_mean_log_density_of_draws_is_the_closed_form(kind):
    prior, n = make(kind, 3), 4000
    noise, _, _ = draw(n, 3)
    noise = noise / 1.5
    _, context, _ = draw(1, 3)
    with torch.no_grad():
        log_prob = prior.log_prob(prior.sample(noise, context.expand(n, -1)), context.expand(n, -1))
        log_std = torch.zeros(3)
        if kind == "gaussian":
            log_std = prior.gaussian(context)[0, 3:] + prior.std.log()
    entropy = 1.5 * math.log(2 * math.pi * math.e) + log_std.sum()
    # Each dimension's -u^2 / 2 has variance 1/2.
    assert abs(log_prob.mean() + entropy) < 4 * math.sqrt(1.5 / n)


@every
def test_new_priors_have_the_moments_of_the_standardisation(kind):
    prior = new_prior(kind).double()
    mean, std = torch.tensor([1.0, -2.0, 0.0, 5.0]), torch.tensor([0.1, 1.0, 2.0, 7.0])
    prior.standardise(mean, std)
    z, context, _ = draw(6)
    if kind == "standard":
        normal = torch.distributions.Normal(0.0, 1.0)
    else:
        normal = torch.distributions.Normal(mean.double(), std.double())
    if kind == "mixture":
        log_weights, components = prior.mixture(context)
        weights = log_weights.exp()[..., None]
        first = (weights * components.mean).sum(dim=1)
        second = (weights * (components.mean.square() + (2 * components.log_std).exp())).sum(dim=1)
        torch.testing.assert_close(first, torch.zeros_like(first), rtol=0, atol=1e-6)
        torch.testing.assert_close(second, torch.ones_like(second), rtol=0, atol=1e-6)
        return
    expected = normal.log_prob(z).sum(dim=1)
    torch.testing.assert_close(prior.log_prob(z, context), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", FITTED)
def test_standardisation_is_a_change_of_variables(kind):
    prior, plain = make(kind), make(kind)
    plain.standardise(torch.zeros(4), torch.ones(4))
    z, context, uniform = draw(6)
    t = (z - prior.mean) / prior.std
    expected = plain.log_prob(t, context) - prior.std.log().sum()
    torch.testing.assert_close(prior.log_prob(z, context), expected, rtol=0, atol=1e-12)
    assert (prior.log_prob(z, context) - plain.log_prob(z, context)).abs().min() > 1e-3
    drawn = plain.sample(z, context, uniform=uniform) * prior.std + prior.mean
    torch.testing.assert_close(prior.sample(z, context, uniform=uniform), drawn)


def test_the_standard_normal_stays():
    prior = make("standard")
    z, context, _ = draw(3)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(dim=1)
    torch.testing.assert_close(prior.log_prob(z, context), expected)
    assert torch.equal(prior.sample(z, context), z)
    assert torch.equal(prior.to_base(z, context), z)


@every
def test_saved_and_loaded(kind, tmp_path):
    prior = make(kind)
    torch.save(prior.state_dict(), tmp_path / "prior.pt")
    other = new_prior(kind).double()
    z, context, uniform = draw(6)
    if kind != "standard":
        assert not torch.equal(prior.log_prob(z, context), other.log_prob(z, context))
    other.load_state_dict(torch.load(tmp_path / "prior.pt", weights_only=True))
    assert torch.equal(prior.log_prob(z, context), other.log_prob(z, context))
    drawn = [one.sample(z, context, uniform=uniform) for one in (prior, other)]
    assert torch.equal(*drawn)
    assert {"mean", "std"} <= set(prior.state_dict())


@pytest.mark.parametrize("kind", FITTED)
def test_gradients_reach_every_parameter(kind):
    for of in ("density", "draws"):
        prior = make(kind)
        z, context, uniform = draw(20)
        z.requires_grad_(True)
        context.requires_grad_(True)
        if of == "density":
            prior.log_prob(z, context).sum().backward()
        else:
            prior.sample(z, context, uniform=uniform).square().sum().backward()
        for name, parameter in [*prior.named_parameters(), ("z", z), ("context", context)]:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("kind", [*COUPLINGS, "paper"])
def test_gradients_of_a_new_flow_reach_its_last_layers(kind):
    """Zeros at the end of every network still let it learn."""
    prior = new_prior(kind).double()
    z, context, _ = draw(20)
    prior.log_prob(z, context).sum().backward()
    last = {name for name, p in prior.named_parameters() if not p.any() and ".bias" not in name}
    moved = {name for name, p in prior.named_parameters() if p.grad.abs().max() > 0}
    assert len(last) == {"paper": 3}.get(kind, 5)
    assert last <= moved


@pytest.mark.parametrize("kind", COUPLINGS)
def test_no_couplings_are_the_gaussian(kind):
    gaussian, flow = make("gaussian"), make(kind, layers=0, seed=1)
    flow.load_state_dict(gaussian.state_dict())
    z, context, _ = draw(9)
    assert torch.equal(flow.log_prob(z, context), gaussian.log_prob(z, context))
    assert torch.equal(flow.sample(z, context), gaussian.sample(z, context))
    assert torch.equal(flow.to_base(z, context), gaussian.to_base(z, context))


def test_temperature_zero_is_the_mode_of_the_gaussian():
    prior = make("gaussian")
    noise, context, _ = draw(3)
    mode = prior.sample(noise, context, 0.0).detach()
    assert torch.equal(mode, prior.sample(-noise, context, 0.0))
    z = mode.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(prior.log_prob(z, context).sum(), z)
    assert slope.abs().max() < 1e-10
    assert (prior.log_prob(mode, context) > prior.log_prob(mode + 0.1, context)).all()
    near = prior.sample(noise, context, 0.5)
    torch.testing.assert_close(near - mode, 0.5 * (prior.sample(noise, context) - mode))


@pytest.mark.parametrize("kind", ["gaussian", *COUPLINGS])
def test_every_latent_depends_on_the_condition(kind):
    prior = make(kind, 5)
    z, context, _ = draw(1, 5)
    z = z.clamp(-1, 1)
    assert (prior.to_base(z, context) - prior.to_base(z, -context)).abs().min() > 1e-6


@pytest.mark.parametrize("kind", [*COUPLINGS, "paper"])
def test_shapes_depend_on_the_condition_but_not_in_the_paper(kind):
    """Mean and deviation of the Gaussian are the same for every y here: only the flow can tell."""
    prior = make(kind)
    with torch.no_grad():
        prior.gaussian[-1].weight.zero_()
    z, context, _ = draw(50)
    difference = prior.log_prob(z, context) - prior.log_prob(z, context.flip(0))
    if kind == "paper":
        assert torch.equal(difference, torch.zeros_like(difference))
    else:
        assert difference.std() > 0.1


def coupling_of_zuko(layer, kind, context):
    """A layer of ours with its weights in zuko's coupling; context (E,)."""
    kept = ~layer.transformed.flatten()

    def linear(convolution, x):
        return F.linear(x, convolution.weight[:, :, 0, 0], convolution.bias)

    def functions(x_kept):
        x = x_kept.new_zeros(len(kept))
        x[kept] = x_kept.clamp(-BOUND, BOUND)
        x = linear(layer.context, F.gelu(context)) + linear(layer.seen, x)
        x = linear(layer.last, F.gelu(linear(layer.middle, F.gelu(x))))
        x = x.reshape(len(kept), -1)[~kept]
        if kind == "additive":
            return zuko.transforms.AdditiveTransform(x[:, 0])
        if kind == "affine":
            return zuko.transforms.MonotonicAffineTransform(*x.unbind(1), slope=SMALLEST_SLOPE)
        return zuko.transforms.MonotonicRQSTransform(
            *x.split([BINS, BINS, BINS - 1], dim=1), bound=BOUND, slope=SMALLEST_SLOPE
        )

    def sums(x_kept):
        return torch.distributions.transforms.IndependentTransform(functions(x_kept), 1)

    return zuko.transforms.CouplingTransform(sums, kept)


@pytest.mark.parametrize("kind", COUPLINGS)
def test_flows_agree_with_zuko(kind):
    prior = make(kind, 5)
    z, context, _ = draw(6, 5)
    log_prob, u = prior.log_prob(z, context), prior.to_base(z, context)
    for case in range(len(z)):
        mean, log_std = prior.gaussian(context[case]).chunk(2)
        normal = torch.distributions.AffineTransform
        backwards = [
            normal(prior.mean, prior.std, event_dim=1).inv,
            normal(mean, log_std.exp(), event_dim=1).inv,
            *(coupling_of_zuko(layer, kind, context[case]) for layer in prior.flow.layers),
        ]
        base = torch.distributions.Normal(z.new_zeros(5), z.new_ones(5))
        flow = zuko.distributions.NormalizingFlow(
            zuko.transforms.ComposedTransform(*backwards),
            torch.distributions.Independent(base, 1),
        )
        torch.testing.assert_close(flow.log_prob(z[case]), log_prob[case], rtol=0, atol=1e-10)
        torch.testing.assert_close(flow.transform(z[case]), u[case], rtol=0, atol=1e-10)


@every
def test_half_precision_does_not_enter(kind):
    prior = make(kind, dtype=torch.float32)
    z, context, uniform = draw(10, dtype=torch.float32)

    def results(z, context):
        found = [prior.log_prob(z, context), prior.sample(z, context, uniform=uniform)]
        if prior.invertible:
            found += [prior.to_base(z, context), prior.from_base(z, context)]
        return found

    with torch.no_grad():
        expected = results(z, context)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = results(z, context)
        rounded = results(z.bfloat16(), context.bfloat16())
        widened = results(z.bfloat16().float(), context.bfloat16().float())
    assert all(map(torch.equal, found, expected))
    assert all(map(torch.equal, rounded, widened))
    assert all(result.dtype == torch.float32 for result in rounded)


@every
def test_a_batch_is_its_cases(kind):
    prior = make(kind)
    z, context, uniform = draw(7)
    log_prob, drawn = prior.log_prob(z, context), prior.sample(z, context, 1.0, uniform)
    for size in (1, 3):
        parts = list(zip(z.split(size), context.split(size), uniform.split(size), strict=True))
        one = torch.cat([prior.log_prob(a, b) for a, b, _ in parts])
        torch.testing.assert_close(one, log_prob, rtol=1e-12, atol=1e-12)
        one = torch.cat([prior.sample(a, b, 1.0, c) for a, b, c in parts])
        torch.testing.assert_close(one, drawn, rtol=1e-12, atol=1e-12)


def test_mixtures_have_no_base():
    prior = make("mixture")
    z, context, uniform = draw(3)
    assert prior.needs_uniform
    assert not prior.invertible
    for of in (prior.to_base, prior.from_base):
        with pytest.raises(ValueError, match="prior = 'mixture' has no base variable"):
            of(z, context)
    with pytest.raises(ValueError, match="uniform = None: a mixture chooses its components by it"):
        prior.sample(z, context)
    with pytest.raises(ValueError, match=r"uniform = of shape \(3, 1\): .* expected shape \(3,\)"):
        prior.sample(z, context, uniform=uniform[:, None])


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("splin", {}, "prior = 'splin': expected one of standard, .*did you mean 'spline'"),
        ("spline", {"layers": -1}, "flow_layers = -1: expected >= 0"),
        ("gaussian", {"hidden": 0}, "hidden = 0: expected > 0"),
        ("mixture", {"components": 0}, "components = 0: expected > 0"),
        ("gaussian", {"latents": 0}, "latents = 0: expected > 0"),
    ],
)
def test_priors_that_do_not_exist(kind, options, message):
    with pytest.raises(ConfigurationError, match=message):
        new_prior(kind, **options)


@every
def test_wrong_shapes_are_named(kind):
    prior = make(kind)
    z, context, uniform = draw(3)
    with pytest.raises(ValueError, match=r"z with shape \(3, 3\): expected \(3, 4\)"):
        prior.log_prob(z[:, :3], context)
    with pytest.raises(ValueError, match=r"context with shape \(1, 3\): expected \(3, 3\)"):
        prior.log_prob(z, context[:1])
    with pytest.raises(ValueError, match=r"noise with shape \(3, 1\)"):
        prior.sample(z[:, :1], context, uniform=uniform)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([0.0], [1.0] * 4, r"mean with shape \(1,\): expected \(4,\)"),
        ([0.0] * 4, [1.0, 1.0, 0.0, 1.0], "std = .*: expected positive values"),
        ([0.0, math.nan, 0.0, 0.0], [1.0] * 4, "mean = .*nan.*: expected finite values"),
    ],
)
@pytest.mark.parametrize("kind", ["standard", "spline"])
def test_standardisations_that_cannot_be(kind, mean, std, message):
    prior = make(kind)
    before = prior.mean.clone(), prior.std.clone()
    with pytest.raises(ValueError, match=message):
        prior.standardise(torch.tensor(mean), torch.tensor(std))
    assert torch.equal(prior.mean, before[0])
    assert torch.equal(prior.std, before[1])


def test_heads_know_every_kind_of_flow(make_vae):
    assert set(FLOWS) == set(UNIVARIATES)
    partial = PartialEncoder(make_vae(), 2, flows="1:additive,4:additive")
    assert partial.flow_kinds == "1:additive,4:additive"
