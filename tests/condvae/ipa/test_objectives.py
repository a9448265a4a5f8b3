from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from condvae.ipa import (
    ConditionalModel,
    PartialEncoder,
    UnconditionalLatents,
    forward_kl,
    run_trunk,
)
from condvae.tasks import Inpainting, Subject


@pytest.fixture
def setting(make_vae, make_pixels):
    vae, pixels = make_vae(decoder="1x1,4m1,4x1,8m4,16m8"), make_pixels(3)
    torch.manual_seed(4)
    partial = PartialEncoder(vae, 2).double()
    mask = make_pixels(3, seed=2) > 100
    condition = Inpainting().observe(Subject(pixels, mask), vae.contract).condition.double()
    return vae, partial, pixels, condition


def test_trunk_is_a_pass_with_latents_from_q(setting, make_noise):
    vae, _, pixels, _ = setting
    noise = make_noise()
    trunk = run_trunk(vae, pixels, noise, output=True)
    activations, seen = vae.encode(pixels), []

    def choose(group, h):
        q = group.block.posterior(h, activations[group.block.resolution])
        z = q.mean + q.log_std.exp() * noise(group)
        seen.append((h, q, z))
        return z

    output = vae.decoder.descend(choose, 3)
    assert len(trunk.hidden) == len(trunk.latents) == len(trunk.posteriors) == 5
    for index, (h, q, z) in enumerate(seen):
        torch.testing.assert_close(trunk.hidden[index], h, rtol=0, atol=1e-12)
        torch.testing.assert_close(trunk.latents[index], z, rtol=0, atol=1e-12)
        torch.testing.assert_close(trunk.posteriors[index].log_std, q.log_std, rtol=0, atol=1e-12)
    torch.testing.assert_close(trunk.output, output, rtol=0, atol=1e-12)


@pytest.mark.parametrize("batch", [1, 3])
def test_trunk_records_no_gradient_and_skips_the_output(setting, make_noise, batch):
    vae, _, pixels, _ = setting
    trunk = run_trunk(vae, pixels[:batch], make_noise())
    assert trunk.output.numel() == 0
    tensors = [*trunk.hidden, *trunk.latents, *(q.mean for q in trunk.posteriors)]
    assert not any(tensor.requires_grad for tensor in tensors)


def test_forward_kl_against_torch_distributions(setting, make_noise):
    vae, partial, pixels, condition = setting
    trunk = run_trunk(vae, pixels, make_noise())
    features = partial.encode(condition)
    expected = []
    for head, h, q in zip(partial.heads, trunk.hidden, trunk.posteriors, strict=True):
        mean, log_std = head(torch.cat([h, features[h.shape[2]]], dim=1)).chunk(2, dim=1)
        kl = kl_divergence(Normal(q.mean, q.log_std.exp()), Normal(mean, log_std.exp()))
        expected.append(kl.sum(dim=(1, 2, 3)))
    result = forward_kl(trunk, partial, condition)
    torch.testing.assert_close(result, torch.stack(expected, dim=1), rtol=1e-10, atol=1e-10)
    assert result.shape == (3, 5)


@pytest.mark.parametrize("batch", [1, 3])
def test_gradient_reaches_the_partial_encoder_and_nothing_else(setting, make_noise, batch):
    vae, partial, pixels, condition = setting
    assert all(p.requires_grad for p in vae.parameters())
    trunk = run_trunk(vae, pixels[:batch], make_noise())
    forward_kl(trunk, partial, condition[:batch]).sum().backward()
    assert [name for name, p in vae.named_parameters() if p.grad is not None] == []
    without = [
        name
        for name, p in partial.named_parameters()
        if p.grad is None or not p.grad.isfinite().all() or p.grad.abs().max() == 0
    ]
    assert without == []


def test_gradient_is_the_slope(setting, make_noise):
    vae, partial, pixels, condition = setting
    trunk = run_trunk(vae, pixels, make_noise())
    weight = partial.heads[1].c4.weight
    forward_kl(trunk, partial, condition).sum().backward()
    step = 1e-6
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight[0, 0, 0, 0] += sign * step
            values.append(forward_kl(trunk, partial, condition).sum().item())
            weight[0, 0, 0, 0] -= sign * step
    slope = (values[0] - values[1]) / (2 * step)
    assert weight.grad[0, 0, 0, 0].item() == pytest.approx(slope, rel=1e-5)


def test_rate_nats_equals_the_objective_for_the_same_noise(setting, make_noise):
    vae, partial, pixels, condition = setting
    trunk = run_trunk(vae, pixels, make_noise(), output=True)
    rate, output = ConditionalModel(vae, partial).rate_nats(pixels, condition, make_noise())
    torch.testing.assert_close(rate, forward_kl(trunk, partial, condition), rtol=0, atol=1e-12)
    torch.testing.assert_close(output, trunk.output, rtol=0, atol=1e-12)


def test_rate_with_the_prior_is_the_elbos(setting, make_noise):
    vae, _, pixels, condition = setting
    model = ConditionalModel(vae, UnconditionalLatents())
    rate, output = model.rate_nats(pixels, condition, make_noise())
    terms = vae.elbo(pixels, make_noise())
    torch.testing.assert_close(rate, terms.rate_nats, rtol=0, atol=1e-12)
    torch.testing.assert_close(vae.pixel_nats(output, pixels), terms.pixel_nats)


@pytest.mark.parametrize("temperature", [1.0, 0.5, (1.0, 0.0, 0.3, 1.0, 0.0)])
def test_sample_output_draws_from_c(setting, make_noise, temperature):
    vae, partial, _, condition = setting
    noise, features = make_noise(), partial.encode(condition)
    model = ConditionalModel(vae, partial)
    result = model.sample_output(features, 3, noise, temperature)

    def choose(group, h):
        c = partial.distribution(group, h, features)
        t = temperature[group.index] if isinstance(temperature, tuple) else temperature
        return c.mean + t * c.log_std.exp() * noise(group)

    expected = vae.decoder.out_net.out_conv(vae.decoder.descend(choose, 3))
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)


def test_floor_counts_smaller_log_stds_as_itself_and_lets_gradients_pass(setting, make_noise):
    vae, partial, pixels, condition = setting
    trunk = run_trunk(vae, pixels, make_noise())
    exact = forward_kl(trunk, partial, condition)
    assert torch.equal(forward_kl(trunk, partial, condition, log_std_floor=-8.0), exact)
    with torch.no_grad():
        partial.heads[1].c4.bias[2:] = -400.0
    assert not forward_kl(trunk, partial, condition).isfinite().all()
    floored = forward_kl(trunk, partial, condition, log_std_floor=-3.0)
    others = [0, 2, 3, 4]
    torch.testing.assert_close(floored[:, others], exact[:, others], rtol=0, atol=1e-12)
    # The group's KL is that against a Gaussian with the floor as log-std.
    h, q = trunk.hidden[1], trunk.posteriors[1]
    features = partial.encode(condition)
    mean = partial.heads[1](torch.cat([h, features[h.shape[2]]], dim=1)).chunk(2, dim=1)[0]
    floor = torch.full_like(mean, -3.0, requires_grad=True)
    kl = kl_divergence(Normal(q.mean, q.log_std.exp()), Normal(mean, floor.exp()))
    torch.testing.assert_close(floored[:, 1], kl.sum(dim=(1, 2, 3)), rtol=1e-9, atol=1e-9)
    # Its gradient is the one at the floor, not zero.
    floored.sum().backward()
    (slope,) = torch.autograd.grad(kl.sum(), floor)
    expected = slope.sum(dim=(0, 2, 3))
    torch.testing.assert_close(partial.heads[1].c4.bias.grad[2:], expected, rtol=1e-9, atol=1e-9)
    assert expected.abs().min() > 1.0


@pytest.fixture
def residual(setting):
    vae, _, pixels, condition = setting
    torch.manual_seed(5)
    return vae, PartialEncoder(vae, 2, "residual").double(), pixels, condition


def test_trunk_keeps_the_priors_of_all_groups_when_asked(setting, make_noise):
    vae, _, pixels, _ = setting
    trunk = run_trunk(vae, pixels, make_noise(), priors=True)
    bare = run_trunk(vae, pixels, make_noise())
    assert bare.priors == []
    assert all(torch.equal(a, b) for a, b in zip(trunk.latents, bare.latents, strict=True))
    assert len(trunk.priors) == len(trunk.hidden)
    for block, h, prior in zip(vae.decoder.dec_blocks, trunk.hidden, trunk.priors, strict=True):
        mean, log_std = block.prior(h)[:, :4].chunk(2, dim=1)
        torch.testing.assert_close(prior.mean, mean, rtol=0, atol=1e-12)
        torch.testing.assert_close(prior.log_std, log_std, rtol=0, atol=1e-12)
        assert not prior.mean.requires_grad
        # No view of the prior block's whole output, which would stay in memory.
        assert prior.mean.untyped_storage().nbytes() == prior.mean.nbytes


def test_priors_cost_one_block_at_most(setting, make_noise):
    vae, _, pixels, _ = setting
    calls = []
    for block in vae.decoder.dec_blocks:
        block.prior.register_forward_hook(lambda *_: calls.append(1))
    run_trunk(vae, pixels, make_noise())
    without = len(calls)
    run_trunk(vae, pixels, make_noise(), priors=True)
    assert len(calls) - without == without + 1 == len(vae.decoder.dec_blocks)


def test_residual_forward_kl_against_torch_distributions(residual, make_noise):
    vae, partial, pixels, condition = residual
    trunk = run_trunk(vae, pixels, make_noise(), priors=True)
    features, expected = partial.encode(condition), []
    for index, (h, q) in enumerate(zip(trunk.hidden, trunk.posteriors, strict=True)):
        p_mean, p_log_std = vae.decoder.dec_blocks[index].prior(h)[:, :4].chunk(2, dim=1)
        d_mean, d_log_std = partial.heads[index](torch.cat([h, features[h.shape[2]]], dim=1)).chunk(
            2, dim=1
        )
        c = Normal(p_mean + d_mean, (p_log_std + d_log_std).exp())
        expected.append(kl_divergence(Normal(q.mean, q.log_std.exp()), c).sum(dim=(1, 2, 3)))
    result = forward_kl(trunk, partial, condition)
    torch.testing.assert_close(result, torch.stack(expected, dim=1), rtol=1e-10, atol=1e-10)


def test_residual_gradient_reaches_the_partial_encoder_and_nothing_else(residual, make_noise):
    vae, partial, pixels, condition = residual
    trunk = run_trunk(vae, pixels, make_noise(), priors=True)
    forward_kl(trunk, partial, condition).sum().backward()
    assert [name for name, p in vae.named_parameters() if p.grad is not None] == []
    assert all(p.grad.abs().max() > 0 for p in partial.parameters())


def test_floor_holds_for_the_sum_of_prior_and_difference(residual, make_noise):
    vae, partial, pixels, condition = residual
    trunk = run_trunk(vae, pixels, make_noise(), priors=True)
    with torch.no_grad():
        partial.heads[1].c4.bias[2:] = -400.0
    assert not forward_kl(trunk, partial, condition).isfinite().all()
    floored = forward_kl(trunk, partial, condition, log_std_floor=-3.0)
    h, q, p = trunk.hidden[1], trunk.posteriors[1], trunk.priors[1]
    features = partial.encode(condition)
    mean = p.mean + partial.heads[1](torch.cat([h, features[h.shape[2]]], dim=1))[:, :2]
    floor = torch.full_like(mean, -3.0)
    expected = kl_divergence(Normal(q.mean, q.log_std.exp()), Normal(mean, floor.exp()))
    torch.testing.assert_close(floored[:, 1], expected.sum(dim=(1, 2, 3)), rtol=1e-9, atol=1e-9)
    floored.sum().backward()
    assert partial.heads[1].c4.bias.grad[2:].abs().min() > 1.0


def test_residual_heads_say_what_they_need(residual, make_noise):
    vae, partial, pixels, condition = residual
    with pytest.raises(ValueError, match=r"run_trunk\(\.\.\., priors=True\)"):
        forward_kl(run_trunk(vae, pixels, make_noise()), partial, condition)
    h = torch.zeros(1, vae.decoder.dec_blocks[0].width, 1, 1, dtype=torch.float64)
    with pytest.raises(ValueError, match="prior = None"):
        partial.head(0).distribution(h, h)
