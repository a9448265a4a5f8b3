from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from condvae.ground.configuration import ConfigurationError
from condvae.ground.distributions import DiagonalGaussian
from condvae.ground.noise import case_generator
from condvae.ipa import ConditionalModel, UnconditionalLatents, initialise
from condvae.posterior.image_posterior import ImagePosterior
from condvae.tasks import Inpainting

GROUPS = 4


@pytest.fixture
def observed(make_pixels):
    """Images (3,1,16,16) and masks."""
    return make_pixels(3), make_pixels(3, seed=7) > 140


def observe(posterior, observed, rows=(0, 1, 2)):
    pixels, mask = (part[list(rows)] for part in observed)
    return posterior.observe(pixels, mask, tuple(f"case-{r}" for r in rows))


def likelihood_parameters(posterior, observation, n, **options):
    """{(case id, k): parameters} of every completion, and the completions."""
    decoder, seen = posterior.model.vae.decoder, []
    original = type(decoder).likelihood_parameters
    decoder.likelihood_parameters = lambda output: (
        seen.append(original(decoder, output)) or seen[-1]
    )
    try:
        result, images = {}, {}
        for cases, ks, pixels in posterior.stream(observation, n, **options):
            for row, (case, k) in enumerate(zip(cases.tolist(), ks.tolist(), strict=True)):
                name = observation.case_ids[case], k
                assert name not in result
                result[name], images[name] = seen[-1][row], pixels[row]
    finally:
        del decoder.likelihood_parameters
    return result, images


def test_shape_type_and_reproducibility(make_posterior, observed):
    posterior = make_posterior()
    drawn = posterior.sample(observe(posterior, observed), 4)
    assert drawn.shape == (4, 3, 1, 16, 16)
    assert drawn.dtype == torch.uint8
    assert torch.equal(drawn, posterior.sample(observe(posterior, observed), 4))
    flat = drawn.flatten(0, 1)
    assert len({image.numpy().tobytes() for image in flat}) == 12


@pytest.mark.parametrize(
    ("rows", "n", "batch_size"),
    [
        ((0, 1, 2), 5, 1),
        ((0, 1, 2), 5, 2),
        ((0, 1, 2), 5, 4),
        ((2, 0, 1), 5, 256),
        ((1,), 5, 256),
        ((0, 2), 9, 7),
        ((2, 1, 0), 2, 3),
    ],
)
def test_completions_do_not_depend_on_the_batch(make_posterior, observed, rows, n, batch_size):
    posterior = make_posterior()
    reference, images = likelihood_parameters(posterior, observe(posterior, observed), 5)
    again, others = likelihood_parameters(
        posterior, observe(posterior, observed, rows), n, batch_size=batch_size
    )
    assert len(again) == len(rows) * n
    common = reference.keys() & again.keys()
    assert len(common) == len(rows) * min(n, 5)
    for name in common:
        torch.testing.assert_close(again[name], reference[name], rtol=0, atol=1e-9)
        assert torch.equal(others[name], images[name])


def test_completions_in_float32_differ_by_rounding_only(make_posterior, observed):
    posterior = make_posterior(dtype=torch.float32)
    reference = posterior.sample(observe(posterior, observed), 6, paste_observed=False)
    for batch_size in (1, 5):
        drawn = posterior.sample(
            observe(posterior, observed), 6, paste_observed=False, batch_size=batch_size
        )
        difference = (drawn.int() - reference.int()).abs()
        assert (difference <= 1).double().mean() >= 0.999


def test_noise_is_the_same_in_both_precisions(make_posterior, observed):
    single, double = make_posterior(dtype=torch.float32), make_posterior()
    a, b = (p.sample(observe(p, observed), 4).int() for p in (single, double))
    assert ((a - b).abs() <= 1).double().mean() >= 0.999


def test_seed_case_and_number_change_the_draw(make_posterior, observed):
    posterior = make_posterior()
    pixels, mask = (part[:1].expand(2, -1, -1, -1) for part in observed)
    drawn = posterior.sample(posterior.observe(pixels, mask, ("a", "b")), 2)
    other_seed = posterior.sample(posterior.observe(pixels, mask, ("a", "b")), 2, seed=1)
    images = [*drawn.flatten(0, 1), *other_seed.flatten(0, 1)]
    assert len({image.numpy().tobytes() for image in images}) == 8


def test_global_generator_is_not_used(make_posterior, observed):
    posterior = make_posterior()
    state = torch.get_rng_state()
    drawn = posterior.sample(observe(posterior, observed), 2)
    posterior.bound(observed[0], observe(posterior, observed))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert torch.equal(posterior.sample(observe(posterior, observed), 2), drawn)


@pytest.mark.parametrize("channels", [1, 3])
def test_observed_pixels_are_pasted_exactly(make_posterior, make_pixels, channels):
    posterior = make_posterior(channels=channels)
    pixels, mask = make_pixels(2, channels), make_pixels(2, 1, seed=3) > 128
    observation = posterior.observe(pixels, mask)
    where = mask.expand_as(pixels)
    pasted = posterior.sample(observation, 3)
    raw = posterior.sample(observation, 3, paste_observed=False)
    for image, model_output in zip(pasted, raw, strict=True):
        assert torch.equal(image[where], pixels[where])
        assert torch.equal(image[~where], model_output[~where])
        assert not torch.equal(model_output[where], pixels[where])


def test_temperature_zero_leaves_one_path(make_posterior, observed):
    posterior = make_posterior()
    cold, _ = likelihood_parameters(posterior, observe(posterior, observed), 3, temperature=0.0)
    warm, _ = likelihood_parameters(posterior, observe(posterior, observed), 3)
    for case in ("case-0", "case-1", "case-2"):
        assert torch.equal(cold[case, 0], cold[case, 1])
        assert torch.equal(cold[case, 0], cold[case, 2])
        assert not torch.equal(warm[case, 0], warm[case, 1])
    assert not torch.equal(cold["case-0", 0], cold["case-1", 0])


class StandardNormal(UnconditionalLatents):
    """c(z | y) with mean 0 and standard deviation 1, so that z = temperature * noise."""

    def distribution(self, group, h, features):
        del h, features
        zeros = group.prior.mean * 0
        return DiagonalGaussian(zeros, zeros)


def latents_of(vae, observation, **options):
    """Latents of each group for one completion of each case, z = temperature * noise."""
    posterior = ImagePosterior(ConditionalModel(vae, StandardNormal()), Inpainting())
    latents = []
    hooks = [
        block.z_proj.register_forward_pre_hook(lambda _, z: latents.append(z[0]))
        for block in vae.decoder.dec_blocks
    ]
    posterior.sample(observation, 1, **options)
    for hook in hooks:
        hook.remove()
    return latents


def test_temperature_per_group(make_posterior, observed):
    posterior = make_posterior()
    observation, vae = observe(posterior, observed), posterior.model.vae
    noise = latents_of(vae, observation)
    temperatures = (0.5, 0.0, 2.0, 1.0)
    for z, e, t in zip(
        latents_of(vae, observation, temperature=temperatures), noise, temperatures, strict=True
    ):
        torch.testing.assert_close(z, t * e)
    for z, e in zip(latents_of(vae, observation, temperature=0.25), noise, strict=True):
        torch.testing.assert_close(z, 0.25 * e)


def test_noise_is_standard_normal_and_differs_between_groups(make_posterior, make_pixels):
    posterior = make_posterior(decoder="1x1,4m1,8m4,8x1,16m8,16x1")
    pixels = make_pixels(40)
    noise = latents_of(posterior.model.vae, posterior.observe(pixels, pixels[:, :1] > 300))
    values = torch.cat([e.flatten(1) for e in noise], dim=1)
    assert values.mean().abs() < 4 / values.numel() ** 0.5
    assert (values.std() - 1).abs() < 4 / (2 * values.numel()) ** 0.5
    assert not torch.equal(noise[2], noise[3])
    # Neighbours in a case, and cases, are uncorrelated.
    assert (values[:, 1:] * values[:, :-1]).mean().abs() < 4 / values.numel() ** 0.5
    assert (values[1:] * values[:-1]).mean().abs() < 4 / values.numel() ** 0.5


def test_temperatures_of_every_kind(make_posterior, observed):
    posterior = make_posterior()
    observation = observe(posterior, observed, (0,))
    one = posterior.sample(observation, 2, temperature=0.5)
    for same in (
        np.float32(0.5),
        [0.5] * GROUPS,
        (0.5,) * GROUPS,
        np.full(GROUPS, 0.5),
        torch.full((GROUPS,), 0.5),
    ):
        assert torch.equal(posterior.sample(observation, 2, temperature=same), one)
    assert not torch.equal(posterior.sample(observation, 2, temperature=(0.5, 0.5, 0.5, 1.0)), one)


@pytest.mark.parametrize("length", [0, 1, 3, 5])
@pytest.mark.parametrize("kind", [tuple, np.array])
def test_wrong_number_of_temperatures(make_posterior, observed, length, kind):
    posterior = make_posterior()
    with pytest.raises(ConfigurationError, match=f"with {length} values: expected one number or 4"):
        posterior.sample(observe(posterior, observed), 1, temperature=kind([1.0] * length))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n = 0: expected > 0"),
        ({"n": -1}, "n = -1: expected > 0"),
        ({"batch_size": 0}, "batch_size = 0: expected > 0"),
        ({"temperature": -0.1}, "temperature = -0.1: expected >= 0"),
        ({"temperature": (1.0, 1.0, -1.0, 1.0)}, "temperature = -1.0: expected >= 0"),
        ({"temperature": float("nan")}, "temperature = nan: expected >= 0"),
    ],
)
def test_sample_refuses(make_posterior, observed, options, message):
    posterior = make_posterior()
    with pytest.raises(ConfigurationError, match=message):
        posterior.sample(observe(posterior, observed), **{"n": 1, **options})


@pytest.mark.parametrize(("n", "batch_size"), [(1, 256), (7, 256), (7, 2), (3, 1)])
def test_partial_encoder_sees_each_case_once(make_posterior, observed, n, batch_size):
    posterior = make_posterior()
    cases = []
    posterior.model.latents.encoder.register_forward_hook(
        lambda module, arguments, _: cases.append(len(arguments[0]))
    )
    posterior.sample(observe(posterior, observed), n, batch_size=batch_size)
    assert sum(cases) == 3
    assert len(cases) == math.ceil(3 / batch_size)


@pytest.mark.parametrize("batch_size", [1, 2, 4, 256])
def test_stream_covers_every_pair_once_case_by_case(make_posterior, observed, batch_size):
    posterior = make_posterior()
    observation = observe(posterior, observed)
    pairs, whole = [], posterior.sample(observation, 3)
    for cases, ks, pixels in posterior.stream(observation, 3, batch_size=batch_size):
        assert len(cases) == len(ks) == len(pixels) <= batch_size
        assert torch.equal(pixels, whole[ks, cases])
        pairs += zip(cases.tolist(), ks.tolist(), strict=True)
    assert pairs == [(case, k) for case in range(3) for k in range(3)]


LEVELS = (0.0, 0.05, 0.3, 0.5, 0.95, 1.0)


@pytest.mark.parametrize("n", [2, 7, 20])
def test_summary_is_that_of_the_samples(make_posterior, observed, n):
    posterior = make_posterior()
    observation = observe(posterior, observed)
    options = {"temperature": 0.8, "seed": 5, "batch_size": 4}
    drawn = posterior.sample(observation, n, **options).numpy().astype(np.float64)
    summary = posterior.summarise(observation, n, quantiles=LEVELS, **options)
    assert summary.n == n
    np.testing.assert_allclose(summary.mean, drawn.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(
        summary.standard_deviation, drawn.std(axis=0, ddof=1), rtol=1e-5, atol=1e-5
    )
    ordered = np.sort(drawn, axis=0)
    shares = np.arange(1, n + 1) / n
    for level in LEVELS:
        # The smallest drawn value with at least that share of the draws at or below it.
        expected = ordered[np.flatnonzero(shares >= level)[0]]
        np.testing.assert_array_equal(summary.quantiles[level].numpy(), expected)
        if level > 0:
            numpys = np.quantile(drawn, level, axis=0, method="inverted_cdf")
            np.testing.assert_array_equal(summary.quantiles[level].numpy(), numpys)
    where = observation.mask.expand_as(summary.mean)
    assert summary.standard_deviation[where].max() == 0.0
    assert torch.equal(summary.mean[where], observed[0][where].float())


def test_quantiles_at_exact_shares_are_not_shifted_by_rounding(make_posterior, observed):
    # 0.07 * 100 is a little more than 7 in floating point.
    posterior = make_posterior()
    observation = observe(posterior, observed, (0,))
    drawn = posterior.sample(observation, 100).sort(dim=0).values
    levels = (0.07, 0.14, 0.28, 0.29, 0.55, 0.56, 0.57, 0.58)
    summary = posterior.summarise(observation, 100, quantiles=levels)
    for level in levels:
        assert torch.equal(summary.quantiles[level], drawn[round(100 * level) - 1])


def test_summary_of_raw_output(make_posterior, observed):
    posterior = make_posterior()
    observation = observe(posterior, observed)
    drawn = posterior.sample(observation, 3, paste_observed=False).double()
    summary = posterior.summarise(observation, 3, paste_observed=False)
    np.testing.assert_allclose(summary.mean, drawn.mean(dim=0), rtol=1e-6)
    assert set(summary.quantiles) == {0.05, 0.5, 0.95}


@pytest.mark.parametrize(
    ("n", "options", "message"),
    [
        (1, {}, "n = 1: a standard deviation needs at least 2"),
        (3, {"quantiles": (0.5, 1.5)}, "quantile level 1.5: expected in"),
        (3, {"quantiles": (-0.1,)}, "quantile level -0.1: expected in"),
    ],
)
def test_summary_refuses(make_posterior, observed, n, options, message):
    posterior = make_posterior()
    with pytest.raises(ConfigurationError, match=message):
        posterior.summarise(observe(posterior, observed), n, **options)


@pytest.mark.parametrize("channels", [1, 3])
def test_bound_against_a_computation_by_hand(make_posterior, make_pixels, monkeypatch, channels):
    posterior = make_posterior(channels=channels)
    pixels, mask = make_pixels(1, channels), make_pixels(1, 1, seed=3) > 128
    observation = posterior.observe(pixels, mask, ("one",))
    monkeypatch.setattr(
        "condvae.posterior.image_posterior.case_generator",
        lambda *_: torch.Generator().manual_seed(11),
    )
    terms = posterior.bound(pixels, observation)

    vae, partial = posterior.model.vae, posterior.model.latents
    generator = torch.Generator().manual_seed(11)
    activations = vae.encode(pixels)
    features = partial.encode(observation.condition.double())
    log_ratio = []

    def choose(group, h):
        noise = torch.randn(group.latent_shape[1:], generator=generator).double()
        q, c = (
            Normal(d.mean, d.log_std.exp())
            for d in (
                group.block.posterior(h, activations[group.block.resolution]),
                partial.distribution(group, h, features),
            )
        )
        log_ratio.append(kl_divergence(q, c).sum())
        return q.mean + q.stddev * noise

    output = vae.decoder.descend(choose, 1)
    log_prob = vae.likelihood.log_prob(
        vae.decoder.out_net.out_conv(output), (pixels.double() - 127.5) / 127.5
    )
    torch.testing.assert_close(terms.rate_nats[0], torch.stack(log_ratio), rtol=1e-9, atol=1e-9)
    everything = -log_prob.sum()
    hidden = -log_prob[~mask[:, 0]].sum()
    torch.testing.assert_close(terms.all_nats[0], everything, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(terms.predicted_nats[0], hidden, rtol=1e-9, atol=1e-9)
    rate = torch.stack(log_ratio).sum()
    assert terms.bound_bits.item() == pytest.approx(((rate + hidden) / math.log(2)).item())
    assert terms.negative_elbo_nats_per_dim.item() == pytest.approx(
        ((rate + everything) / (channels * 256)).item()
    )
    assert terms.predicted_dimensions.tolist() == [channels * int((~mask).sum())]
    assert terms.dimensions == channels * 256


def test_bound_of_all_and_of_nothing_observed(make_posterior, make_pixels):
    posterior, pixels = make_posterior(), make_pixels(2)
    full = posterior.bound(pixels, posterior.observe(pixels, torch.ones(1, 1, 16, 16)))
    assert full.predicted_nats.tolist() == [0.0, 0.0]
    assert full.predicted_dimensions.tolist() == [0, 0]
    assert full.all_nats.min() > 0
    blank = posterior.bound(pixels, posterior.observe(pixels, torch.zeros(1, 1, 16, 16)))
    assert torch.equal(blank.predicted_nats, blank.all_nats)
    assert blank.predicted_dimensions.tolist() == [256, 256]


def test_bound_belongs_to_the_case(make_posterior, observed):
    posterior = make_posterior()
    whole = posterior.bound(observed[0], observe(posterior, observed), seed=3)
    assert whole.rate_nats.shape == (3, GROUPS)
    for rows, batch_size in (((0, 1, 2), 2), ((2, 0), 256), ((1,), 1)):
        part = posterior.bound(
            observed[0][list(rows)],
            observe(posterior, observed, rows),
            seed=3,
            batch_size=batch_size,
        )
        for name in ("rate_nats", "predicted_nats", "all_nats", "predicted_dimensions"):
            torch.testing.assert_close(
                getattr(part, name), getattr(whole, name)[list(rows)], rtol=1e-9, atol=1e-9
            )
    other = posterior.bound(observed[0], observe(posterior, observed), seed=4)
    assert (other.all_nats - whole.all_nats).abs().min() > 1e-6


def test_bound_with_the_prior_and_a_blank_mask_is_the_negative_elbo(make_posterior, observed):
    posterior = make_posterior()
    posterior = dataclasses.replace(
        posterior, model=ConditionalModel(posterior.model.vae, UnconditionalLatents())
    )
    terms = posterior.bound(observed[0], posterior.observe(observed[0], torch.zeros(1, 1, 16, 16)))
    torch.testing.assert_close(
        terms.bound_bits * math.log(2) / 256, terms.negative_elbo_nats_per_dim
    )


@pytest.mark.parametrize("rows", [[0], [0, 1], [0, 1, 2, 0]])
def test_bound_refuses_another_number_of_images(make_posterior, observed, rows):
    posterior = make_posterior()
    with pytest.raises(ConfigurationError, match=f"{len(rows)} images for 3 observations"):
        posterior.bound(observed[0][rows], observe(posterior, observed))


def test_bound_refuses_images_of_another_size(make_posterior, observed, make_pixels):
    posterior = make_posterior()
    with pytest.raises(ConfigurationError, match=r"shape \(3, 1, 8, 8\)"):
        posterior.bound(make_pixels(3, 1, 8), observe(posterior, observed))


@pytest.mark.parametrize("channels", [1, 3])
def test_observation_bound_against_a_computation_by_hand(make_posterior, make_pixels, channels):
    posterior = make_posterior(channels=channels)
    pixels, mask = make_pixels(1, channels), make_pixels(1, 1, seed=3) > 128
    observation = posterior.observe(pixels, mask, ("one",))
    terms = posterior.observation_bound(observation, draws=2, seed=4)

    vae, partial = posterior.model.vae, posterior.model.latents
    features = partial.encode(observation.condition.double())
    rates, nats = [], []
    for draw in range(2):
        generator = case_generator(4, "one", f"observation bound {draw}")
        rate = []

        def choose(group, h, generator=generator, rate=rate):
            noise = torch.randn(group.latent_shape[1:], generator=generator).double()
            c, p = (
                Normal(d.mean, d.log_std.exp())
                for d in (partial.distribution(group, h, features), group.prior)
            )
            rate.append(kl_divergence(c, p).sum())
            return c.mean + c.stddev * noise

        output = vae.decoder.descend(choose, 1)
        log_prob = vae.likelihood.log_prob(
            vae.decoder.out_net.out_conv(output), (pixels.double() - 127.5) / 127.5
        )
        rates.append(torch.stack(rate))
        nats.append(-log_prob[mask[:, 0]].sum())
    assert (nats[0] - nats[1]).abs() > 1e-3
    rate, observed = sum(rates) / 2, sum(nats) / 2
    torch.testing.assert_close(terms.rate_nats[0], rate, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(terms.observed_nats[0], observed, rtol=1e-9, atol=1e-9)
    values = channels * int(mask.sum())
    assert terms.observed_dimensions.tolist() == [values]
    bits = (rate.sum() + observed) / math.log(2) / values
    assert terms.bits_per_observed_dim.item() == pytest.approx(bits.item(), rel=1e-9)


def test_observation_bound_where_c_is_q_is_the_negative_elbo(make_posterior, observed):
    # Copied weights give c(z | all of x) = q(z | x): the bound on log p(y) is the ELBO.
    posterior = make_posterior()
    vae, pixels = posterior.model.vae, observed[0]
    initialise(posterior.model.latents, vae, "copy", 0)
    observation = posterior.observe(pixels, torch.ones(1, 1, 16, 16), ("a", "b", "c"))
    terms = posterior.observation_bound(observation)
    generators = [case_generator(0, name, "observation bound 0") for name in "abc"]
    elbo = vae.elbo(
        pixels,
        lambda group: torch.stack(
            [torch.randn(group.latent_shape[1:], generator=g).double() for g in generators]
        ),
    )
    # Conditions are normalised in single precision.
    torch.testing.assert_close(terms.rate_nats, elbo.rate_nats, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        terms.bits_per_observed_dim, elbo.negative_elbo_nats / math.log(2) / 256, rtol=1e-6, atol=0
    )


def test_observation_bound_with_the_prior_has_no_rate(make_posterior, observed):
    posterior = make_posterior()
    model = ConditionalModel(posterior.model.vae, UnconditionalLatents())
    posterior = dataclasses.replace(posterior, model=model)
    terms = posterior.observation_bound(observe(posterior, observed))
    assert terms.rate_nats.abs().max() == 0
    assert terms.observed_nats.min() > 0


def test_observation_bound_of_nothing_observed(make_posterior, make_pixels):
    posterior, pixels = make_posterior(), make_pixels(2)
    mask = torch.zeros(2, 1, 16, 16)
    mask[1, :, 0] = 1
    terms = posterior.observation_bound(posterior.observe(pixels, mask))
    assert terms.observed_dimensions.tolist() == [0, 16]
    assert terms.observed_nats[0] == 0
    assert terms.bits_per_observed_dim[0].isnan()
    assert terms.bits_per_observed_dim[1].isfinite()


def test_observation_bound_belongs_to_the_case(make_posterior, observed):
    posterior = make_posterior()
    whole = posterior.observation_bound(observe(posterior, observed), draws=2, seed=3)
    assert whole.rate_nats.shape == (3, GROUPS)
    for rows, batch_size in (((0, 1, 2), 2), ((2, 0), 256), ((1,), 1)):
        part = posterior.observation_bound(
            observe(posterior, observed, rows), draws=2, seed=3, batch_size=batch_size
        )
        for name in ("rate_nats", "observed_nats", "observed_dimensions"):
            torch.testing.assert_close(
                getattr(part, name), getattr(whole, name)[list(rows)], rtol=1e-9, atol=1e-9
            )
    other = posterior.observation_bound(observe(posterior, observed), draws=2, seed=4)
    assert (other.observed_nats - whole.observed_nats).abs().min() > 1e-6


@pytest.mark.parametrize("name", ["draws", "batch_size"])
def test_observation_bound_refuses(make_posterior, observed, name):
    posterior = make_posterior()
    with pytest.raises(ConfigurationError, match=f"{name} = 0: expected > 0"):
        posterior.observation_bound(observe(posterior, observed), **{name: 0})


def test_running_out_of_memory_names_the_parameter(make_posterior, observed, monkeypatch):
    posterior = make_posterior()

    def no_memory(*_):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(ConditionalModel, "sample_output", no_memory)
    with pytest.raises(ConfigurationError, match=r"sampling\.batch_size = 8; lower it"):
        posterior.sample(observe(posterior, observed), 1, batch_size=8)
