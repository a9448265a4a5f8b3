"""What is kept is kept exactly, ends of a path are the completions, and the way is a valid draw."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from condvae.ground.configuration import ConfigurationError
from condvae.posterior.control import (
    draw_latents,
    interpolate,
    temperature_by_resolution,
    vary_details,
)
from condvae.vdvae.decoder import Decoder


@pytest.fixture
def observed(make_posterior, make_pixels):
    posterior = make_posterior()
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :5] = 1
    return posterior, posterior.observe(make_pixels(3), mask)


@pytest.fixture
def record_latents(monkeypatch):
    """Latents of every pass of the decoder, in order."""
    passes = []
    descend = Decoder.descend

    def recording(self, choose_z, batch_size, **how):
        seen = []
        passes.append(seen)

        def choose(group, h):
            z = choose_z(group, h)
            seen.append(z)
            return z

        return descend(self, choose, batch_size, **how)

    monkeypatch.setattr(Decoder, "descend", recording)
    return passes


def groups_of(posterior):
    return posterior.model.vae.architecture.decoder_blocks


def test_latents_are_those_of_the_completion(observed, record_latents):
    posterior, y = observed
    found = draw_latents(posterior, y, completion=2, seed=5, temperature=0.7, batch_size=2)
    record_latents.clear()
    posterior.sample(y, 3, seed=5, temperature=0.7)
    (sampled,) = record_latents
    assert len(found) == len(groups_of(posterior))
    for ours, theirs in zip(found, sampled, strict=True):
        # Pairs go case by case, completions of a case one after another.
        torch.testing.assert_close(ours, theirs[2::3], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_kept_groups_are_shared_and_the_others_are_not(observed, record_latents, kept):
    posterior, y = observed
    expected = draw_latents(posterior, y, completion=1, seed=4)
    record_latents.clear()
    vary_details(posterior, y, 4, kept_groups=kept, completion=1, seed=4)
    _, drawn = record_latents
    for index, z in enumerate(drawn):
        of_case = z.reshape(3, 4, *z.shape[1:])
        if index < kept:
            for number in range(4):
                assert torch.equal(of_case[:, number], expected[index])
        else:
            assert not torch.equal(of_case[:, 0], of_case[:, 2])


def test_variations_contain_the_completion_itself(observed):
    posterior, y = observed
    completions = posterior.sample(y, 4, seed=4)
    count = len(groups_of(posterior))
    assert torch.equal(vary_details(posterior, y, 4, kept_groups=0, seed=4), completions)
    for kept in (2, count):
        varied = vary_details(posterior, y, 4, kept_groups=kept, completion=3, seed=4)
        assert torch.equal(varied[3], completions[3])
        assert not torch.equal(varied[0], completions[0])
        assert torch.equal(varied[..., :5], y.pixels[..., :5].expand(4, -1, -1, -1, -1))


def test_batches_do_not_matter(observed):
    posterior, y = observed
    one, few = (vary_details(posterior, y, 3, kept_groups=2, batch_size=size) for size in (256, 2))
    assert torch.equal(one, few)
    one, few = (interpolate(posterior, y, 0, 1, 4, batch_size=size) for size in (256, 3))
    assert torch.equal(one, few)


def test_ends_of_a_path_are_the_completions(observed):
    posterior, y = observed
    path = interpolate(posterior, y, 7, 8, 4, completion=1)
    assert path.shape == (4, *y.pixels.shape)
    assert torch.equal(path[0], posterior.sample(y, 2, seed=7)[1])
    assert torch.equal(path[-1], posterior.sample(y, 2, seed=8)[1])
    assert not torch.equal(path[1], path[0])


def test_way_is_the_arc_between_the_noises(observed):
    posterior, y = observed
    path = interpolate(posterior, y, 0, 1, 3)

    def middle(part, cases, ks):
        (a, u), (b, v) = (posterior.draw_noise(part, cases, ks, seed) for seed in (0, 1))
        quantiles = (stats.norm.ppf(u.double()) + stats.norm.ppf(v.double())) / math.sqrt(2)
        return (a + b) / math.sqrt(2), torch.from_numpy(stats.norm.cdf(quantiles)).float()

    for cases, _, pixels in posterior.decode(y, 1, middle):
        # The noise agrees to float32; a rounded grey level may go either way.
        difference = (pixels.int() - path[1, cases].int()).abs()
        assert difference.max() <= 1
        assert (difference > 0).float().mean() < 0.01


def test_noise_on_the_way_is_standard_normal_and_uniform(observed, monkeypatch):
    posterior, y = observed
    given = {}

    def capture(self, observation, n, draw_noise, **_):
        cases = torch.arange(len(observation)).repeat_interleave(n)
        given["noise"] = draw_noise(observation, cases, torch.arange(n).repeat(len(observation)))
        return iter(())

    monkeypatch.setattr(type(posterior), "decode", capture)
    interpolate(posterior, y, 0, 1, 5)
    normals, uniforms = given["noise"]
    for step in range(5):
        assert stats.kstest(normals[step::5].flatten(), "norm").pvalue > 1e-3
        assert stats.kstest(uniforms[step::5].flatten(), "uniform").pvalue > 1e-3
    assert uniforms.max() < 1


def test_temperatures_by_resolution(observed):
    posterior, y = observed
    shape = posterior.model.vae.architecture
    found = temperature_by_resolution(shape, {1: 0.5, 4: 0.9}, other=0.8)
    expected = {1: 0.5, 4: 0.9}
    assert found == tuple(expected.get(block.resolution, 0.8) for block in shape.decoder_blocks)
    assert posterior.sample(y, 1, temperature=found).shape[0] == 1
    with pytest.raises(ConfigurationError, match="resolution of a temperature = 3"):
        temperature_by_resolution(shape, {3: 1.0})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p, y: vary_details(p, y, 2, kept_groups=99), r"kept_groups = 99: expected 0 to"),
        (lambda p, y: vary_details(p, y, 0, kept_groups=1), r"n = 0: expected > 0"),
        (lambda p, y: draw_latents(p, y, completion=-1), r"completion = -1: expected >= 0"),
        (lambda p, y: interpolate(p, y, 3, 3, 4), r"seed_a = seed_b = 3: expected two different"),
        (lambda p, y: interpolate(p, y, 0, 1, 1), r"steps = 1: expected at least 2"),
    ],
)
def test_impossible_arguments_are_refused(observed, call, message):
    with pytest.raises(ConfigurationError, match=message):
        call(*observed)
