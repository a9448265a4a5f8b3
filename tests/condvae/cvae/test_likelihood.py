"""The likelihoods behind their one interface."""

import pytest
import torch

from condvae.cvae.config import CvaeConfig
from condvae.cvae.likelihood import make_likelihood
from condvae.ground.images import DataContract, likelihood_target
from condvae.ground.likelihoods import LogisticMixture


def make(likelihood, channels, **changes):
    return make_likelihood(
        CvaeConfig(likelihood=likelihood, mixtures=4, **changes),
        DataContract(channels, 8, 1.0, 2.0),
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["optimal", "learned", "fixed", "logistic_mixture"])
def test_shapes(kind, channels, make_pixels):
    likelihood = make(kind, channels)
    pixels = make_pixels(5, channels, 8)
    parameters = torch.randn(5, likelihood.parameter_channels, 8, 8)
    uniform = torch.rand(5, likelihood.noise_channels, 8, 8)
    for fit_variance in (True, False):
        log_prob = likelihood.log_prob(parameters, pixels, fit_variance=fit_variance)
        assert log_prob.shape == (5,)
        assert (log_prob < 0).all()
    for image in (likelihood.mean_image(parameters), likelihood.sample_image(parameters, uniform)):
        assert image.dtype == torch.uint8
        assert image.shape == pixels.shape
    assert not likelihood.needs_uniform


def test_only_continuous_ones_need_uniform_noise():
    assert make("optimal", 1, discretised=False).needs_uniform


def test_a_fixed_std_is_the_one_asked_for():
    assert make("fixed", 1, fixed_std=0.25).log_std.exp().item() == pytest.approx(0.25)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_mixture_is_that_of_the_hierarchical_model_summed(channels, make_pixels):
    likelihood = make("logistic_mixture", channels)
    pixels = make_pixels(2, channels, 8)
    parameters = torch.randn(2, likelihood.parameter_channels, 8, 8).double()
    mixture = LogisticMixture(channels, 4)
    contract = DataContract(channels, 8, 1.0, 2.0)
    terms = mixture.log_prob(parameters, likelihood_target(pixels, contract, torch.float64))
    torch.testing.assert_close(likelihood.log_prob(parameters, pixels), terms.sum(dim=(1, 2)))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_mixture_mean_is_the_mean_of_its_samples(channels):
    likelihood = make("logistic_mixture", channels)
    generator = torch.Generator().manual_seed(2)
    count = likelihood.parameter_channels
    parameters = 0.3 * torch.randn(1, count, 2, 2, generator=generator, dtype=torch.float64)
    # Narrow components: hardly anything is cut off at -1 and 1.
    rest = parameters[:, 4:].view(1, channels, -1, 2, 2)
    rest[:, :, 4:8] = -3.0
    n = 20_000
    uniform = torch.rand(n, likelihood.noise_channels, 2, 2, generator=generator).double()
    samples = likelihood.sample_image(parameters.expand(n, -1, -1, -1), uniform).double()
    error = samples.std(dim=0) / n**0.5
    distance = (samples.mean(dim=0) - likelihood.mean_image(parameters)[0]).abs()
    assert (distance < 0.5 + 5 * error).all()
