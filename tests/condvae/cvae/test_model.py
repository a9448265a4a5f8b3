"""The flat model: shapes, the bound against closed forms, scores of one image whatever the batch."""

import math

import pytest
import torch
from torch import nn

from condvae.cvae.model import new_cvae
from condvae.ground.configuration import ConfigurationError
from condvae.ground.images import DataContract, encoder_input
from condvae.ground.noise import case_generator
from condvae.priors.vector import PRIORS

LIKELIHOODS = ("optimal", "learned", "fixed", "logistic_mixture")


def elbo_of(model, pixels, y, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(y), model.config.latents, generator=generator, dtype=torch.float64)
    uniform = torch.rand(pixels.shape, generator=generator, dtype=torch.float64)
    return model.elbo(pixels, y, noise, uniform, **options)


# --- shapes and what sees y ---


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_shapes_and_types(make_cvae, make_pixels, make_conditions, likelihood, channels):
    model = make_cvae(likelihood=likelihood, channels=channels, size=13, dtype=torch.float32)
    pixels, y = make_pixels(4, channels, 13), make_conditions(4)
    q = model.encode(pixels, y)
    assert q.mean.shape == q.log_std.shape == (4, 3)
    parameters = model.decode(q.mean, y)
    assert parameters.shape == (4, model.likelihood.parameter_channels, 13, 13)
    uniform = torch.rand(4, model.likelihood.noise_channels, 13, 13)
    for image in (model.mean_image(parameters), model.sample_image(parameters, uniform)):
        assert image.dtype == torch.uint8
        assert image.shape == pixels.shape
    assert model.pixel_log_prob(parameters, pixels).shape == (4,)
    assert model.prior_context(y).shape == (4, 8)
    assert model.log_prob(pixels, y, 2).dtype == torch.float64


@pytest.mark.parametrize("sees", [True, False])
def test_networks_see_y_where_they_are_to(make_cvae, make_pixels, make_conditions, sees):
    encodes = make_cvae(encoder_sees_y=sees, decoder_sees_y=not sees)
    pixels, y, other = make_pixels(4, size=8), make_conditions(4), make_conditions(4, seed=5)
    z = torch.randn(4, 3, dtype=torch.float64)
    assert torch.equal(encodes.encode(pixels, y).mean, encodes.encode(pixels, other).mean) != sees
    assert torch.equal(encodes.decode(z, y), encodes.decode(z, other)) == sees
    blind = make_cvae(encoder_sees_y=False, decoder_sees_y=False, prior="standard")
    assert blind.conditions is None
    assert blind.prior_conditions is None
    assert (blind.prior_context(y) == 0).all()


def test_wrong_images_and_counts_are_named(make_cvae, make_pixels, make_conditions):
    model = make_cvae()
    with pytest.raises(ConfigurationError, match=r"\(B, 1, 8, 8\)"):
        model.encode(make_pixels(2, size=9), make_conditions(2))
    with pytest.raises(ConfigurationError, match="3 images, 2 conditions and 3 case ids"):
        model.log_prob(make_pixels(3, size=8), make_conditions(2), 1)
    with pytest.raises(ConfigurationError, match="draws = 0"):
        model.log_prob(make_pixels(2, size=8), make_conditions(2), 0)
    with pytest.raises(ConfigurationError, match="bits = 5"):
        new_cvae(model.config, model.attributes, DataContract(1, 8, 1.0, 1.0, bits=5), 0)


def test_first_weights_depend_on_the_seed_and_not_on_prior_or_generator(make_config, make_cvae):
    attributes, contract = make_cvae().attributes, make_cvae().contract
    before = torch.get_rng_state()
    one = new_cvae(make_config(prior="spline"), attributes, contract, 3).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(7)
    two = new_cvae(make_config(prior="mixture"), attributes, contract, 3).state_dict()
    other = new_cvae(make_config(), attributes, contract, 4).state_dict()
    names = [name for name in one if name.startswith(("encoder.", "decoder.", "conditions."))]
    assert names
    assert all(torch.equal(one[name], two[name]) for name in names)
    assert not torch.equal(one["encoder.stem.weight"], other["encoder.stem.weight"])


# --- the bound ---


@pytest.mark.parametrize("discretised", [True, False])
@pytest.mark.parametrize("prior", PRIORS)
def test_a_batch_of_one_is_its_row_of_a_batch(
    make_cvae, make_pixels, make_conditions, prior, discretised
):
    model = make_cvae(prior=prior, discretised=discretised, size=9)
    pixels, y = make_pixels(5, size=9), make_conditions(5)
    noise = torch.randn(5, 3, dtype=torch.float64)
    uniform = torch.rand(5, 1, 9, 9, dtype=torch.float64)
    together = model.elbo(pixels, y, noise, uniform).negative_elbo_nats
    for b in range(5):
        row = slice(b, b + 1)
        alone = model.elbo(pixels[row], y[row], noise[row], uniform[row]).negative_elbo_nats
        torch.testing.assert_close(alone, together[row], rtol=1e-10, atol=1e-9)
    assert model.elbo(pixels[:0], y[:0], noise[:0], uniform[:0]).rate_nats.shape == (0,)


def test_the_rate_against_a_standard_normal_is_the_closed_form(
    make_cvae, make_pixels, make_conditions
):
    pixels, y = make_pixels(4, size=8), make_conditions(4)
    for model in (make_cvae(prior="standard"), make_cvae(prior="spline")):
        q = model.encode(pixels, y)
        expected = torch.distributions.kl_divergence(
            torch.distributions.Normal(q.mean, q.log_std.exp()),
            torch.distributions.Normal(0.0, 1.0),
        ).sum(dim=1)
        standard = model.config.prior == "standard"
        found = elbo_of(model, pixels, y, standard_prior=not standard).rate_nats
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("prior", ["gaussian", "mixture", "affine", "spline", "paper"])
def test_rates_agree_with_the_mean_log_ratio_of_draws(
    make_cvae, make_pixels, make_conditions, prior
):
    model = make_cvae(prior=prior)
    model.prior.standardise(torch.tensor([0.3, -0.2, 0.1]), torch.tensor([1.5, 0.7, 1.0]))
    pixels, y = make_pixels(1, size=8), make_conditions(1)
    q = model.encode(pixels, y)
    n = 4000
    noise = torch.randn(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    z = q.mean + q.log_std.exp() * noise
    ratio = q.log_prob(z).sum(dim=1) - model.prior.log_prob(z, model.prior_context(y).expand(n, -1))
    many = type(q)(q.mean.expand(n, -1), q.log_std.expand(n, -1))
    rates = model.rate(many, z, y.expand(n, -1))
    difference = rates - ratio
    assert abs(difference.mean()) < 5 * difference.std() / math.sqrt(n)
    # Of a Gaussian prior the divergence is known: no draw has a say in it.
    assert (rates.std() < 1e-9) == (prior == "gaussian")


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("prior", PRIORS)
def test_gradients_reach_every_weight(make_cvae, make_pixels, prior, likelihood):
    model = make_cvae(prior=prior, likelihood=likelihood, dtype=torch.float32)
    values = [[s, t] for s in (0.0, 1.0, 2.0, math.nan) for t in (0.4, -1.1, math.nan)]
    y = torch.tensor(values).repeat(3, 1)
    elbo_of(
        model, make_pixels(len(y), size=8), y, fit_variance=True
    ).negative_elbo_nats.sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        # A bias per channel before GELU may be out of reach by chance; a whole tensor is a defect.
        assert (parameter.grad != 0).any(), name
        assert parameter.grad.isfinite().all(), name
    embeddings = model.conditions.embeddings.grad
    assert (embeddings != 0).any(dim=1).all()


# --- importance weighting ---


class Affine(nn.Module):
    """An encoder or decoder that is linear and sees no y."""

    def __init__(self, weight, offset, shape):
        super().__init__()
        self.weight, self.offset, self.shape = weight, offset, shape
        self.stem = nn.Conv2d(1, 1, 1).double()  # gives the model its type and device

    def forward(self, values, features):
        assert features is None
        return (values.flatten(1) @ self.weight.T + self.offset).reshape(-1, *self.shape)


@pytest.fixture
def linear(make_cvae):
    """A linear-Gaussian model: x = W z + b + std * noise, p(z | y) Gaussian, q too wide by half."""
    settings = {"encoder_sees_y": False, "decoder_sees_y": False, "discretised": False}
    model = make_cvae(prior="gaussian", likelihood="fixed", fixed_std=0.3, **settings)
    generator = torch.Generator().manual_seed(4)
    columns = torch.linalg.qr(torch.randn(64, 3, generator=generator).double())[0] * 1.2
    offset = 0.2 * torch.randn(64, generator=generator).double()
    precision = 1.0 + 1.2**2 / 0.3**2  # of z given x under N(0, I): W has orthogonal columns
    # The encoder sees (x - mean) / std of the contract, the decoder gives x on [-1, 1].
    scale, shift = 60.0 / 127.5, (120.0 - 127.5) / 127.5
    weight = torch.zeros(6, 64).double()
    weight[:3] = columns.T * scale / 0.3**2 / precision
    bias = torch.zeros(6).double()
    bias[:3] = columns.T @ (shift - offset) / 0.3**2 / precision
    bias[3:] = math.log(1.5 / math.sqrt(precision))
    model.encoder = Affine(weight, bias, (6,))
    model.decoder = Affine(columns, offset, (1, 8, 8))
    return model


def closed_log_prob(model, pixels, y, seed, case_ids):
    """Nats of log p(x + u | y) per image, u the noise that dequantises."""
    context = model.prior_context(y)
    mean = model.prior.from_base(torch.zeros(len(y), 3).double(), context)
    std = model.prior.from_base(torch.ones(len(y), 3).double(), context) - mean
    weight, offset = model.decoder.weight, model.decoder.offset
    result = []
    for b, name in enumerate(case_ids):
        u = torch.rand((1, 8, 8), generator=case_generator(seed, name, "dequantisation"))
        x = (pixels[b] + u.double() - 128.0).flatten() / 127.5
        covariance = weight @ torch.diag(std[b] ** 2) @ weight.T + 0.09 * torch.eye(64).double()
        normal = torch.distributions.MultivariateNormal(weight @ mean[b] + offset, covariance)
        result.append(normal.log_prob(x) - 64 * math.log(127.5))
    return torch.stack(result)


def linear_cases(model, n=12):
    generator = torch.Generator().manual_seed(8)
    y = torch.tensor([[float(i % 3), 0.3] for i in range(n)])
    z = torch.randn(n, 3, generator=generator).double()
    x = model.decoder(z, None) + 0.3 * torch.randn(n, 1, 8, 8, generator=generator).double()
    pixels = ((x * 127.5) + 127.5).round().clamp(0, 255).to(torch.uint8)
    return pixels, y, [f"case {i}" for i in range(n)]


def test_importance_weighting_is_unbiased_for_a_linear_gaussian_model(linear):
    pixels, y, names = linear_cases(linear)
    ratios = []
    for seed in range(30):
        found = linear.log_prob(pixels, y, 40, seed=seed, case_ids=names)
        ratios.append((found - closed_log_prob(linear, pixels, y, seed, names)).exp())
    ratios = torch.stack(ratios)
    error = ratios.std() / math.sqrt(ratios.numel())
    assert error < 0.05
    assert abs(ratios.mean() - 1.0) < 4 * error


def test_many_draws_give_the_closed_form(linear):
    pixels, y, names = linear_cases(linear, 4)
    found = linear.log_prob(pixels, y, 4000, case_ids=names)
    expected = closed_log_prob(linear, pixels, y, 0, names)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.2)


def test_more_draws_give_tighter_bounds_on_average(linear):
    pixels, y, names = linear_cases(linear)
    means = []
    for k in (1, 4, 32):
        scores = [linear.log_prob(pixels, y, k, seed=s, case_ids=names) for s in range(8)]
        means.append(torch.stack(scores).mean())
    assert means[0] < means[1] < means[2]
    # One draw is the bound of `elbo`.
    with torch.no_grad():
        bounds = [-elbo_of(linear, pixels, y, s).negative_elbo_nats for s in range(40)]
    elbos = torch.stack(bounds)
    ones = torch.stack([linear.log_prob(pixels, y, 1, seed=s) for s in range(40)])
    error = math.hypot(elbos.std() / math.sqrt(480), ones.std() / math.sqrt(480))
    assert abs(elbos.mean() - ones.mean()) < 5 * error


@pytest.mark.parametrize("discretised", [True, False])
@pytest.mark.parametrize("draws", [1, 20])
def test_an_image_scores_the_same_alone_and_in_any_batch(
    make_cvae, make_pixels, make_conditions, draws, discretised
):
    model = make_cvae(discretised=discretised)
    model.likelihood.keep_std(0.1)
    pixels, y = make_pixels(7, size=8), make_conditions(7)
    together = model.log_prob(pixels, y, draws)
    for batch_size in (1, 33, 10_000):
        found = model.log_prob(pixels, y, draws, batch_size=batch_size)
        torch.testing.assert_close(found, together, rtol=0, atol=1e-9)
    for b in (0, 3, 6):
        alone = model.log_prob(pixels[b : b + 1], y[b : b + 1], draws)
        torch.testing.assert_close(alone, together[b : b + 1], rtol=0, atol=1e-9)
    assert not torch.allclose(model.log_prob(pixels, y, draws, seed=1), together)
    names = [str(b) for b in range(7)]
    assert not torch.allclose(model.log_prob(pixels, y, draws, case_ids=names), together)


def test_bits_per_dim(make_cvae):
    model = make_cvae(channels=3, size=8)
    nats = torch.tensor([-3 * 192 * math.log(2), 0.0], dtype=torch.float64)
    torch.testing.assert_close(model.bits_per_dim(nats), torch.tensor([3.0, 0.0]).double())


def test_encoders_see_the_contracts_scale(make_cvae, make_pixels):
    model = make_cvae(encoder_sees_y=False)
    pixels = make_pixels(2, size=8)
    expected = model.encoder(encoder_input(pixels, model.contract, torch.float64), None)
    found = model.encode(pixels, torch.zeros(2, 2))
    torch.testing.assert_close(torch.cat([found.mean, found.log_std], dim=1), expected)
