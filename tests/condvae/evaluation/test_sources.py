import dataclasses

import pytest
import torch

from condvae.evaluation import PosteriorSource
from condvae.posterior.importance import importance_bound

SETTINGS = {
    "completions": 3,
    "temperature": 0.8,
    "seed": 2,
    "batch_size": 4,
    "bound_draws": (2, 1),
    "model": "tiny",
}


@pytest.fixture
def cases(make_case):
    return [make_case(i, image, rows, size=16) for i, (image, rows) in enumerate([(7, 2), (8, 9)])]


@pytest.fixture
def source(make_posterior, make_pixels, cases):
    posterior, truths = make_posterior(), make_pixels(batch=2)
    return PosteriorSource(posterior, cases, truths, **SETTINGS)


def test_completions_are_the_raw_ones_of_the_posterior(source):
    expected = source.posterior.sample(
        source.observe(0, 2), 3, temperature=0.8, seed=2, paste_observed=False
    )
    assert torch.equal(source.draw(0, 2), expected)
    assert torch.equal(source.draw(1, 2), expected[:, 1:])
    hot = dataclasses.replace(source, temperature=1.2)
    assert not torch.equal(hot.draw(0, 2), expected)


def test_bounds_are_those_of_the_posterior_whatever_the_temperature(source):
    one, many = source.bound(1, 2)
    part, pixels = source.observe(1, 2), source.truths[1:]
    expected = source.posterior.bound(pixels, part, seed=2)
    torch.testing.assert_close(one.bound_bits, expected.bound_bits)
    weighted = importance_bound(source.posterior, pixels, part, (1, 2), seed=2)
    assert list(many.bound_bits) == [1, 2]
    for draws, bits in weighted.bound_bits.items():
        torch.testing.assert_close(many.bound_bits[draws], bits)
    hot = dataclasses.replace(source, temperature=2.0)
    torch.testing.assert_close(hot.bound(1, 2)[0].bound_bits, one.bound_bits)


def test_the_weighted_bound_and_all_bounds_can_be_left_out(source):
    one, many = dataclasses.replace(source, bound_draws=()).bound(0, 2)
    assert one.bound_bits.shape == (2,)
    assert many is None
    assert dataclasses.replace(source, bound_draws=None).bound(0, 2) is None


def test_noise_follows_case_and_case_seed(source, cases):
    def draw(cases):
        return dataclasses.replace(source, cases=cases).draw(0, 2)

    expected = source.draw(0, 2)
    assert torch.equal(draw(cases), expected)
    for change in ({"seed": 5}, {"case_id": "other"}):
        found = draw([cases[0], dataclasses.replace(cases[1], **change)])
        assert torch.equal(found[:, 0], expected[:, 0])
        assert not torch.equal(found[:, 1], expected[:, 1])


def test_observations_hide_what_the_masks_hide(source, cases):
    observation = source.observe(0, 2)
    for n, case in enumerate(cases):
        mask = torch.tensor(case.mask)
        assert torch.equal(observation.mask[n, 0], mask)
        assert torch.equal(observation.pixels[n, 0], source.truths[n, 0] * mask)


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"completions": 4},
        {"temperature": 0.7},
        {"seed": 3},
        {"bound_draws": (1, 10)},
        {"bound_draws": ()},
        {"bound_draws": None},
    ],
)
def test_the_identity_changes_with_what_decides_the_scores(source, change):
    assert dataclasses.replace(source, **change).identity != source.identity


def test_the_identity_does_not_change_with_the_batch_size(source):
    again = dataclasses.replace(source, batch_size=1)
    assert again.identity == source.identity
    assert torch.equal(again.draw(0, 2), source.draw(0, 2))
