"""The partial encoder with flows after its Gaussian heads."""

from __future__ import annotations

import math

import pytest
import torch

from condvae.ground.configuration import ConfigurationError
from condvae.ground.distributions import DiagonalGaussian
from condvae.ground.images import encoder_input
from condvae.ipa import (
    INITIALISATIONS,
    ConditionalModel,
    PartialEncoder,
    forward_kl,
    heads_for,
    initialise,
    run_trunk,
)
from condvae.ipa.heads import normalise_flows, parse_flows
from condvae.models.folder import load_posterior, save_posterior
from condvae.models.official_layout import write_official_conditional
from condvae.posterior.image_posterior import ImagePosterior
from condvae.posterior.importance import importance_bound
from condvae.tasks import Inpainting
from condvae.training import ObjectiveConfig
from condvae.training.objectives import check_objective

FLOWS = "1:spline,4:affine"


def set_flows(partial, scale=0.3, seed=7):
    """Flows far from the identity."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in partial.flows.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))


def condition_of(vae, pixels, mask):
    visible = encoder_input(pixels, vae.contract, torch.float64) * mask
    return torch.cat([visible, mask.double()], dim=1)


@pytest.fixture(params=["absolute", "residual"])
def setting(request, make_vae, make_pixels):
    """A VAE with groups at 1, 4, 4, 8, 16; partial encoders of one seed without and with flows."""
    vae, pixels = make_vae(decoder="1x1,4m1,4x1,8m4,16m8"), make_pixels(3)
    torch.manual_seed(4)
    flowing = PartialEncoder(vae, 2, request.param, FLOWS).double()
    plain = PartialEncoder(vae, 2, request.param).double()
    state = flowing.state_dict()
    plain.load_state_dict({k: v for k, v in state.items() if not k.startswith("flows.")})
    condition = condition_of(vae, pixels, make_pixels(3, seed=2) > 100)
    return vae, plain, flowing, pixels, condition


def test_flows_stand_where_they_are_asked_for(setting):
    vae, _, flowing, _, _ = setting
    assert list(flowing.flows) == ["0", "1", "2"]
    state = {k for k in flowing.state_dict() if k.startswith("flows.")}
    assert state == {f"flows.{k}" for k, _ in flowing.flows.named_parameters()}
    z, bins = vae.architecture.latent_channels, 23
    outputs = [flow.layers[1].last.out_channels for flow in flowing.flows.values()]
    assert outputs == [z * bins, z * 2, z * 2]


def test_new_flows_change_nothing(setting, make_noise):
    vae, plain, flowing, pixels, condition = setting
    trunk = run_trunk(vae, pixels, make_noise(), output=True, priors=True)
    expected = forward_kl(trunk, plain, condition)
    # Not only on average over z: the estimate has no noise as long as the flow is the identity.
    torch.testing.assert_close(forward_kl(trunk, flowing, condition), expected, rtol=0, atol=1e-9)
    outputs = []
    for partial in (plain, flowing):
        features = partial.encode(condition)
        model = ConditionalModel(vae, partial)
        outputs.append(model.sample_output(features, 3, make_noise(1), 0.8))
    torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("group", [0, 1])
def test_flow_sees_the_hidden_state_and_y(setting, group):
    _, _, flowing, _, _ = setting
    set_flows(flowing)
    with torch.no_grad():  # so that nothing comes through the Gaussian
        for parameter in flowing.heads[group].c4.parameters():
            parameter.zero_()
    size = 1 if group == 0 else 4
    z, zeros = torch.randn(3, 2, size, size).double(), torch.zeros(3, 2, size, size).double()
    h, features = torch.randn(2, 3, 16, size, size).double()

    def log_prob(h, features):
        c = flowing.conditional(group, h, features, DiagonalGaussian(zeros, zeros))
        return c.log_prob(z).flatten(1).sum(dim=1)

    expected = log_prob(h, features)
    assert torch.equal(log_prob(h, features), expected)
    for changed in (log_prob(-h, features), log_prob(h, -features)):
        assert (changed - expected).abs().min() > 1e-3


@pytest.mark.parametrize("heads", ["absolute", "residual"])
def test_a_mixture_at_the_top_of_a_frozen_vae(make_vae, make_pixels, make_noise, heads):
    """New, it is nearly the Gaussian; trained, its KL is an unbiased estimate."""
    vae, n = make_vae(decoder="1x1,4m1,8m4,16m8"), 200
    torch.manual_seed(4)
    partial = PartialEncoder(vae, 2, heads, "1:mixture,4:affine").double()
    assert partial.flow_kinds == "1:mixture,4:affine"
    pixels = make_pixels(1).repeat(n, 1, 1, 1)
    condition = condition_of(vae, pixels, make_pixels(1, seed=2).expand(n, -1, -1, -1) > 100)
    trunk = run_trunk(vae, pixels, make_noise(), priors=True)
    plain = PartialEncoder(vae, 2, heads).double()
    state = partial.state_dict()
    plain.load_state_dict({k: v for k, v in state.items() if not k.startswith("flows.")})
    expected = forward_kl(trunk, plain, condition)
    new = forward_kl(trunk, partial, condition)
    torch.testing.assert_close(new[:, 1:], expected[:, 1:], rtol=0, atol=1e-9)
    assert abs((new - expected)[:, 0].mean()) < 0.1 * expected[:, 0].mean()
    set_flows(partial)
    with torch.no_grad():
        h, q, p, z = trunk.hidden[0], trunk.posteriors[0], trunk.priors[0], trunk.latents[0]
        c = partial.conditional(0, h, partial.encode(condition)[1], p)
        ratio = (q.log_prob(z) - c.log_prob(z)).flatten(1).sum(dim=1)
        estimate = forward_kl(trunk, partial, condition)
        assert (estimate[:, 0] - expected[:, 0]).abs().max() > 0.1
        difference = ratio - estimate[:, 0]
        assert abs(difference.mean()) < 4 * difference.std() / math.sqrt(n)
        rate, _ = ConditionalModel(vae, partial).rate_nats(pixels, condition, make_noise())
        torch.testing.assert_close(rate, estimate, rtol=0, atol=1e-10)
    forward_kl(trunk, partial, condition).sum().backward()
    for name, parameter in partial.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert (parameter.grad != 0).any(), name


def test_mixtures_are_for_the_smallest_groups_and_the_forward_kl(make_vae):
    for text in ("4:mixture", "1:spline,16:mixture"):
        with pytest.raises(ConfigurationError, match="a mixture is for groups of 1x1"):
            parse_flows(text)
    check_objective(ObjectiveConfig("ipa"), Inpainting(), "1:mixture")
    check_objective(ObjectiveConfig("ipa_r"), Inpainting(), "1:spline")
    with pytest.raises(
        ConfigurationError, match=r"'1:mixture': objective\.name = 'ipa_r' needs grad"
    ):
        check_objective(ObjectiveConfig("ipa_r"), Inpainting(), "1:mixture")


@pytest.mark.parametrize("flows", [FLOWS, "1:mixture"])
def test_posteriors_with_flows_come_back_the_same(make_vae, make_pixels, tmp_path, flows):
    vae, pixels, mask = make_vae(), make_pixels(2), make_pixels(2, seed=2) > 100
    partial = PartialEncoder(vae, 2, flows=flows).double()
    set_flows(partial)
    posterior, observation = posterior_with(vae, partial, pixels, mask)
    save_posterior(tmp_path, posterior, {"name": "stand-in"})
    found = load_posterior(tmp_path)
    drawn = found.sample(found.observe(pixels, mask), 2, seed=3)
    assert (drawn.int() - posterior.sample(observation, 2, seed=3).int()).abs().max() <= 1


def test_new_flows_change_no_gradient_either(setting, make_noise):
    vae, plain, flowing, pixels, condition = setting
    trunk = run_trunk(vae, pixels, make_noise(), priors=True)
    for partial in (plain, flowing):
        forward_kl(trunk, partial, condition).sum().backward()
    own = dict(flowing.named_parameters())
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(own[name].grad, parameter.grad, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("floor", [None, -8.0])
def test_forward_kl_is_an_unbiased_estimate(setting, make_noise, floor):
    """Against log q(z) - log c(z) at the same draws: the same mean, less noise."""
    vae, plain, flowing, pixels, condition = setting
    set_flows(flowing)
    n = 60
    pixels, condition = pixels[:1].repeat(n, 1, 1, 1), condition[:1].repeat(n, 1, 1, 1)
    with torch.no_grad():
        trunk = run_trunk(vae, pixels, make_noise(), priors=True)
        estimate = forward_kl(trunk, flowing, condition, log_std_floor=floor)
        features = flowing.encode(condition)
        ratios = []
        for index, (h, q, p, z) in enumerate(
            zip(trunk.hidden, trunk.posteriors, trunk.priors, trunk.latents, strict=True)
        ):
            c = flowing.conditional(index, h, features[h.shape[2]], p)
            ratios.append((q.log_prob(z) - c.log_prob(z)).flatten(1).sum(dim=1))
        gaussian = forward_kl(trunk, plain, condition)
    difference = torch.stack(ratios, dim=1)[:, :3] - estimate[:, :3]
    assert estimate.shape == (n, 5)
    assert difference.abs().max() > 0.1
    error = difference.std(dim=0) / math.sqrt(n)
    assert (difference.mean(dim=0).abs() < 4 * error).all()
    # Groups without a flow are in closed form.
    torch.testing.assert_close(estimate[:, 3:], gaussian[:, 3:], rtol=0, atol=1e-9)
    assert (estimate[:, :3] - gaussian[:, :3]).abs().max() > 0.1


def test_gradients_reach_every_trained_weight_and_nothing_else(setting, make_noise):
    vae, _, flowing, pixels, condition = setting
    frozen = {name: value.clone() for name, value in vae.state_dict().items()}
    before = {name: value.clone() for name, value in flowing.state_dict().items()}
    optimizer = torch.optim.SGD(flowing.parameters(), lr=1e-5)
    # The last layers start at zero and hide those before them from the first step.
    for _ in range(3):
        optimizer.zero_grad()
        trunk = run_trunk(vae, pixels, make_noise(), priors=True)
        forward_kl(trunk, flowing, condition).sum().backward()
        gradients = {name: p.grad for name, p in flowing.named_parameters()}
        optimizer.step()
    assert [n for n, g in gradients.items() if g is None or not g.isfinite().all()] == []
    assert [n for n, g in gradients.items() if g.abs().max() == 0] == []
    same = [n for n, v in flowing.state_dict().items() if torch.equal(v, before[n])]
    assert same == []
    assert all(torch.equal(v, frozen[n]) for n, v in vae.state_dict().items())
    assert all(p.grad is None for p in vae.parameters())


def test_gradient_is_the_slope(setting, make_noise):
    vae, _, flowing, pixels, condition = setting
    set_flows(flowing)
    trunk = run_trunk(vae, pixels, make_noise(), priors=True)
    weights = [flowing.flows["0"].layers[0].last.weight, flowing.flows["1"].layers[1].context.bias]
    weights += [flowing.heads[0].c4.bias, flowing.encoder.in_conv.weight]
    forward_kl(trunk, flowing, condition).sum().backward()
    for weight in weights:
        flat, values = weight.detach().view(-1), []
        entry = int(weight.grad.abs().argmax())
        for sign in (1e-6, -2e-6, 1e-6):
            flat[entry] += sign
            with torch.no_grad():
                values.append(forward_kl(trunk, flowing, condition).sum().item())
        slope = (values[0] - values[1]) / 2e-6
        assert weight.grad.view(-1)[entry].item() == pytest.approx(slope, rel=1e-4)


def test_floor_keeps_copied_heads_finite(setting, make_noise):
    vae, _, flowing, pixels, condition = setting
    set_flows(flowing)
    with torch.no_grad():
        flowing.heads[1].c4.bias[2:] = -400.0
    trunk = run_trunk(vae, pixels, make_noise(), priors=True)
    assert not forward_kl(trunk, flowing, condition).isfinite().all()
    floored = forward_kl(trunk, flowing, condition, log_std_floor=-8.0)
    floored.sum().backward()
    assert floored.isfinite().all()
    assert all(p.grad.isfinite().all() for p in flowing.parameters())


def test_rate_nats_equals_the_objective_for_the_same_noise(setting, make_noise):
    vae, _, flowing, pixels, condition = setting
    set_flows(flowing)
    trunk = run_trunk(vae, pixels, make_noise(), priors=True, output=True)
    rate, output = ConditionalModel(vae, flowing).rate_nats(pixels, condition, make_noise())
    torch.testing.assert_close(rate, forward_kl(trunk, flowing, condition), rtol=0, atol=1e-10)
    torch.testing.assert_close(output, trunk.output, rtol=0, atol=1e-12)


def posterior_with(vae, partial, pixels, mask):
    posterior = ImagePosterior(ConditionalModel(vae, partial), Inpainting())
    return posterior, posterior.observe(pixels, mask)


def test_bounds_agree_on_average(setting, make_pixels):
    """One draw's importance-weighted bound has the expectation of the bound with KL terms."""
    vae, _, flowing, _, _ = setting
    set_flows(flowing, 0.1)
    pixels, mask, n = make_pixels(1), make_pixels(1, seed=2) > 100, 100
    posterior, observation = posterior_with(
        vae, flowing, pixels.repeat(n, 1, 1, 1), mask.repeat(n, 1, 1, 1)
    )
    bound = posterior.bound(pixels.repeat(n, 1, 1, 1), observation).bound_bits
    weighted = importance_bound(posterior, pixels.repeat(n, 1, 1, 1), observation, [1])
    bits = weighted.bound_bits[1]
    error = math.hypot(bound.std(), bits.std()) / math.sqrt(n)
    assert bits.std() > 0
    assert abs(bound.mean() - bits.mean()) < 4 * error


def test_observation_bound_takes_the_flows_density(setting, make_pixels):
    vae, plain, flowing, _, _ = setting
    n = 150
    pixels, mask = make_pixels(1).repeat(n, 1, 1, 1), make_pixels(1, seed=2) > 100
    rates = []
    for partial in (plain, flowing):
        posterior, observation = posterior_with(vae, partial, pixels, mask)
        rates.append(posterior.observation_bound(observation).rate_nats)
    # New flows draw the same, and KL(c || p) of their groups is estimated instead of exact.
    torch.testing.assert_close(rates[0][:, 3:], rates[1][:, 3:], rtol=1e-9, atol=1e-9)
    difference = (rates[1] - rates[0])[:, :3]
    error = difference.std(dim=0) / math.sqrt(n)
    assert error.min() > 0
    assert (difference.mean(dim=0).abs() < 4 * error).all()


def test_samples_depend_on_the_case_alone(setting, make_pixels):
    vae, _, flowing, _, _ = setting
    set_flows(flowing)
    pixels, mask = make_pixels(3), make_pixels(3, seed=2) > 100
    posterior, observation = posterior_with(vae, flowing, pixels, mask)
    drawn = posterior.sample(observation, 4, temperature=0.9)
    assert torch.equal(posterior.sample(observation, 4, temperature=0.9, batch_size=2), drawn)
    assert torch.equal(posterior.sample(observation, 2, temperature=0.9), drawn[:2])


@pytest.mark.parametrize("how", INITIALISATIONS)
def test_initialisation_with_flows(make_vae, make_pixels, make_noise, how):
    vae, pixels = make_vae(decoder="1x1,4m1,8m4,16m8"), make_pixels(3)
    heads = heads_for(how)
    plain, first, second = (
        PartialEncoder(vae, 2, heads, flows).double() for flows in ("", FLOWS, FLOWS)
    )
    state = torch.get_rng_state()
    for partial, seed in ((plain, 1), (first, 1), (second, 1)):
        initialise(partial, vae, how, seed)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))
    own = first.state_dict()
    assert all(torch.equal(own[name], v) for name, v in plain.state_dict().items())
    initialise(second, vae, how, 2)
    changed = [n for n, v in second.state_dict().items() if not torch.equal(v, own[n])]
    assert any(name.startswith("flows.") for name in changed)
    # c(z | y) starts as the Gaussian that it would be without flows.
    condition = condition_of(vae, pixels, torch.ones_like(pixels[:, :1]))
    trunk = run_trunk(vae, pixels, make_noise(), priors=True)
    kl = forward_kl(trunk, first, condition)
    torch.testing.assert_close(kl, forward_kl(trunk, plain, condition), rtol=1e-10, atol=1e-9)
    if how == "copy":
        assert kl.abs().max() < 1e-9


def test_no_layers_are_the_gaussian(setting, make_noise):
    vae, plain, _, pixels, condition = setting
    empty = PartialEncoder(vae, 2, plain.head_kind, FLOWS, 0).double()
    empty.load_state_dict(plain.state_dict())
    trunk = run_trunk(vae, pixels, make_noise(), priors=True)
    expected = forward_kl(trunk, plain, condition)
    torch.testing.assert_close(forward_kl(trunk, empty, condition), expected, rtol=0, atol=1e-9)


def test_flows_of_groups_that_are_not_there(make_vae):
    with pytest.raises(
        ConfigurationError, match="resolution of flows = 2: expected one of 1, 4, 8, 16"
    ):
        PartialEncoder(make_vae(), 2, flows="2:affine")


@pytest.mark.parametrize(
    ("text", "kinds", "normal"),
    [
        ("", {}, ""),
        ("  ", {}, ""),
        ("4:affine, 1:spline", {1: "spline", 4: "affine"}, "1:spline,4:affine"),
        ("16:affine 8:affine", {8: "affine", 16: "affine"}, "8:affine,16:affine"),
    ],
)
def test_flows_are_read(text, kinds, normal):
    assert parse_flows(text) == kinds
    assert list(parse_flows(text)) == sorted(kinds)
    assert normalise_flows(text) == normal
    assert parse_flows(normal) == kinds


@pytest.mark.parametrize("text", ["spline", "1", "1:cubic", "0:spline", "1:spline,1:affine", "1:"])
def test_flows_that_cannot_be_read(text):
    with pytest.raises(ConfigurationError, match=r"flows = .* kind one of affine, spline"):
        parse_flows(text)


def test_flows_are_not_written_in_the_official_layout(tmp_path, make_vae):
    vae = make_vae()
    with pytest.raises(ConfigurationError, match="flows '1:affine' cannot be written in the off"):
        write_official_conditional(tmp_path / "m.th", vae, PartialEncoder(vae, 2, flows="1:affine"))
    assert not (tmp_path / "m.th").exists()


def test_groups_without_a_flow_stay_gaussian(setting):
    _, _, flowing, _, _ = setting
    h = torch.zeros(1, 16, 8, 8, dtype=torch.float64)
    prior = DiagonalGaussian(h[:, :2], h[:, :2])
    assert isinstance(flowing.conditional(3, h, h, prior), DiagonalGaussian)
