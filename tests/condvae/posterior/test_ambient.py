"""What a seed gives depends on nothing that a caller has set for the whole process."""

from __future__ import annotations

import contextlib

import pytest
import torch

from condvae.posterior.control import interpolate, vary_details
from condvae.posterior.importance import importance_bound
from condvae.posterior.uncertainty import map_uncertainty
from condvae.tasks import Colourisation, Edges, Subject


@contextlib.contextmanager
def default_double():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


AMBIENT = {
    "default dtype": default_double,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "gradients": torch.enable_grad,
    "inference": torch.inference_mode,
}


def everything(posterior, pixels, mask):
    """All that draws, as tensors."""
    y = posterior.observe(pixels, mask)
    bound = posterior.bound(pixels, y)
    seen = posterior.observation_bound(y, draws=2)
    weighted = importance_bound(posterior, pixels, y, [2])
    summary = posterior.summarise(y, 3)
    completions = posterior.sample(y, 2)
    return [
        *(y.condition, y.pixels, completions, bound.rate_nats, bound.bound_bits),
        *(seen.rate_nats, weighted.bound_bits[2], torch.as_tensor(summary.standard_deviation)),
        torch.as_tensor(vary_details(posterior, y, 2, kept_groups=1)),
        torch.as_tensor(interpolate(posterior, y, 0, 1, 3)),
        torch.as_tensor(map_uncertainty(posterior, y, 500.0)[0].summary.standard_deviation),
    ]


@pytest.mark.parametrize("setting", AMBIENT)
def test_draws_and_bounds_are_the_same(make_posterior, make_pixels, setting):
    posterior = make_posterior(dtype=torch.float32)
    pixels, mask = make_pixels(2), make_pixels(2, seed=3) > 128
    plain = everything(posterior, pixels, mask)
    with AMBIENT[setting]():
        found = everything(posterior, pixels, mask)
    for expected, value in zip(plain, found, strict=True):
        assert value.dtype == expected.dtype
        assert torch.equal(value, expected)


@pytest.mark.parametrize("task", [Colourisation(), Edges()])
def test_observations_are_the_same(make_pixels, task):
    from condvae.ground.images import DataContract

    subject, contract = Subject(make_pixels(2, 3)), DataContract(3, 16, 110.0, 60.0)
    plain = task.observe(subject, contract).condition
    with default_double():
        found = task.observe(subject, contract).condition
    assert found.dtype == plain.dtype
    assert torch.equal(found, plain)
