from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.special import expit
from scipy.stats import chi2

from condvae.ground.configuration import ConfigurationError
from condvae.ground.likelihoods import LogisticMixture


def grid(bits):
    """The evenly spaced values on which the mixture with `bits` bits is a distribution."""
    return np.linspace(-1.0, 1.0, 2**bits)


def random_parameters(likelihood, *, seed=0, log_scale=-2.5, batch=1, size=1):
    """(B,P,H,W) in float64 with means inside the range and moderate scales."""
    generator = torch.Generator().manual_seed(seed)
    m, c = likelihood.mixtures, likelihood.channels
    raw = torch.randn(
        batch, likelihood.parameter_channels, size, size, generator=generator, dtype=torch.float64
    )
    rest = raw[:, m:].view(batch, c, -1, size, size)
    rest[:, :, :m] *= 0.5
    rest[:, :, m : 2 * m] = log_scale + 0.5 * rest[:, :, m : 2 * m]
    return raw


def reference_component(x, mean, log_scale, bits):
    """Probability of one value under one logistic, straight from the cumulative distribution."""
    half_width = 1.0 / (2**bits - 1)
    scale = np.exp(max(log_scale, -7.0))
    upper = 1.0 if x > 0.999 else expit((x + half_width - mean) / scale)
    lower = 0.0 if x < -0.999 else expit((x - half_width - mean) / scale)
    return upper - lower


def reference_log_prob(likelihood, parameters, target):
    """Slow version of `log_prob` for one pixel: parameters (P,), target (C,)."""
    m, c = likelihood.mixtures, likelihood.channels
    weights = np.exp(parameters[:m] - parameters[:m].max())
    weights /= weights.sum()
    per_channel = parameters[m:].reshape(c, -1, m)
    total = 0.0
    for k in range(m):
        means = per_channel[:, 0, k].copy()
        if c == 3:
            to_green, red_to_blue, green_to_blue = np.tanh(per_channel[:, 2, k])
            means[1] += to_green * target[0]
            means[2] += red_to_blue * target[0] + green_to_blue * target[1]
        probability = weights[k]
        for channel in range(c):
            probability *= reference_component(
                target[channel], means[channel], per_channel[channel, 1, k], likelihood.bits
            )
        total += probability
    return np.log(total)


def log_prob_of_values(likelihood, parameters, values):
    """Log probabilities (N,) of pixels `values` (N,C), all under the parameters (1,P,1,1)."""
    target = torch.as_tensor(np.asarray(values))[:, :, None, None]
    return likelihood.log_prob(parameters.expand(len(target), -1, -1, -1), target).flatten()


@pytest.mark.parametrize(("channels", "factor"), [(1, 3), (3, 10)])
def test_number_of_parameters_and_noise(channels, factor):
    likelihood = LogisticMixture(channels, 7)
    assert likelihood.parameter_channels == factor * 7
    assert likelihood.noise_channels == 7 + channels


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2, 5), "channels = 2"),
        ((1, 0), "mixtures = 0: expected > 0"),
        ((1, 5, 6), "bits = 6: expected one of 5, 8"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        LogisticMixture(*arguments)


@pytest.mark.parametrize("bits", [5, 8])
@pytest.mark.parametrize("log_scale", [-1.0, -2.5, -4.0, -9.0])
def test_grey_probabilities_sum_to_one(bits, log_scale):
    likelihood = LogisticMixture(1, 4, bits)
    for seed in range(5):
        parameters = random_parameters(likelihood, seed=seed, log_scale=log_scale)
        logs = log_prob_of_values(likelihood, parameters, grid(bits)[:, None])
        # Bins of probability below 1e-5 are approximated by their density.
        assert logs.exp().sum().item() == pytest.approx(1.0, abs=3e-5)


def test_colour_probabilities_sum_to_one():
    likelihood = LogisticMixture(3, 2, bits=5)
    values = np.array(list(itertools.product(grid(5), repeat=3)))
    for seed in range(3):
        logs = log_prob_of_values(likelihood, random_parameters(likelihood, seed=seed), values)
        assert logs.exp().sum().item() == pytest.approx(1.0, abs=3e-5)


def test_published_five_bit_targets_are_not_the_grid_of_their_bins():
    # Known property of the published 5-bit likelihood, kept for comparable numbers: targets are
    # 16/255 apart but bins are 2/31 wide, so that away from the edges the probabilities of the 32
    # targets sum to 1.028, and published figures are too good by 0.028 nats per dimension.
    likelihood = LogisticMixture(1, 1, bits=5)
    parameters = torch.tensor([0.0, 0.0, -3.0], dtype=torch.float64).view(1, 3, 1, 1)
    targets = (8 * np.arange(32) - 127.5) / 127.5
    total = log_prob_of_values(likelihood, parameters, targets[:, None]).exp().sum().item()
    assert total == pytest.approx((2 / 31) / (16 / 255), abs=1e-3)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [5, 8])
def test_log_prob_equals_the_slow_reference(channels, bits):
    likelihood = LogisticMixture(channels, 3, bits)
    parameters = random_parameters(likelihood, batch=4, size=3, log_scale=-1.5)
    index = np.random.default_rng(0).integers(0, 2**bits, (4, channels, 3, 3))
    index[0, :, 0, 0], index[1, :, 0, 0] = 0, 2**bits - 1  # both edges
    target = grid(bits)[index]
    result = likelihood.log_prob(parameters, torch.from_numpy(target))
    assert result.shape == (4, 3, 3)
    for b, i, j in np.ndindex(4, 3, 3):
        expected = reference_log_prob(
            likelihood, parameters[b, :, i, j].numpy(), target[b, :, i, j]
        )
        # The density stands in for bins of probability below 1e-5.
        assert result[b, i, j].item() == pytest.approx(expected, abs=1e-4)


def test_log_prob_is_exact_where_bins_are_not_tiny():
    likelihood = LogisticMixture(1, 1)
    parameters = torch.tensor([0.3, 0.1, -2.0], dtype=torch.float64).view(1, 3, 1, 1)
    values = grid(8)
    result = log_prob_of_values(likelihood, parameters, values[:, None]).numpy()
    expected = np.log([reference_component(x, 0.1, -2.0, 8) for x in values])
    np.testing.assert_allclose(result, expected, rtol=1e-9)


def test_scale_has_a_floor():
    likelihood = LogisticMixture(1, 1)
    low, floor = (
        torch.tensor([0.0, 0.2, s], dtype=torch.float64).view(1, 3, 1, 1) for s in (-30.0, -7.0)
    )
    values = grid(8)[:, None]
    assert torch.equal(
        log_prob_of_values(likelihood, low, values), log_prob_of_values(likelihood, floor, values)
    )


def test_edge_bins_reach_to_infinity():
    likelihood = LogisticMixture(1, 1)
    for mean, edge in ((5.0, 1.0), (-5.0, -1.0)):
        parameters = torch.tensor([0.0, mean, -2.0], dtype=torch.float64).view(1, 3, 1, 1)
        assert log_prob_of_values(likelihood, parameters, [[edge]]).item() == pytest.approx(
            0.0, abs=1e-6
        )


@pytest.mark.parametrize("channels", [1, 3])
def test_finite_values_and_gradients_at_extreme_parameters(channels):
    likelihood = LogisticMixture(channels, 2)
    rows = []
    for logit, mean, log_scale in itertools.product(
        (-1e3, 1e3), (-1e3, 0.0, 1e3), (-60.0, 0.0, 60.0)
    ):
        row = torch.zeros(likelihood.parameter_channels)
        row[0], row[1] = logit, -logit
        rest = row[2:].view(channels, -1, 2)
        rest[:, 0], rest[:, 1] = mean, log_scale
        if channels == 3:
            rest[:, 2] = mean
        rows.append(row)
    parameters = torch.stack(rows)[:, :, None, None].requires_grad_()
    for value in (-1.0, 0.0, 1.0):
        target = torch.full((len(rows), channels, 1, 1), value)
        logs = likelihood.log_prob(parameters, target)
        (gradient,) = torch.autograd.grad(logs.sum(), parameters)
        assert logs.isfinite().all()
        assert gradient.isfinite().all()
        uniform = torch.rand(len(rows), likelihood.noise_channels, 1, 1)
        assert likelihood.sample(parameters, uniform).isfinite().all()


def draw(likelihood, parameters, count, dtype=torch.float64):
    uniform = torch.rand(
        count,
        likelihood.noise_channels,
        1,
        1,
        generator=torch.Generator().manual_seed(5),
        dtype=dtype,
    )
    return likelihood.sample(parameters.to(dtype).expand(count, -1, -1, -1), uniform)[..., 0, 0]


@pytest.mark.parametrize("seed", [0, 1])
def test_grey_samples_agree_with_log_prob(seed):
    likelihood = LogisticMixture(1, 3)
    parameters = random_parameters(likelihood, seed=seed, log_scale=-3.0)
    probability = log_prob_of_values(likelihood, parameters, grid(8)[:, None]).exp().numpy()
    count = 100_000
    x = draw(likelihood, parameters, count)
    level = ((x + 1) * 127.5).round().long().flatten()
    observed = np.bincount(level.numpy(), minlength=256)
    large = probability * count >= 5
    cells = np.append(observed[large], observed[~large].sum())
    expected = np.append(probability[large], probability[~large].sum()) * count
    statistic = ((cells - expected) ** 2 / np.maximum(expected, 1e-9)).sum()
    assert large.sum() > 50
    assert chi2.sf(statistic, len(cells) - 1) > 1e-3


def test_colour_samples_agree_with_log_prob():
    # All 32³ colours of the 5-bit mixture, by their probabilities, against drawn colours.
    likelihood = LogisticMixture(3, 2, bits=5)
    parameters = random_parameters(likelihood, seed=3, log_scale=-2.0)
    parameters[:, 2:].view(1, 3, 3, 2, 1, 1)[:, :, 2] = torch.tensor(
        [0.9, -0.7, 0.8], dtype=torch.float64
    ).view(1, 3, 1, 1, 1)
    values = np.array(list(itertools.product(grid(5), repeat=3)))
    probability = log_prob_of_values(likelihood, parameters, values).exp().numpy()
    mean = probability @ values
    covariance = (values - mean).T @ ((values - mean) * probability[:, None])
    drawn = draw(likelihood, parameters, 200_000).numpy()
    np.testing.assert_allclose(drawn.mean(axis=0), mean, atol=0.01)
    np.testing.assert_allclose(np.cov(drawn.T), covariance, atol=0.01)
    # The coupling of colours is strong enough for the comparison to mean something.
    off_diagonal = covariance[~np.eye(3, dtype=bool)]
    assert np.abs(off_diagonal).min() > 0.02


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_are_clamped_and_fixed_by_the_noise(channels):
    likelihood = LogisticMixture(channels, 4)
    parameters = random_parameters(likelihood, log_scale=1.0)
    x = draw(likelihood, parameters, 2000)
    assert x.shape == (2000, channels)
    assert x.min() == -1.0
    assert x.max() == 1.0
    assert torch.equal(x, draw(likelihood, parameters, 2000))


def test_uniforms_of_zero_and_almost_one_give_finite_samples():
    likelihood = LogisticMixture(1, 2)
    parameters = random_parameters(likelihood).float()
    for value in (0.0, 1.0 - 2**-24):
        uniform = torch.full((1, likelihood.noise_channels, 1, 1), value)
        assert likelihood.sample(parameters, uniform).isfinite().all()
