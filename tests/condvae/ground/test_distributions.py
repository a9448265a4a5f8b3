from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from condvae.ground.distributions import DiagonalGaussian


def pair(shape=(2, 3, 4, 4)):
    draws = [torch.randn(shape, dtype=torch.float64) for _ in range(4)]
    return DiagonalGaussian(*draws[:2]), DiagonalGaussian(*draws[2:])


def as_normal(gaussian):
    return Normal(gaussian.mean, gaussian.log_std.exp())


def test_parameters_are_mean_then_log_std():
    parameters = torch.randn(2, 6, 4, 4)
    gaussian = DiagonalGaussian.from_parameters(parameters)
    assert torch.equal(gaussian.mean, parameters[:, :3])
    assert torch.equal(gaussian.log_std, parameters[:, 3:])


@pytest.mark.parametrize(
    ("given", "computed"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_half_precision_parameters_are_widened(given, computed):
    q, c = (DiagonalGaussian.from_parameters(torch.randn(2, 6, 4, 4).to(given)) for _ in "qc")
    assert q.mean.dtype == q.log_std.dtype == c.kl_from(q).dtype == computed
    assert c.kl_from(q).min() >= 0


OUTPUTS = np.array([-200.0, -60.0, -57.7, -40.0, -8.0, -1.0, 0.0, 0.3, 5.0, 29.0, 58.0, 200.0])


def from_outputs(outputs, std="softplus"):
    """A Gaussian whose std comes from (N) network outputs."""
    parameters = torch.stack([torch.zeros_like(outputs), outputs])[None, :, :, None]
    return DiagonalGaussian.from_parameters(parameters, std)


def test_softplus_std_is_log2_of_one_plus_a_power_of_two():
    found = from_outputs(torch.from_numpy(OUTPUTS))
    np.testing.assert_allclose(
        found.log_std.flatten(), np.log(np.logaddexp2(0.0, OUTPUTS)), rtol=1e-14, atol=1e-15
    )
    assert float(from_outputs(torch.zeros(1)).log_std) == 0.0  # std 1, as with exp
    # Where 2^a is nothing even to float64: its first-order term, log2(1 + e) = e / ln 2.
    far = from_outputs(torch.tensor([-3000.0], dtype=torch.float64))
    assert float(far.log_std) == pytest.approx(-3000 * math.log(2) - math.log(math.log(2)))


def test_slope_of_the_softplus_std_is_right_and_below_one_while_that_of_exp_is_not():
    slopes = {}
    for std in ("exp", "softplus"):
        outputs = torch.from_numpy(OUTPUTS).requires_grad_()
        from_outputs(outputs, std).log_std.exp().sum().backward()
        slopes[std] = outputs.grad.numpy()
    step = 1e-4
    values = [np.logaddexp2(0.0, OUTPUTS + sign * step) for sign in (1, -1)]
    differences = (values[0] - values[1]) / (2 * step)
    np.testing.assert_allclose(slopes["softplus"], differences, rtol=1e-7, atol=1e-9)
    assert (slopes["softplus"] > 0).all()
    assert slopes["softplus"].max() <= 1.0 + 1e-12
    assert slopes["exp"].max() > 1e80


def test_softplus_log_std_has_a_finite_gradient_in_float32():
    outputs = torch.tensor([-1e4, -300.0, -150.0, -57.8, -57.6, 0.0, 150.0, 1e4]).requires_grad_()
    log_std = from_outputs(outputs).log_std
    log_std.sum().backward()
    assert log_std.isfinite().all()
    # ln 2 where the softplus is a power of two, 1 / a where it is a.
    expected = [*[math.log(2)] * 5, 0.5, 1 / 150.0, 1e-4]
    torch.testing.assert_close(outputs.grad, torch.tensor(expected))


def test_kl_is_of_the_argument_from_self():
    c, q = pair()
    torch.testing.assert_close(
        c.kl_from(q), kl_divergence(as_normal(q), as_normal(c)), rtol=1e-12, atol=1e-12
    )
    # Not symmetric: the other direction is another number.
    assert (c.kl_from(q) - q.kl_from(c)).abs().max() > 0.1


def test_kl_of_equals_is_exactly_zero():
    c, _ = pair()
    assert c.kl_from(DiagonalGaussian(c.mean.clone(), c.log_std.clone())).abs().max() == 0.0


def test_kl_by_hand():
    c = DiagonalGaussian(torch.tensor([0.0]), torch.tensor([0.0]))
    q = DiagonalGaussian(torch.tensor([3.0]), torch.tensor([0.0]))
    assert c.kl_from(q).item() == pytest.approx(4.5)


def test_log_prob():
    c, other = pair()
    torch.testing.assert_close(
        c.log_prob(other.mean), as_normal(c).log_prob(other.mean), rtol=1e-12, atol=1e-12
    )


def test_sample_is_affine_in_the_noise():
    c, other = pair()
    noise = other.mean
    assert torch.equal(c.sample(noise), c.mean + c.log_std.exp() * noise)
    assert torch.equal(c.sample(noise, 0.0), c.mean)
    torch.testing.assert_close(c.sample(noise, 0.7), c.mean + 0.7 * (c.sample(noise) - c.mean))


def test_sample_has_the_gradient_of_the_reparametrisation():
    mean = torch.zeros(4, requires_grad=True)
    log_std = torch.zeros(4, requires_grad=True)
    noise = torch.tensor([1.0, -2.0, 0.5, 3.0])
    DiagonalGaussian(mean, log_std).sample(noise, 0.5).sum().backward()
    assert torch.equal(mean.grad, torch.ones(4))
    torch.testing.assert_close(log_std.grad, 0.5 * noise)
