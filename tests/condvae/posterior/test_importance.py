from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from condvae.ground.configuration import ConfigurationError
from condvae.ground.distributions import DiagonalGaussian
from condvae.ground.images import DataContract
from condvae.ipa.partial_encoder import initialise
from condvae.posterior.image_posterior import ImagePosterior
from condvae.posterior.importance import importance_bound
from condvae.tasks import Inpainting

SIZE = 3
# Grey levels: pixels are 100 + WEIGHTS @ z + noise of this standard deviation.
WEIGHTS = torch.linspace(-6, 9, 2 * SIZE**2, dtype=torch.float64).reshape(SIZE**2, 2)
NOISE = 8.0
# c(z1 | y) = N(y, 1.2²), c(z2 | z1, y) = N(0.8 z1 - y / 2, 0.5²), y the mean of the condition.
PRIOR = torch.tensor([[1.44, 1.152], [1.152, 0.9216 + 0.25]], dtype=torch.float64)


class LinearGaussian:
    """Two latent numbers in two groups, linear in everything: p(x~ | y) is known.

    q(z | x) is the law of z given x~ and y, moved by `shift` and its covariance times `widen`.
    """

    def __init__(self, mask, shift=0.0, widen=1.0):
        self.mask, self.shift, self.widen = mask, shift, widen
        self.device, self.dtype = torch.device("cpu"), torch.float64
        self.contract = DataContract(1, SIZE, 100.0, 10.0)
        self.architecture = SimpleNamespace(latent_dimensions=2)
        self.decoder = SimpleNamespace(descend=self.descend)
        self.batches = []
        hidden = ~mask.flatten()
        self.weights = WEIGHTS[hidden]
        self.covariance = torch.linalg.inv(
            torch.linalg.inv(PRIOR) + self.weights.T @ self.weights / NOISE**2
        )

    def posterior(self):
        return ImagePosterior(SimpleNamespace(vae=self, latents=self), Inpainting())

    def observe(self, pixels, case_ids=None):
        return self.posterior().observe(pixels, self.mask.expand(len(pixels), -1, -1, -1), case_ids)

    def summary(self, pixels):
        """y (B) of whole images."""
        return self.observe(pixels).condition.double().mean(dim=(1, 2, 3))

    def prior_mean(self, pixels):
        y = self.summary(pixels)
        return torch.stack([y, 0.3 * y], dim=1)

    def hidden_values(self, pixels):
        return pixels.double().flatten(1)[:, ~self.mask.flatten()]

    def proposal(self, pixels):
        """Mean (B,2) and covariance (2,2) of q."""
        mean = self.prior_mean(pixels)
        error = self.hidden_values(pixels) - 100 - mean @ self.weights.T
        exact = mean + error @ self.weights @ self.covariance / NOISE**2
        return exact + self.shift, self.widen * self.covariance

    def true_bits(self, pixels):
        """(B), exact -log2 p(x~ | y)."""
        mean = 100 + self.prior_mean(pixels) @ self.weights.T
        covariance = self.weights @ PRIOR @ self.weights.T
        covariance = covariance + NOISE**2 * torch.eye(len(covariance), dtype=torch.float64)
        exact = MultivariateNormal(mean, covariance)
        return -exact.log_prob(self.hidden_values(pixels)) / math.log(2)

    def slack_bits(self, pixels):
        """(B), KL from q to the law of z given x~ and y: what the bound of one draw loses."""
        mean, covariance = self.proposal(pixels)
        exact = MultivariateNormal(mean - self.shift, self.covariance)
        return kl_divergence(MultivariateNormal(mean, covariance), exact) / math.log(2)

    def encode(self, images):
        if images.dtype == torch.uint8:
            mean, covariance = self.proposal(images)
            self.q_covariance = covariance
            return {1: mean[:, :, None, None]}
        return {1: images.double().mean(dim=(1, 2, 3)).reshape(-1, 1, 1, 1)}

    def distribution(self, group, h, features):
        y = features[1]
        mean = y if group.index == 0 else 0.8 * h - y / 2
        return DiagonalGaussian(mean, torch.full_like(mean, math.log((1.2, 0.5)[group.index])))

    def descend(self, choose_z, batch_size):
        self.batches.append(batch_size)
        h, latents = torch.zeros(batch_size, 1, 1, 1, dtype=self.dtype), []
        for index in range(2):
            block = SimpleNamespace(resolution=1, posterior=(self._top, self._below)[index])
            group = SimpleNamespace(index=index, block=block, latent_shape=h.shape)
            h = choose_z(group, h)
            latents.append(h)
        return torch.cat(latents, dim=1)

    def _top(self, h, activations):
        mean = activations[:, :1]
        return DiagonalGaussian(mean, torch.full_like(mean, 0.5 * self.q_covariance[0, 0].log()))

    def _below(self, h, activations):
        (a, b), (_, d) = self.q_covariance
        mean = activations[:, 1:] + b / a * (h - activations[:, :1])
        return DiagonalGaussian(mean, torch.full_like(mean, 0.5 * (d - b * b / a).log()))

    def pixel_nats(self, output, pixels):
        mean = 100 + output[:, :, 0, 0] @ WEIGHTS.T
        log_prob = Normal(mean, NOISE).log_prob(pixels.double().flatten(1))
        return -log_prob.reshape(-1, SIZE, SIZE)


@pytest.fixture
def linear(make_pixels):
    """A function that makes the linear-Gaussian model, and images near what it expects."""
    mask = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 0, 1]], dtype=torch.bool).reshape(1, 1, 3, 3)
    pixels = 80 + make_pixels(3, 1, SIZE) // 6
    return lambda **options: (LinearGaussian(mask, **options), pixels)


def test_perfect_proposal_gives_the_exact_answer_with_one_draw(linear):
    model, pixels = linear()
    result = importance_bound(model.posterior(), pixels, model.observe(pixels), (1, 5))
    for k in (1, 5):
        torch.testing.assert_close(result.bound_bits[k], model.true_bits(pixels))
    assert result.predicted_dimensions.tolist() == [5, 5, 5]
    # The three cases are different problems.
    assert model.true_bits(pixels).diff().abs().min() > 0.1


def test_bound_converges_to_the_exact_answer(linear):
    model, pixels = linear(shift=0.3, widen=1.5)
    exact, slack = model.true_bits(pixels), model.slack_bits(pixels)
    result = importance_bound(
        model.posterior(), pixels, model.observe(pixels), (1, 10, 100, 8000), batch_size=8000
    )
    gaps = {k: bits - exact for k, bits in result.bound_bits.items()}
    # One draw loses exactly the Kullback-Leibler divergence of q. The log weights have a standard
    # deviation of 1.4 bits: four standard errors of the mean of 8000 are 0.064.
    assert slack.min() > 0.4
    torch.testing.assert_close(gaps[1], slack, rtol=0, atol=0.064)
    assert gaps[8000].abs().max() < 0.05
    # The rest of the gap falls as 1 / K; differences between K share their draws, and their noise.
    for k in (10, 100):
        assert (gaps[k] > gaps[8000]).all()
    assert (gaps[10] - gaps[8000] < 0.15 * gaps[1]).all()
    assert (gaps[100] - gaps[8000] < 0.2 * (gaps[10] - gaps[8000])).all()


def test_one_draw_is_the_bound_on_average(make_posterior, make_pixels):
    posterior, draws = make_posterior(), 400
    pixels = make_pixels(2).repeat(draws, 1, 1, 1)
    mask = (make_pixels(2, seed=3) > 128).repeat(draws, 1, 1, 1)
    observation = posterior.observe(pixels, mask)  # every repetition under a name of its own
    analytic = posterior.bound(pixels, observation).bound_bits.reshape(draws, 2)
    drawn = importance_bound(posterior, pixels, observation, (1,)).bound_bits[1].reshape(draws, 2)
    gap = drawn.mean(dim=0) - analytic.mean(dim=0)
    error = ((drawn.var(dim=0) + analytic.var(dim=0)) / draws).sqrt()
    assert (gap.abs() < 4 * error).all()
    assert (error < 0.01 * analytic.mean(dim=0)).all()
    assert not torch.allclose(drawn, analytic, rtol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_bound_against_a_computation_by_hand(make_posterior, make_pixels, monkeypatch, channels):
    posterior = make_posterior(channels=channels)
    pixels, mask = make_pixels(1, channels), make_pixels(1, 1, seed=3) > 128
    observation = posterior.observe(pixels, mask, ("one",))
    monkeypatch.setattr(
        "condvae.posterior.importance.case_generator",
        lambda seed, case_id, purpose: torch.Generator().manual_seed(int(purpose.split()[-1])),
    )
    result = importance_bound(posterior, pixels, observation, (1, 2, 3))

    vae, partial = posterior.model.vae, posterior.model.latents
    activations = vae.encode(pixels)
    features = partial.encode(observation.condition.double())
    log_weights = []
    for k in range(3):
        generator = torch.Generator().manual_seed(k)
        noise = torch.randn(vae.architecture.latent_dimensions, generator=generator).double()
        log_ratio, position = [], 0

        def choose(group, h, noise=noise, log_ratio=log_ratio):
            nonlocal position
            q, c = (
                Normal(d.mean, d.log_std.exp())
                for d in (
                    group.block.posterior(h, activations[group.block.resolution]),
                    partial.distribution(group, h, features),
                )
            )
            part = noise[position : position + q.mean.numel()].reshape(q.mean.shape)
            position += q.mean.numel()
            z = q.mean + q.stddev * part
            log_ratio.append((c.log_prob(z) - q.log_prob(z)).sum())
            return z

        parameters = vae.decoder.likelihood_parameters(vae.decoder.descend(choose, 1))
        log_prob = vae.likelihood.log_prob(parameters, (pixels.double() - 127.5) / 127.5)
        log_weights.append(sum(log_ratio) + log_prob[~mask[:, 0]].sum())
    a, b, c = log_weights
    expected = {
        1: (a + b + c) / 3,
        2: torch.logaddexp(a, b) - math.log(2),  # the third draw fills no group
        3: torch.logsumexp(torch.stack([a, b, c]), 0) - math.log(3),
    }
    for k, value in expected.items():
        assert result.bound_bits[k].item() == pytest.approx(-value.item() / math.log(2), rel=1e-11)
    assert result.predicted_dimensions.tolist() == [channels * int((~mask).sum())]


def test_nothing_is_to_be_said_when_all_is_observed(make_posterior, make_pixels):
    posterior, pixels = make_posterior(), make_pixels(2)
    initialise(posterior.model.latents, posterior.model.vae, "copy", 0)
    observation = posterior.observe(pixels, torch.ones(2, 1, 16, 16))
    result = importance_bound(posterior, pixels, observation, (1, 4))
    # x~ is empty and c equals q, up to the condition's single precision.
    for bits in result.bound_bits.values():
        torch.testing.assert_close(bits, torch.zeros_like(bits), rtol=0, atol=1e-5)
    assert result.predicted_dimensions.tolist() == [0, 0]


def test_more_draws_never_loosen_the_bound_of_a_case(make_posterior, make_pixels):
    posterior, pixels = make_posterior(), make_pixels(3)
    observation = posterior.observe(pixels, make_pixels(3, seed=7) > 140)
    result = importance_bound(posterior, pixels, observation, (12, 1, 3))
    assert list(result.bound_bits) == [1, 3, 12]
    one, three, twelve = result.bound_bits.values()
    assert (one > three).all()
    assert (three > twelve).all()
    assert one.dtype == torch.float64


@pytest.mark.parametrize(
    ("rows", "batch_size"), [((0, 1, 2), 1), ((0, 1, 2), 4), ((2, 0), 256), ((1,), 2)]
)
def test_draws_belong_to_the_case(make_posterior, make_pixels, rows, batch_size):
    posterior, pixels, mask = make_posterior(), make_pixels(3), make_pixels(3, seed=7) > 140

    def bound(rows, draws=(1, 5), **options):
        rows = list(rows)
        names = tuple(f"case-{row}" for row in rows)
        observation = posterior.observe(pixels[rows], mask[rows], names)
        return importance_bound(posterior, pixels[rows], observation, draws, **options)

    state = torch.get_rng_state()
    whole, part = bound((0, 1, 2)), bound(rows, batch_size=batch_size)
    assert torch.equal(torch.get_rng_state(), state)
    for k in (1, 5):
        expected = whole.bound_bits[k][list(rows)]
        torch.testing.assert_close(part.bound_bits[k], expected, rtol=1e-9, atol=1e-9)
    other = bound(rows, seed=1)
    assert ((other.bound_bits[1] - part.bound_bits[1]).abs() > 1e-6).all()
    # More draws start with the same ones: five of ten are the first of two groups.
    first, both = bound(rows).bound_bits[5], bound(rows, (5, 10)).bound_bits[5]
    assert not torch.equal(first, both)
    torch.testing.assert_close(bound(rows, (5, 9)).bound_bits[5], first, rtol=1e-9, atol=1e-9)


def test_cases_draw_different_noise(make_posterior, make_pixels):
    posterior, pixels = make_posterior(), make_pixels(1).repeat(2, 1, 1, 1)
    observation = posterior.observe(pixels, torch.zeros(2, 1, 16, 16), ("a", "b"))
    a, b = importance_bound(posterior, pixels, observation, (1,)).bound_bits[1]
    assert a != b


def test_single_precision_is_close_to_double(make_posterior, make_pixels):
    pixels, mask = make_pixels(3), make_pixels(3, seed=7) > 140
    single, double = (
        importance_bound(p, pixels, p.observe(pixels, mask), (1, 4)).bound_bits
        for p in (make_posterior(dtype=torch.float32), make_posterior())
    )
    for k in (1, 4):
        torch.testing.assert_close(single[k], double[k], rtol=1e-5, atol=0)


def test_no_batch_is_larger_than_allowed(linear):
    model, pixels = linear(widen=2.0)
    importance_bound(model.posterior(), pixels, model.observe(pixels), (7,), batch_size=2)
    assert max(model.batches) == 2
    assert sum(model.batches) == 21


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws": ()}, r"draws = \(\): expected at least one whole number"),
        ({"draws": (1, 0)}, r"draws = \(1, 0\): expected"),
        ({"draws": (1.5,)}, r"draws = \(1.5,\): expected"),
        ({"batch_size": 0}, "batch_size = 0"),
    ],
)
def test_bad_values_are_refused(linear, options, message):
    model, pixels = linear()
    with pytest.raises(ConfigurationError, match=message):
        importance_bound(model.posterior(), pixels, model.observe(pixels), **options)


def test_other_images_are_refused(linear, make_pixels):
    model, pixels = linear()
    with pytest.raises(ConfigurationError, match="2 images for 3 observations"):
        importance_bound(model.posterior(), pixels[:2], model.observe(pixels))
    with pytest.raises(ConfigurationError, match=r"shape \(3, 1, 8, 8\)"):
        importance_bound(model.posterior(), make_pixels(3, 1, 8), model.observe(pixels))


def test_running_out_of_memory_names_the_parameter(linear):
    model, pixels = linear()

    def no_memory(*_):
        raise torch.OutOfMemoryError("out of memory")

    model.decoder.descend = no_memory
    with pytest.raises(ConfigurationError, match=r"sampling\.batch_size = 8; lower it"):
        importance_bound(model.posterior(), pixels, model.observe(pixels), batch_size=8)
