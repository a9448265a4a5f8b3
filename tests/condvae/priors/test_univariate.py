from __future__ import annotations

import pytest
import torch

from condvae.priors.univariate import BOUND, SMALLEST_SLOPE, UNIVARIATES

kinds = pytest.mark.parametrize("kind", list(UNIVARIATES))


def draws(kind, scale=1.0, n=500, dtype=torch.float64):
    u = 2.5 * torch.randn(n, dtype=dtype)
    return u, scale * torch.randn(n, UNIVARIATES[kind].parameters, dtype=dtype)


@kinds
def test_zero_parameters_are_the_identity(kind):
    u, parameters = draws(kind, scale=0.0)
    v, log_slopes = UNIVARIATES[kind].apply(u, parameters)
    torch.testing.assert_close(v, u, rtol=0, atol=1e-14)
    assert log_slopes.abs().max() < 1e-14
    torch.testing.assert_close(UNIVARIATES[kind].invert(u, parameters), u, rtol=0, atol=1e-14)


@kinds
def test_slopes_are_the_derivatives(kind):
    u, parameters = draws(kind)
    u.requires_grad_(True)
    v, log_slopes = UNIVARIATES[kind].apply(u, parameters)
    (derivative,) = torch.autograd.grad(v.sum(), u)
    torch.testing.assert_close(log_slopes.exp(), derivative, rtol=1e-10, atol=0)
    if kind == "additive":
        assert not log_slopes.any()
    else:
        assert log_slopes.std() > 0.3


@kinds
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_inverse(kind, dtype, tolerance):
    u, parameters = draws(kind, 1.0, 20000, dtype)
    u[:2] = torch.tensor([BOUND, -BOUND], dtype=dtype)
    v, _ = UNIVARIATES[kind].apply(u, parameters)
    torch.testing.assert_close(UNIVARIATES[kind].invert(v, parameters), u, rtol=0, atol=tolerance)


@pytest.mark.parametrize("scale", [10.0, 1e4])
def test_no_parameters_take_a_spline_out_of_float32(scale):
    u, parameters = draws("spline", scale, 50000, torch.float32)
    v, _ = UNIVARIATES["spline"].apply(u, parameters)
    back = UNIVARIATES["spline"].invert(v, parameters)
    torch.testing.assert_close(back, u, rtol=0, atol=2e-3)


@kinds
def test_functions_increase(kind):
    u = torch.linspace(-7.0, 7.0, 2001, dtype=torch.float64)
    for scale in (1.0, 1e4):
        _, parameters = draws(kind, scale, 1)
        v, _ = UNIVARIATES[kind].apply(u, parameters.expand(len(u), -1))
        assert (v.diff() > 0).all()


def test_affine_is_what_it_is_called():
    u = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    parameters = torch.tensor([0.5, 1e9], dtype=torch.float64).expand(3, -1)
    v, _ = UNIVARIATES["affine"].apply(u, parameters)
    torch.testing.assert_close(v, 0.5 + u / SMALLEST_SLOPE)


def test_splines_leave_the_tails_alone():
    _, parameters = draws("spline", 3.0, 4)
    u = torch.tensor([-9.0, -5.001, 5.001, 30.0], dtype=torch.float64)
    v, log_slopes = UNIVARIATES["spline"].apply(u, parameters)
    assert torch.equal(v, u)
    assert log_slopes.abs().max() == 0.0
