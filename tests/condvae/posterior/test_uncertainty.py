import math

import pytest
import torch

from condvae.ground.configuration import ConfigurationError
from condvae.posterior.uncertainty import FEWEST, map_uncertainty


@pytest.fixture
def posterior(make_posterior):
    return make_posterior()


@pytest.fixture
def observation(posterior, make_pixels):
    mask = torch.zeros(3, 1, 16, 16)
    mask[0, :, :4] = 1
    mask[1, :, :, :12] = 1
    mask[2] = 1
    return posterior.observe(make_pixels(batch=3), mask, ("a", "b", "c"))


def test_maps_are_those_of_so_many_completions_and_as_precise_as_asked(posterior, observation):
    found = map_uncertainty(posterior, observation, 9.0, seed=3, batch_size=10)
    for case, one in enumerate(found[:2]):
        n = one.summary.n
        assert n >= FEWEST
        assert n == FEWEST * 2 ** round(math.log2(n / FEWEST))
        part = observation.part(case, case + 1)
        expected = posterior.summarise(part, n, seed=3)
        assert torch.equal(one.summary.mean, expected.mean)
        assert torch.equal(one.summary.standard_deviation, expected.standard_deviation)
        for level, values in expected.quantiles.items():
            assert torch.equal(one.summary.quantiles[level], values)
        hidden = ~part.mask.expand_as(part.pixels)
        error = (expected.standard_deviation[hidden].square().mean() / n).sqrt().item()
        assert one.error == pytest.approx(error)
        assert one.reached
        assert error <= 9.0
        if n > FEWEST:  # half as many were not enough
            fewer = posterior.summarise(part, n // 2, seed=3).standard_deviation[hidden]
            assert (fewer.square().mean() / (n // 2)).sqrt().item() > 9.0


def test_the_error_is_that_of_the_mean(posterior, observation):
    part = observation.part(0, 1)
    one = map_uncertainty(posterior, part, 8.0)[0]
    n = one.summary.n
    hidden = ~part.mask.expand_as(part.pixels)
    far = posterior.summarise(part, 4096, seed=99).mean
    actual = (one.summary.mean - far)[hidden].square().mean().sqrt().item()
    assert 0.6 < actual / one.error < 1.6, n


def test_a_case_without_unobserved_values_needs_no_more_than_the_first(posterior, observation):
    found = map_uncertainty(posterior, observation, 1e-3, at_most=FEWEST)
    assert (found[2].error, found[2].reached, found[2].summary.n) == (0.0, True, FEWEST)


def test_the_limit_holds_and_is_reported(posterior, observation):
    found = map_uncertainty(posterior, observation.part(0, 1), 1e-3, at_most=40)
    assert (found[0].summary.n, found[0].reached) == (40, False)
    assert found[0].error > 1e-3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tolerance": 0}, "tolerance = 0: expected > 0"),
        ({"tolerance": 1, "at_most": 1}, "at_most = 1: a standard deviation needs at least 2"),
        ({"tolerance": 1, "quantiles": (1.5,)}, "quantile level 1.5"),
    ],
)
def test_wrong_settings_are_named(posterior, observation, settings, message):
    with pytest.raises(ConfigurationError, match=message):
        map_uncertainty(posterior, observation, **settings)


def test_a_stream_may_begin_later(posterior, observation):
    expected = posterior.sample(observation, 7, seed=1)
    for cases, ks, pixels in posterior.stream(observation, 3, first=4, seed=1):
        assert set(ks.tolist()) <= {4, 5, 6}
        assert torch.equal(pixels, expected[ks, cases])
