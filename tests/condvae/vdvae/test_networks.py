from __future__ import annotations

import math
import re

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from condvae.ground.images import DataContract
from condvae.vdvae import ARCHITECTURES, VDVAE
from condvae.vdvae.blocks import Block, convolution


class Calls:
    """Counts calls of modules by name."""

    def __init__(self, module, names):
        self.counts = {}
        modules = dict(module.named_modules())
        for name in names:
            self.counts[name] = 0
            modules[name].register_forward_hook(self._hook(name))

    def _hook(self, name):
        def hook(*_):
            self.counts[name] += 1

        return hook


def from_noise(noise):
    return lambda group, h: noise(group)


def test_block_is_four_convolutions_with_gelu_before_each():
    torch.manual_seed(1)
    block = Block(6, 3, 6, 8, residual=True, down_rate=2).double()
    x = torch.randn(2, 6, 8, 8, dtype=torch.float64)
    out = x
    for layer in (block.c1, block.c2, block.c3, block.c4):
        gelu = out * 0.5 * (1 + torch.erf(out / math.sqrt(2)))
        out = torch.nn.functional.conv2d(
            gelu, layer.weight, layer.bias, padding=layer.kernel_size[0] // 2
        )
    expected = (x + out).reshape(2, 6, 4, 2, 4, 2).mean(dim=(3, 5))
    torch.testing.assert_close(block(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("resolution", "kernel"), [(1, 1), (2, 1), (4, 3), (16, 3)])
def test_kernels_by_resolution(resolution, kernel):
    block = Block(4, 2, 8, resolution)
    assert [c.kernel_size[0] for c in (block.c1, block.c2, block.c3, block.c4)] == [
        1,
        kernel,
        kernel,
        1,
    ]


def test_initial_weights():
    vae = VDVAE(ARCHITECTURES["tiny16"], DataContract(1, 16, 100.0, 50.0))
    for name, value in vae.named_parameters():
        if name.endswith(".bias") or name == "decoder.bias" or ".bias_xs." in name:
            assert value.abs().max() == 0.0, name
    encoder_blocks, groups = len(vae.encoder.enc_blocks), len(vae.decoder.dec_blocks)
    for block in vae.decoder.dec_blocks:
        assert block.prior.c4.weight.abs().max() == 0.0
        for layer, fan_in in ((block.z_proj, 2), (block.resnet.c4, 4)):
            bound = math.sqrt(1 / fan_in) * math.sqrt(1 / groups)
            assert 0.7 * bound < layer.weight.abs().max() <= bound
    for block in vae.encoder.enc_blocks:
        bound = math.sqrt(1 / 4) * math.sqrt(1 / encoder_blocks)
        assert 0.7 * bound < block.c4.weight.abs().max() <= bound
    assert convolution(3, 4, 3, zero=True).weight.abs().max() == 0.0


def test_prior_of_a_fresh_model_is_standard_normal(make_pixels, make_noise):
    vae = VDVAE(ARCHITECTURES["tiny16"], DataContract(1, 16, 100.0, 50.0))
    noise = make_noise(dtype=torch.float32)

    def choose(group, h):
        assert group.prior.mean.abs().max() == 0.0
        assert group.prior.log_std.abs().max() == 0.0
        return noise(group)

    vae.decoder.descend(choose, 2)


def test_parameter_names_are_the_official_layout(make_vae):
    layer = r"c[1-4]\.(weight|bias)"
    patterns = [
        r"encoder\.in_conv\.(weight|bias)",
        rf"encoder\.enc_blocks\.\d+\.{layer}",
        rf"decoder\.dec_blocks\.\d+\.(enc|prior|resnet)\.{layer}",
        r"decoder\.dec_blocks\.\d+\.z_proj\.(weight|bias)",
        r"decoder\.bias_xs\.\d+",
        r"decoder\.out_net\.out_conv\.(weight|bias)",
        r"decoder\.(gain|bias)",
    ]
    keys = list(make_vae().state_dict())
    assert [k for k in keys if not any(re.fullmatch(p, k) for p in patterns)] == []
    assert [p for p in patterns if not any(re.fullmatch(p, k) for k in keys)] == []


def test_encoder_gives_the_last_activation_of_each_resolution(make_vae, make_pixels):
    vae = make_vae(encoder="16x2,16d2,8x1,8d2,4x1,4d4,1x1", widths="8:24,4:24,1:32")
    activations = vae.encode(make_pixels(2))
    shapes = {size: tuple(a.shape) for size, a in activations.items()}
    assert shapes == {
        16: (2, 16, 16, 16),
        8: (2, 24, 8, 8),
        4: (2, 24, 4, 4),
        1: (2, 32, 1, 1),
    }
    h = vae.encoder.in_conv((make_pixels(2).double() - 110) / 60)
    for block in vae.encoder.enc_blocks[:2]:
        h = block(h)
    assert torch.equal(activations[16], h)
    # Where the width grows, pooled activations are padded with zeros.
    pooled = vae.encoder.enc_blocks[2](h)
    padded = torch.cat([pooled, pooled.new_zeros(2, 8, 8, 8)], dim=1)
    torch.testing.assert_close(
        vae.encoder.enc_blocks[3](padded), activations[8], rtol=0, atol=1e-12
    )


def test_descend_visits_groups_in_order_with_their_state(make_vae, make_noise):
    vae = make_vae(decoder="1x2,4m1,8m4,8x1,16m8")
    noise, visits = make_noise(), []

    def choose(group, h):
        assert h is group.h
        assert group.block is vae.decoder.dec_blocks[group.index]
        assert h.shape == (2, 16, group.block.resolution, group.block.resolution)
        assert group.latent_shape == (2, 2, group.block.resolution, group.block.resolution)
        visits.append(group.index)
        return noise(group)

    output = vae.decoder.descend(choose, 2)
    assert visits == [0, 1, 2, 3, 4, 5]
    assert output.shape == (2, 16, 16, 16)


def test_descend_computes_what_the_blocks_say(make_vae, make_noise):
    vae = make_vae(decoder="1x2,4m1,8m4,16m8")
    noise = make_noise()
    zs, hs = [], []

    def choose(group, h):
        zs.append(noise(group))
        hs.append(h)
        return zs[-1]

    output = vae.decoder.descend(choose, 2)
    d = vae.decoder
    hidden = {b.shape[2]: b.expand(2, -1, -1, -1) for b in d.bias_xs}
    for index, block in enumerate(d.dec_blocks):
        h = hidden[block.resolution]
        if block.mixin is not None:
            rate = block.resolution // block.mixin
            h = h + hidden[block.mixin].repeat_interleave(rate, 2).repeat_interleave(rate, 3)
        torch.testing.assert_close(hs[index], h, rtol=0, atol=1e-12)
        skip = block.prior(h)[:, 2 * block.latent_channels :]
        hidden[block.resolution] = block.resnet(h + skip + block.z_proj(zs[index]))
    torch.testing.assert_close(output, hidden[16] * d.gain + d.bias, rtol=0, atol=1e-12)


def test_without_output_the_last_merge_is_skipped(make_vae, make_pixels, make_noise):
    noise, runs = make_noise(), {}
    for output in (True, False):
        vae = make_vae()
        activations = vae.encode(make_pixels())
        last = len(vae.decoder.dec_blocks) - 1
        latents = []

        def choose(group, h, latents=latents, activations=activations):
            z = group.block.posterior(h, activations[group.block.resolution]).sample(noise(group))
            latents.append(z)
            return z

        names = ("prior", "z_proj", "resnet")
        calls = Calls(vae, [f"decoder.dec_blocks.{i}.{n}" for i in range(last + 1) for n in names])
        result = vae.decoder.descend(choose, 3, output=output)
        runs[output] = latents, calls.counts, result
    with_output, without = runs[True], runs[False]
    assert all(torch.equal(a, b) for a, b in zip(with_output[0], without[0], strict=True))
    assert set(with_output[1].values()) == {1}
    skipped = [name for name, count in without[1].items() if count == 0]
    assert skipped == [f"decoder.dec_blocks.{last}.{p}" for p in ("prior", "z_proj", "resnet")]
    assert without[2].numel() == 0


@pytest.mark.parametrize("asked", [0, 1, 3])
def test_prior_block_runs_once_per_visit(make_vae, make_noise, asked):
    vae, noise = make_vae(), make_noise()
    names = [f"decoder.dec_blocks.{i}.prior" for i in range(len(vae.decoder.dec_blocks))]
    calls = Calls(vae, names)

    def choose(group, h):
        for _ in range(asked):
            _ = group.prior
        return noise(group)

    vae.decoder.descend(choose, 2)
    assert set(calls.counts.values()) == {1}


def test_elbo_terms_against_torch_distributions(make_vae, make_pixels, make_noise):
    vae, pixels, noise = make_vae(), make_pixels(2), make_noise()
    terms = vae.elbo(pixels, noise)
    activations, rates = vae.encode(pixels), []

    def choose(group, h):
        q = group.block.posterior(h, activations[group.block.resolution])
        p = group.prior
        q, p = (Normal(d.mean, d.log_std.exp()) for d in (q, p))
        rates.append(kl_divergence(q, p).sum(dim=(1, 2, 3)))
        return q.mean + q.stddev * noise(group)

    output = vae.decoder.descend(choose, 2)
    torch.testing.assert_close(terms.rate_nats, torch.stack(rates, 1), rtol=1e-10, atol=1e-10)
    parameters = vae.decoder.out_net.out_conv(output)
    target = (pixels.double() - 127.5) / 127.5
    torch.testing.assert_close(
        terms.pixel_nats, -vae.likelihood.log_prob(parameters, target), rtol=1e-10, atol=1e-10
    )
    torch.testing.assert_close(
        terms.negative_elbo_nats, terms.rate_nats.sum(1) + terms.pixel_nats.sum((1, 2))
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_a_batch_do_not_mix(make_vae, make_pixels, make_noise, channels):
    vae, pixels = make_vae(channels=channels), make_pixels(5, channels)
    whole = vae.elbo(pixels, make_noise(rows=range(5)))
    for b in range(5):
        alone = vae.elbo(pixels[b : b + 1], make_noise(rows=[b]))
        torch.testing.assert_close(alone.rate_nats[0], whole.rate_nats[b], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(alone.pixel_nats[0], whole.pixel_nats[b], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("changes", [{}, {"channels": 3}, {"widths": "8:24,4:24,1:24"}])
def test_gradient_reaches_every_parameter(make_vae, make_pixels, make_noise, changes):
    vae = make_vae(**changes)
    vae.elbo(
        make_pixels(channels=vae.contract.channels), make_noise()
    ).negative_elbo_nats.sum().backward()
    without = [
        name
        for name, p in vae.named_parameters()
        if p.grad is None or not p.grad.isfinite().all() or p.grad.abs().max() == 0
    ]
    assert without == []


def test_five_bit_contract_reaches_the_likelihood(make_vae, make_pixels, make_noise):
    vae, pixels = make_vae(bits=5), make_pixels(2)
    assert vae.likelihood.bits == 5
    output = vae.decoder.descend(from_noise(make_noise()), 2)
    # Pixels that differ only below the 5-bit grid have the same likelihood.
    coarse = torch.div(pixels, 8, rounding_mode="floor") * 8
    assert torch.equal(vae.pixel_nats(output, pixels), vae.pixel_nats(output, coarse))


def test_terms_are_computed_in_float32_at_least(make_vae, make_pixels, make_noise):
    assert make_vae().elbo(make_pixels(), make_noise()).pixel_nats.dtype == torch.float64
    vae = make_vae(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = vae.elbo(make_pixels(), make_noise(dtype=torch.float32))
    assert terms.pixel_nats.dtype == torch.float32
    assert terms.rate_nats.dtype == torch.float32
    # Rounded means and log-stds move a KL, but not below zero.
    assert terms.rate_nats.min() >= 0


def test_contract_of_other_images_is_refused():
    with pytest.raises(
        ValueError, match=r"architecture for 1 x 16² images, data contract for 3 x 32²"
    ):
        VDVAE(ARCHITECTURES["tiny16"], DataContract(3, 32, 100.0, 50.0))


def test_type_and_device_are_those_of_the_weights(make_vae):
    vae = make_vae(dtype=torch.float32)
    assert vae.dtype == torch.float32
    assert vae.double().dtype == torch.float64
    assert vae.device == torch.device("cpu")


def test_softplus_stds_are_those_of_prior_and_posterior(make_vae, make_pixels, make_noise):
    vae, pixels, noise = make_vae(latent_std="softplus"), make_pixels(2), make_noise()
    activations, seen = vae.encode(pixels), []

    def choose(group, h):
        posterior = group.block.posterior(h, activations[group.block.resolution])
        raw = group.block.enc(torch.cat([h, activations[group.block.resolution]], dim=1))
        for found, outputs in ((posterior, raw), (group.prior, group.prior_output[:, :4])):
            assert torch.equal(found.mean, outputs[:, :2])
            std = torch.log2(1 + 2 ** outputs[:, 2:4])
            torch.testing.assert_close(found.log_std.exp(), std, rtol=1e-12, atol=1e-12)
        seen.append(group.index)
        return noise(group)

    vae.decoder.descend(choose, 2)
    assert seen == list(range(len(vae.decoder.dec_blocks)))


def test_same_numbers_are_another_model_with_softplus_stds(make_vae, make_pixels, make_noise):
    vaes = [make_vae(latent_std=std) for std in ("exp", "softplus")]
    states = [vae.state_dict() for vae in vaes]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    rates = [vae.elbo(make_pixels(2), make_noise()).rate_nats for vae in vaes]
    assert (rates[0] - rates[1]).abs().min() > 1e-6
    assert rates[1].min() >= 0
