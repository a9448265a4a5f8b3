from __future__ import annotations

import pytest
import torch

from condvae.priors import make_prior
from condvae.priors.published import PublishedCoupling


def random_coupling(latents, scale=0.5):
    coupling = PublishedCoupling(latents).double()
    with torch.no_grad():
        for parameter in coupling.parameters():
            parameter.copy_(scale * torch.randn_like(parameter))
    return coupling


def test_size_is_the_published_one():
    """4,864 published parameters for 64 latents, of which 64 are a scale that is never trained."""
    assert sum(p.numel() for p in PublishedCoupling(64).parameters()) == 4864 - 64


def test_new_coupling_is_the_identity():
    z = torch.randn(5, 6)
    v, log_slopes = PublishedCoupling(6)(z)
    assert torch.equal(v, z)
    assert not log_slopes.any()


@pytest.mark.parametrize("latents", [1, 5, 6])
def test_one_triangular_step(latents):
    """The first half stays; the rest is scaled and shifted by numbers of the first half alone."""
    coupling, half = random_coupling(latents), latents // 2
    z = torch.randn(latents, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: coupling(x[None])[0][0], z)
    _, log_slopes = coupling(z[None])
    assert torch.equal(jacobian[:half], torch.eye(latents, dtype=z.dtype)[:half])
    corner = jacobian[half:, half:]
    torch.testing.assert_close(corner, log_slopes[0, half:].exp().diag(), rtol=1e-12, atol=0)
    assert (corner.diagonal() - 1).abs().min() > 1e-3
    if half:
        assert jacobian[half:, :half].abs().min() > 0


def test_inverse_is_the_inverse():
    coupling = random_coupling(6)
    z = torch.randn(100, 6, dtype=torch.float64)
    with torch.no_grad():
        v, _ = coupling(z)
        torch.testing.assert_close(coupling.inverse(v), z, rtol=0, atol=1e-12)
        # What the published code undoes, a slope times a further number, is not what it did.
        log_slope, shift = coupling._slopes_and_shifts(v)
        wrong = (v - shift) * torch.exp(-0.5 * log_slope)
    assert (wrong - z).abs().max() > 0.1


def test_the_first_half_is_gaussian_for_ever():
    """The method's limit: whatever the weights are, no coupling moves the first half."""
    torch.manual_seed(1)
    paper, gaussian = (make_prior(kind, 5, 3, hidden=6).double() for kind in ("paper", "gaussian"))
    with torch.no_grad():
        for parameter in paper.parameters():
            parameter.copy_(torch.randn_like(parameter))
    gaussian.load_state_dict(paper.state_dict(), strict=False)
    noise, context = torch.randn(50, 5).double(), torch.randn(50, 3).double()
    drawn, expected = paper.sample(noise, context), gaussian.sample(noise, context)
    assert torch.equal(drawn[:, :2], expected[:, :2])
    assert (drawn[:, 2:] - expected[:, 2:]).abs().max(dim=0).values.min() > 0.1
