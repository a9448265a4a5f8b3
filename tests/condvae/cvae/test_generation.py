"""Use of the flat model: noise that belongs to images, edits, sweeps, ways; guidance in closed form."""

import math

import pytest
import torch

from condvae.cvae.drawing import draw_latents, draw_noise, encode_conditions
from condvae.cvae.generation import edit, interpolate, sample, sweep, sweep_values
from condvae.cvae.guidance import CANDIDATES, check_guidance, choose_candidates, guide_prior
from condvae.ground.attributes import Attribute
from condvae.ground.configuration import ConfigurationError
from condvae.priors.vector import PRIORS

INVERTIBLE = [prior for prior in PRIORS if prior != "mixture"]


def latents_of(model, y, seed=0, number=0, **options):
    """z, base noise and features of one image of each condition, cases "0", "1", ..."""
    noise = draw_noise(model, seed, [str(i) for i in range(len(y))], [number] * len(y))
    features = encode_conditions(model, y)
    return draw_latents(model, noise, features, **options), noise, features


def mean_images(model, z, y):
    return model.mean_image(model.decode(z, y))


@torch.no_grad()
def gaussian_of(model, y):
    """Mean and std (B,Z) of a Gaussian p(z | y), from densities: log p is quadratic in z."""
    context = model.prior_context(y)
    z = torch.zeros(len(y), model.config.latents, dtype=torch.float64)
    mean, std = z.clone(), z.clone()
    for d in range(model.config.latents):
        step = torch.eye(model.config.latents, dtype=torch.float64)[d]
        low, here, high = (model.prior.log_prob(z + s * step, context) for s in (-1, 0, 1))
        precision = 2 * here - low - high
        mean[:, d] = 0.5 * (high - low) / precision
        std[:, d] = precision.rsqrt()
    return mean, std


# --- samples ---


@pytest.mark.parametrize(
    ("prior", "options"),
    [
        ("mixture", {"pixels": "sample"}),
        ("spline", {"guidance": 2.0}),
        ("mixture", {"guidance": 3.0, "temperature": 0.7}),
    ],
)
def test_an_image_is_the_same_in_any_batch(make_cvae, make_conditions, prior, options):
    model, y = make_cvae(prior=prior), make_conditions(5)
    images = sample(model, y, 3, seed=4, **options)
    assert images.shape == (3, 5, 1, 8, 8)
    assert images.dtype == torch.uint8
    assert torch.equal(images, sample(model, y, 3, seed=4, batch_size=2, **options))
    assert torch.equal(images[:1], sample(model, y, 1, seed=4, **options))
    ids = ["4", "1"]
    assert torch.equal(images[:, [4, 1]], sample(model, y[[4, 1]], 3, 4, case_ids=ids, **options))
    assert not torch.equal(images, sample(model, y, 3, seed=5, **options))
    flat = images.flatten(2).reshape(15, -1)
    assert len(flat.unique(dim=0)) == 15


@pytest.mark.parametrize("prior", INVERTIBLE)
def test_samples_go_through_the_inverse_of_the_flow(make_cvae, make_conditions, prior):
    model, y = make_cvae(prior=prior), make_conditions(6)
    model.prior.standardise(torch.tensor([0.3, -0.2, 0.1]), torch.tensor([1.5, 0.7, 1.0]))
    images = sample(model, y, 2, seed=1)
    for number in (0, 1):
        z, noise, features = latents_of(model, y, seed=1, number=number)
        found = model.prior.to_base(z, features.prior)
        torch.testing.assert_close(found, noise.normals, rtol=0, atol=1e-6)
        assert torch.equal(images[number], mean_images(model, z, y))


@pytest.mark.parametrize("prior", INVERTIBLE)
def test_temperature_scales_the_base_noise(make_cvae, make_conditions, prior):
    model, y = make_cvae(prior=prior), make_conditions(4)
    for temperature in (0.5, 0.0):
        z, noise, features = latents_of(model, y, temperature=temperature)
        found = model.prior.to_base(z, features.prior)
        torch.testing.assert_close(found, temperature * noise.normals, rtol=0, atol=1e-6)
        assert torch.equal(
            sample(model, y, 1, temperature=temperature)[0], mean_images(model, z, y)
        )
    frozen = sample(model, y, 3, temperature=0.0)
    assert (frozen == frozen[:1]).all()


@pytest.mark.parametrize("likelihood", ["optimal", "logistic_mixture"])
def test_pixels_are_drawn_around_the_mean(make_cvae, make_conditions, likelihood):
    model, y = make_cvae(likelihood=likelihood), make_conditions(3)
    z, noise, _ = latents_of(model, y)
    expected = model.sample_image(model.decode(z, y), noise.pixels)
    drawn = sample(model, y, 1, pixels="sample")
    assert torch.equal(drawn[0], expected)
    assert not torch.equal(drawn, sample(model, y, 1))


def test_networks_that_are_blind_to_y_draw_the_same_for_every_condition(make_cvae, make_conditions):
    model = make_cvae(encoder_sees_y=False, decoder_sees_y=False, prior="standard")
    assert torch.equal(
        sample(model, make_conditions(3), 2), sample(model, make_conditions(3, 8), 2)
    )
    pictures = sample(model, make_conditions(3), 1)[0]
    kept = edit(model, pictures, make_conditions(3), make_conditions(3, 8))
    assert torch.equal(kept, edit(model, pictures, make_conditions(3), make_conditions(3)))


def test_wrong_arguments_are_named(make_cvae, make_conditions):
    model, y = make_cvae(), make_conditions(2)
    for options, message in (
        ({"n": 0}, "n = 0"),
        ({"temperature": -1.0}, "temperature = -1.0"),
        ({"pixels": "median"}, "pixels = 'median': expected one of mean, sample"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"case_ids": ["a"]}, "1 case ids for 2 conditions"),
        ({"guidance": -0.5}, "guidance = -0.5"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            sample(model, y, **{"n": 1, **options})
    with pytest.raises(ConfigurationError, match=r"'shade' of condition 0 = 3\.0"):
        sample(model, torch.tensor([[3.0, 0.0]]), 1)
    blind = make_cvae(encoder_sees_y=False, decoder_sees_y=False, prior="standard")
    with pytest.raises(ConfigurationError, match=r"\(B, 2\)"):
        sample(blind, torch.zeros(2, 3), 1)
    assert sample(model, y[:0], 2).shape == (2, 0, 1, 8, 8)


# --- edits ---


@pytest.mark.parametrize("prior", INVERTIBLE)
def test_an_edit_to_the_same_attributes_is_the_reconstruction(
    make_cvae, make_pixels, make_conditions, prior
):
    model, pixels, y = make_cvae(prior=prior), make_pixels(5, size=8), make_conditions(5)
    expected = mean_images(model, model.encode(pixels, y).mean, y)
    found = edit(model, pixels, y, y, batch_size=2).int()
    assert (found - expected.int()).abs().max() <= 1  # rounding at half a grey level
    assert (found == expected.int()).float().mean() > 0.99


def test_an_edit_keeps_what_a_gaussian_leaves_over(make_cvae, make_pixels, make_conditions):
    model, pixels = make_cvae(prior="gaussian"), make_pixels(4, size=8)
    old, new = make_conditions(4), make_conditions(4, seed=9)
    (mean_old, std_old), (mean_new, std_new) = gaussian_of(model, old), gaussian_of(model, new)
    z = model.encode(pixels, old).mean
    moved = mean_new + std_new / std_old * (z - mean_old)
    assert (moved - z).abs().max() > 0.01
    found = edit(model, pixels, old, new).int()
    assert (found - mean_images(model, moved, new).int()).abs().max() <= 1


def test_edits_that_cannot_be_are_refused(make_cvae, make_pixels, make_conditions):
    y = make_conditions(2)
    with pytest.raises(ConfigurationError, match=r"prior = 'mixture'.*expected a Gaussian or"):
        edit(make_cvae(prior="mixture"), make_pixels(2, size=8), y, y)
    with pytest.raises(ConfigurationError, match="3 pictures, 2 conditions before and 2 after"):
        edit(make_cvae(), make_pixels(3, size=8), y, y)
    with pytest.raises(ConfigurationError, match=r"\(B, 1, 8, 8\)"):
        edit(make_cvae(), make_pixels(2, size=9), y, y)


# --- ways and sweeps ---


@pytest.mark.parametrize("prior", ["spline", "mixture"])
def test_a_way_ends_at_samples(make_cvae, make_conditions, prior):
    model, a, b = make_cvae(prior=prior), make_conditions(4), make_conditions(4, seed=7)
    kept = interpolate(model, a, b, 5, seed=3, batch_size=3)
    assert kept.shape == (5, 4, 1, 8, 8)
    assert torch.equal(kept[0], sample(model, a, 1, seed=3)[0])
    assert torch.equal(kept[-1], sample(model, b, 1, seed=3)[0])
    other = interpolate(model, a, b, 5, seed=3, seed_b=8)
    assert torch.equal(other[0], kept[0])
    assert torch.equal(other[-1], sample(model, b, 1, seed=8)[0])
    assert torch.equal(interpolate(model, b, a, 5, seed=3), kept.flip(0))


def test_half_way_features_are_the_means(make_cvae, make_conditions):
    model, a, b = make_cvae(prior="spline"), make_conditions(3), make_conditions(3, seed=7)
    _, noise, _ = latents_of(model, a)
    prior = 0.5 * (model.prior_context(a) + model.prior_context(b))
    z = model.prior.from_base(noise.normals, prior)
    seen = 0.5 * (model.conditions(a) + model.conditions(b))
    half = interpolate(model, a, b, 3)[1].int()
    assert (half - model.mean_image(model.decoder(z, seen)).int()).abs().max() <= 1
    same = interpolate(model, a, a, 4)
    assert (same.int() - same[:1].int()).abs().max() <= 1


def test_noise_on_an_arc_stays_standard_normal(make_cvae):
    model = make_cvae()
    ids = [str(i) for i in range(3000)]
    a, b = (draw_noise(model, seed, ids, [0] * len(ids)) for seed in (1, 2))
    for share in (0.2, 0.5):
        between = a.on_arc(b, share).normals.flatten()
        n = len(between)
        assert abs(between.mean()) < 5 / math.sqrt(n)
        assert abs(between.var() - 1) < 5 * math.sqrt(2 / n)  # a straight line: 0.68, 0.5
    quarter = torch.tensor(math.pi / 4, dtype=torch.float64)
    expected = quarter.cos() * a.normals + quarter.sin() * b.normals
    torch.testing.assert_close(a.on_arc(b, 0.5).normals, expected)


def test_ways_that_are_none_are_refused(make_cvae, make_conditions):
    model, y = make_cvae(), make_conditions(2)
    for options, message in (
        ({"steps": 1}, "steps = 1: expected at least 2"),
        ({"steps": 2, "seed": 4, "seed_b": 4}, "seed = seed_b = 4"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            interpolate(model, y, y, **options)
    with pytest.raises(ConfigurationError, match=r"y_b of shape \(1, 2\)"):
        interpolate(model, y, y[:1], 2)


@pytest.mark.parametrize("prior", ["affine", "mixture"])
def test_in_a_sweep_only_one_attribute_changes(make_cvae, make_conditions, prior):
    model, y = make_cvae(prior=prior), make_conditions(4)
    images = sweep(model, y, "shade", seed=2, batch_size=3)
    assert images.shape == (4, 3, 1, 8, 8)
    for value in range(3):
        changed = torch.stack([torch.full((4,), float(value)), y[:, 1]], dim=1)
        assert torch.equal(images[:, value], sample(model, changed, 1, seed=2)[0])
    numbers = sweep(model, y, "tilt", values=["2", 5.0, None])
    for place, code in enumerate((0.0, 1.0, math.nan)):  # mean 2, std 3
        changed = torch.stack([y[:, 0], torch.full((4,), code)], dim=1)
        assert torch.equal(numbers[:, place], sample(model, changed, 1)[0])
    assert sweep(model, y, "tilt").shape[1] == 5
    with pytest.raises(ConfigurationError, match="'colour': expected one of shade, tilt"):
        sweep(model, y, "colour")
    with pytest.raises(ConfigurationError, match="unknown value 'black'"):
        sweep(model, y, "shade", values=["black"])
    with pytest.raises(ConfigurationError, match="at least one of 'shade'"):
        sweep(model, y, "shade", values=[])


def test_values_of_sweeps():
    assert sweep_values(Attribute("shade", ("dark", "bright"))) == ("dark", "bright")
    assert sweep_values(Attribute("tilt", mean=2.0, std=3.0)) == ("-4", "-1", "2", "5", "8")


# --- guidance ---


def product_law(model, y, weight):
    """Mean and std (B,Z) of p(z | y)^w p(z | unknown)^(1 - w), from the product of the densities."""
    unknown = torch.full_like(y, math.nan)
    (mean, std), (mean_u, std_u) = gaussian_of(model, y), gaussian_of(model, unknown)
    precision = weight / std**2 + (1 - weight) / std_u**2
    natural = weight * mean / std**2 + (1 - weight) * mean_u / std_u**2
    return natural / precision, precision.rsqrt()


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.5])
def test_a_gaussian_is_guided_exactly(make_cvae, make_conditions, weight):
    model, y = make_cvae(prior="gaussian"), make_conditions(5)
    mean, std = product_law(model, y, weight)
    law = guide_prior(model, model.prior_context(y), weight)
    torch.testing.assert_close(law.mean, mean)
    torch.testing.assert_close(law.log_std.exp(), std)
    assert (mean - gaussian_of(model, y)[0]).abs().max() > 1e-3
    z, noise, _ = latents_of(model, y, guidance=weight, temperature=0.5)
    torch.testing.assert_close(z, mean + 0.5 * std * noise.normals)
    images = sample(model, y, 1, guidance=weight, temperature=0.5)[0]
    assert torch.equal(images, mean_images(model, z, y))


@pytest.mark.parametrize("prior", ["spline", "mixture"])
def test_a_candidate_is_chosen_as_often_as_the_densities_say(make_cvae, prior):
    model, n, weight = make_cvae(prior=prior), 20000, 2.5
    y = torch.tensor([[1.0, -0.5]])
    candidates = torch.randn(3, 3, dtype=torch.float64)
    unknown = model.prior_context(torch.full_like(y, math.nan)).expand(3, -1)
    context = model.prior_context(y)
    own = model.prior.log_prob(candidates, context.expand(3, -1))
    ratio = own - model.prior.log_prob(candidates, unknown)
    expected = (ratio.exp() ** (weight - 1)) / (ratio.exp() ** (weight - 1)).sum()
    assert expected.max() - expected.min() > 0.05
    uniform = torch.rand(n, 3, dtype=torch.float64)
    arguments = candidates.expand(n, 3, 3), context.expand(n, -1), uniform
    chosen = choose_candidates(model, *arguments, weight)
    frequency = (chosen[:, None] == candidates).all(dim=2).double().mean(dim=0)
    assert frequency.sum() == 1
    assert (frequency - expected).abs().max() < 5 * 0.5 / math.sqrt(n)


def test_chosen_candidates_follow_the_law_that_is_known(make_cvae):
    """A flow without couplings is the Gaussian, but guided like a flow."""
    model, weight, n = make_cvae(prior="affine", prior_layers=0, latents=1), 3.0, 4000
    y = torch.tensor([[2.0, 1.5]])
    # Farther apart than random weights put them, the condition narrower than the unknown one.
    with torch.no_grad():
        last = model.prior.gaussian[-1]
        parts = model.prior.gaussian[:-1]
        unknown = model.prior_context(torch.full_like(y, math.nan))
        a, b = parts(model.prior_context(y))[0], parts(unknown)[0]
        towards = (a - b) / (a - b).square().sum()
        last.weight[0] += 0.6 * towards
        last.weight[1] -= 0.3 * towards
    mean, std = product_law(model, y, weight)
    plain_mean, plain_std = gaussian_of(model, y)
    assert (mean - plain_mean) > 0.3 * plain_std
    z, _, _ = latents_of(model, y.expand(n, -1), guidance=weight)
    # What is left of the finite number of candidates is below the error of the moments.
    assert abs(z.mean() - mean) < 5 * std / math.sqrt(n) + 4 * std / CANDIDATES
    assert abs(z.std() / std - 1) < 5 / math.sqrt(2 * n) + 4 / CANDIDATES
    assert abs(z.mean() - plain_mean) > 20 * std / math.sqrt(n)


def test_guidance_of_one_changes_nothing(make_cvae, make_conditions):
    model, y = make_cvae(prior="spline"), make_conditions(3)
    assert torch.equal(sample(model, y, 2, guidance=1.0), sample(model, y, 2))
    assert not torch.equal(sample(model, y, 2, guidance=1.5), sample(model, y, 2))


def test_guidance_that_is_not_defined_is_refused(make_cvae):
    for changes, weight, message in (
        ({"prior": "standard"}, 2.0, "guidance = 2.0: prior = 'standard' does not depend on y"),
        ({"drop_share": 0.0}, 2.0, "drop_share = 0.0"),
        ({"prior": "mixture"}, 0.5, "guidance = 0.5: prior = 'mixture'.*expected at least 1"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            check_guidance(make_cvae(**changes), weight)
        check_guidance(make_cvae(**changes), 1.0)
    model, y = make_cvae(prior="gaussian"), torch.tensor([[0.0, 0.0]])
    unknown = torch.full_like(y, math.nan)
    ratio = (gaussian_of(model, y)[1] / gaussian_of(model, unknown)[1]).square().max()
    if ratio < 1:  # then the other way round is too wide
        pytest.fail("choose other weights: the condition is narrower everywhere")
    limit = float(ratio / (ratio - 1))
    sample(model, y, 1, guidance=0.99 * limit)
    with pytest.raises(ConfigurationError, match="expected below"):
        sample(model, y, 1, guidance=1.01 * limit)
