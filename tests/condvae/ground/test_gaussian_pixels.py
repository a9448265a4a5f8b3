"""Normals on the grey levels, against high precision, quadrature, closed forms and counts."""

import math

import mpmath
import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

from condvae.ground.configuration import ConfigurationError
from condvae.ground.gaussian_pixels import LEVEL, SMALLEST_STD, GaussianPixels, log_bin_probability

LEVELS = torch.arange(256, dtype=torch.float64)
GRID = (LEVELS - 127.5) / 127.5
STDS = (SMALLEST_STD, 0.013, 0.02, 0.1, 0.5, 2.0)


def log_std(value, dtype=torch.float64):
    return torch.tensor(math.log(value), dtype=dtype)


def make_case(batch=3, channels=2, size=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shape = batch, channels, size, size
    mean = 0.8 * torch.randn(shape, generator=generator, dtype=dtype)
    pixels = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    uniform = torch.rand(shape, generator=generator, dtype=dtype)
    return mean, pixels, uniform


# --- grey levels ---


@pytest.mark.parametrize("std", STDS)
@pytest.mark.parametrize("mean", [-1.6, -1.0, -0.3, 0.0021, 0.99, 2.0])
def test_probabilities_of_the_levels_sum_to_one(std, mean):
    terms = log_bin_probability(torch.full_like(GRID, mean), GRID, log_std(std))
    assert terms.exp().sum().item() == pytest.approx(1.0, abs=2e-7)


@pytest.mark.parametrize("std", STDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 2e-7), (torch.float32, 3e-6)])
def test_against_high_precision_also_far_out(std, dtype, tolerance):
    for mean in (-1.3, 0.1, 0.9):
        terms = log_bin_probability(
            torch.full((256,), mean, dtype=dtype), GRID.to(dtype), log_std(std, dtype)
        )
        for level in (0, 1, 100, 128, 141, 254, 255):
            with mpmath.workdps(60):
                middle = (mpmath.mpf(level) - 127.5) / 127.5
                edges = [(middle + sign / mpmath.mpf(255) - mean) / std for sign in (-1, 1)]
                lower = -mpmath.inf if level == 0 else edges[0]
                upper = mpmath.inf if level == 255 else edges[1]
                if lower + upper > 0:  # the tail without cancellation
                    lower, upper = -upper, -lower
                expected = float(mpmath.log(mpmath.ncdf(upper) - mpmath.ncdf(lower)))
            assert terms[level].item() == pytest.approx(expected, rel=tolerance, abs=tolerance)


def test_gradients_against_finite_differences():
    mean = torch.tensor([-1.2, -0.99, 0.0, 0.31, 0.7, 1.4], dtype=torch.float64)
    target = GRID[[0, 3, 127, 168, 200, 255]]
    for std in (0.01, 0.05, 0.4):
        inputs = mean.clone().requires_grad_(), target, log_std(std).requires_grad_()
        assert gradcheck(log_bin_probability, inputs, atol=1e-4)


@pytest.mark.parametrize("std", [SMALLEST_STD, 0.1, 1.0])
def test_gradients_are_finite_everywhere_in_single_precision(std):
    mean = torch.linspace(-3, 3, 601).requires_grad_()
    scale = log_std(std, torch.float32).requires_grad_()
    for level in (0, 1, 128, 254, 255):
        terms = log_bin_probability(mean, torch.full((601,), float(GRID[level])), scale)
        gradients = torch.autograd.grad(terms.sum(), (mean, scale))
        assert all(values.isfinite().all() for values in (terms, *gradients))


def test_the_density_integrated_over_a_bin_is_its_probability():
    continuous = GaussianPixels("fixed", discretised=False, std=0.02).double()
    discretised = GaussianPixels("fixed", std=0.02).double()
    pixels = torch.full((2000, 1, 1, 1), 120, dtype=torch.uint8)
    mean = torch.full((2000, 1, 1, 1), -0.07, dtype=torch.float64)
    uniform = ((torch.arange(2000, dtype=torch.float64) + 0.5) / 2000).reshape(-1, 1, 1, 1)
    densities = continuous.log_prob(mean, pixels, uniform)
    expected = discretised.log_prob(mean[:1], pixels[:1])
    assert densities.logsumexp(0).item() - math.log(2000) == pytest.approx(
        expected.item(), abs=1e-6
    )
    assert densities.mean().item() < expected.item()  # a bound in expectation


# --- continuous ---


def test_the_density_is_that_of_a_normal_with_the_unit_changed():
    mean, pixels, uniform = make_case()
    found = (
        GaussianPixels("fixed", discretised=False, std=0.3).double().log_prob(mean, pixels, uniform)
    )
    target = (pixels + uniform - 0.5 - 127.5) / 127.5
    on_unit_range = torch.distributions.Normal(mean, 0.3).log_prob(target).flatten(1).sum(dim=1)
    bits = -on_unit_range / (50 * math.log(2)) + math.log2(127.5)
    torch.testing.assert_close(-found / (50 * math.log(2)), bits)


def test_pixels_are_dequantised_or_refused():
    mean, pixels, _ = make_case()
    with pytest.raises(ValueError, match="uniform = None"):
        GaussianPixels(discretised=False).log_prob(mean, pixels)


@pytest.mark.parametrize("discretised", [True, False])
def test_log_likelihoods_are_sums_over_pixels(discretised):
    likelihood = GaussianPixels("fixed", discretised=discretised, std=0.4).double()
    case = make_case()
    once = likelihood.log_prob(*case)
    four_times = likelihood.log_prob(*(values.repeat(1, 1, 2, 2) for values in case))
    torch.testing.assert_close(four_times, 4 * once)
    assert once.shape == (3,)


# --- the variance ---


def test_optimal_std_gives_the_closed_form_and_the_gradient_of_the_envelope():
    likelihood = GaussianPixels("optimal", discretised=False).double()
    mean, pixels, uniform = make_case()
    mean.requires_grad_()
    dimensions = mean[0].numel()
    loss = -likelihood.log_prob(mean, pixels, uniform, fit_variance=True).mean()
    (gradient,) = torch.autograd.grad(loss, mean)
    error = (mean - likelihood.target(pixels, mean.dtype, uniform)).square().mean()
    closed = dimensions * (0.5 * (torch.log(2 * math.pi * error) + 1) - math.log(LEVEL))
    torch.testing.assert_close(loss, closed)
    (envelope,) = torch.autograd.grad(dimensions * error / (2 * error.detach()), mean)
    torch.testing.assert_close(gradient, envelope)


def test_no_other_std_fits_the_batch_better():
    case = make_case()
    optimal = GaussianPixels("optimal", discretised=False).double()
    best = optimal.log_prob(*case, fit_variance=True).sum()
    error = (case[0] - optimal.target(case[1], torch.float64, case[2])).square().mean()
    for factor in (0.9, 0.99, 1.01, 1.1):
        other = GaussianPixels("fixed", discretised=False, std=factor * math.sqrt(error)).double()
        assert other.log_prob(*case).sum() < best


@pytest.mark.parametrize("discretised", [True, False])
def test_an_image_scores_the_same_alone_and_in_any_batch(discretised):
    likelihood = GaussianPixels("optimal", discretised=discretised).double()
    likelihood.keep_std(0.09)
    case = make_case(batch=4)
    together = likelihood.log_prob(*case)
    for b in range(4):
        assert torch.equal(likelihood.log_prob(*(v[b : b + 1] for v in case)), together[b : b + 1])
    # What scoring must not do: the batch's own std makes an image's score depend on the others.
    fitted = likelihood.log_prob(*case, fit_variance=True)
    alone = likelihood.log_prob(*(v[:1] for v in case), fit_variance=True)
    assert not torch.isclose(fitted[0], alone[0])


def test_the_kept_std_is_what_scores_and_is_saved():
    likelihood = GaussianPixels("optimal").double()
    likelihood.keep_std(0.0625)
    case = make_case()
    fixed = GaussianPixels("fixed", std=0.25).double()
    torch.testing.assert_close(likelihood.log_prob(*case), fixed.log_prob(*case), rtol=1e-6, atol=0)
    copy = GaussianPixels("optimal").double()
    copy.load_state_dict(likelihood.state_dict())
    assert torch.equal(copy.log_prob(*case), likelihood.log_prob(*case))
    fixed.keep_std(1.0)  # fixed is fixed
    torch.testing.assert_close(likelihood.log_prob(*case), fixed.log_prob(*case), rtol=1e-6, atol=0)


def test_the_std_never_falls_below_half_a_grey_level():
    pixels = torch.full((1, 1, 4, 4), 130, dtype=torch.uint8)
    mean = ((pixels.double() - 127.5) / 127.5).requires_grad_()
    likelihood = GaussianPixels("optimal").double()
    perfect = likelihood.log_prob(mean, pixels, fit_variance=True)
    at_floor = GaussianPixels("fixed", std=SMALLEST_STD).double().log_prob(mean, pixels)
    torch.testing.assert_close(perfect, at_floor, rtol=1e-6, atol=0)
    assert torch.autograd.grad(perfect.sum(), mean)[0].isfinite().all()
    likelihood.keep_std(0.0)
    torch.testing.assert_close(likelihood.log_prob(mean, pixels), at_floor, rtol=1e-6, atol=0)
    with pytest.raises(ConfigurationError, match=r"std = 0\.001: expected at least half"):
        GaussianPixels("fixed", std=0.001)


def learned_gradient(log_std):
    likelihood = GaussianPixels("learned", discretised=False).double()
    assert isinstance(likelihood.log_std, nn.Parameter)
    with torch.no_grad():
        likelihood.log_std.fill_(log_std)
    mean, pixels, _ = make_case()
    loss = -likelihood.log_prob(mean, pixels, torch.full_like(mean, 0.5)).mean()
    loss.backward()
    return likelihood.log_std.grad.item()


def test_a_learned_std_rests_at_the_batch_optimum_and_comes_back_from_below_the_floor():
    mean, pixels, _ = make_case()
    optimum = (mean - (pixels - 127.5) / 127.5).square().mean().item()
    assert learned_gradient(0.5 * math.log(optimum)) == pytest.approx(0.0, abs=1e-5)
    assert learned_gradient(0.5 * math.log(optimum) + 0.1) > 1.0
    at_floor = learned_gradient(math.log(SMALLEST_STD))
    assert at_floor < -1.0
    assert learned_gradient(math.log(SMALLEST_STD) - 2.0) == pytest.approx(at_floor)


def test_unknown_variance():
    with pytest.raises(ConfigurationError, match="variance = 'optimum'"):
        GaussianPixels("optimum")


# --- images ---


def test_samples_have_the_probabilities_of_the_levels():
    likelihood = GaussianPixels("fixed", std=0.02).double()
    count = 200_000
    for mean in (-0.98, 0.1, 1.03):
        means = torch.full((1, 1, count, 1), mean, dtype=torch.float64)
        uniform = torch.rand(means.shape, generator=torch.Generator().manual_seed(3))
        found = likelihood.sample_image(means, uniform)
        assert found.dtype == torch.uint8
        counts = torch.bincount(found.flatten().long(), minlength=256).double()
        terms = log_bin_probability(torch.full_like(GRID, mean), GRID, log_std(0.02))
        expected = count * terms.exp()
        bins = expected > 5
        chi_square = ((counts - expected).square() / expected)[bins].sum()
        degrees = int(bins.sum())
        assert chi_square < degrees + 5 * math.sqrt(2 * degrees)
        assert counts[~bins].sum() < 5 * int((~bins).sum())


def test_extreme_noise_gives_images():
    likelihood = GaussianPixels("fixed", std=0.5)
    uniform = torch.tensor([0.0, 1.0 - 2**-24]).reshape(2, 1, 1, 1)
    assert likelihood.sample_image(torch.zeros(2, 1, 1, 1), uniform).flatten().tolist() == [0, 255]


def test_the_mean_image_is_rounded_and_clipped():
    mean = torch.tensor([-1.4, -1.0, 0.0040, 1.0, 3.0]).reshape(5, 1, 1, 1)
    assert GaussianPixels().mean_image(mean).flatten().tolist() == [0, 0, 128, 255, 255]
