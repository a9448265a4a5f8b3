"""Parity with arrays computed by the official implementations, in float64 to 1e-9."""

from __future__ import annotations

import functools
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from condvae.ground.configuration import ConfigurationError
from condvae.ground.images import DataContract, encoder_input, likelihood_target, to_nchw
from condvae.ground.state_dicts import load_strictly
from condvae.ipa import ConditionalModel, PartialEncoder, run_trunk
from condvae.ipa.objective import forward_kl
from condvae.models.official_layout import merge_conditional, split_conditional
from condvae.posterior.image_posterior import ImagePosterior
from condvae.tasks import Inpainting
from condvae.vdvae import VDVAE, Architecture

pytestmark = pytest.mark.shared

CASES = ("plain16", "widths32")
RESOLUTIONS = {"plain16": (16, 8, 4, 1), "widths32": (32, 16, 8, 4, 1)}
PER_GROUP = ("full_prior", "full_part", "part_prior", "nll_part", "nll_prior", "nll_full")
IMAGE_ARRAYS = (
    "encoder_input",
    "likelihood_target",
    "decoder_output",
    "dmol_params",
    "nll_nats_per_dim",
    "nll_unobserved_nats_per_dim",
)
# Taken as given: what the other arrays are computed from.
GIVEN = ("x_uint8", "mask")


def names_of(case):
    """Every array that is computed in a case."""
    names = [*IMAGE_ARRAYS, *(f"per_layer_nats_{name}" for name in PER_GROUP)]
    for resolution in RESOLUTIONS[case]:
        names += [f"full_activations_{resolution}", f"partial_activations_{resolution}"]
    return names


def build(folder, case):
    """Models with the official weights, inputs and expected arrays of a case."""
    facts = json.loads((folder / f"{case}.json").read_text())
    arrays = dict(np.load(folder / f"{case}.npz"))
    architecture = Architecture(
        image_size=facts["image_size"],
        channels=facts["image_channels"],
        width=facts["width"],
        latent_channels=facts["zdim"],
        encoder=facts["enc_blocks"],
        decoder=facts["dec_blocks"],
        bottleneck=facts["bottleneck_multiple"],
        mixtures=facts["num_mixtures"],
        bias_up_to=facts["no_bias_above"],
        widths=facts["custom_width_str"],
    )
    bits = 5 if facts["low_bit_likelihood"] else 8
    contract = DataContract(3, facts["image_size"], 115.0, 65.0, bits)
    vae = VDVAE(architecture, contract).double().requires_grad_(False)
    partial = PartialEncoder(vae, 4).double().requires_grad_(False)
    official = torch.load(folder / f"{case}.ipa.th", weights_only=True)
    vae_state, partial_state = split_conditional(official)
    load_strictly(vae, vae_state, case)
    load_strictly(partial, partial_state, case)
    pixels = to_nchw(torch.from_numpy(arrays["x_uint8"]))
    mask = to_nchw(torch.from_numpy(arrays["mask"]))
    latents = [torch.from_numpy(arrays[f"z_{i:02d}"]) for i in range(len(partial.heads))]
    condition = torch.cat([encoder_input(pixels, contract, torch.float64) * mask, mask], dim=1)
    return SimpleNamespace(**locals())


@functools.cache
def computed_case(folder, case):
    """A case with everything computed, once for all tests."""
    built = build(folder, case)
    built.computed = computed_arrays(built)
    return built


@pytest.fixture(params=CASES)
def golden(request, shared_folder):
    return computed_case(shared_folder / "golden", request.param)


def nhwc(x):
    return x.permute(0, 2, 3, 1)


def computed_arrays(g):
    """Everything in `names_of`, from weights, images, masks and latents."""
    vae, partial, contract = g.vae, g.partial, g.contract
    activations, features = vae.encode(g.pixels), partial.encode(g.condition)
    per_group = {name: [] for name in PER_GROUP}

    def choose(group, h):
        q = group.block.posterior(h, activations[group.block.resolution])
        c, p, z = partial.distribution(group, h, features), group.prior, g.latents[group.index]
        terms = (
            p.kl_from(q), c.kl_from(q), p.kl_from(c), -c.log_prob(z), -p.log_prob(z), -q.log_prob(z)
        )  # fmt: skip
        for name, term in zip(PER_GROUP, terms, strict=True):
            per_group[name].append(term.flatten(1).sum(dim=1))
        return z

    output = vae.decoder.descend(choose, len(g.pixels))
    nats = vae.pixel_nats(output, g.pixels)
    result = {
        "encoder_input": nhwc(encoder_input(g.pixels, contract, torch.float64)),
        "likelihood_target": nhwc(likelihood_target(g.pixels, contract, torch.float64)),
        "decoder_output": output,
        "dmol_params": nhwc(vae.decoder.likelihood_parameters(output)),
        "nll_nats_per_dim": nats.sum(dim=(1, 2)) / contract.dimensions,
        "nll_unobserved_nats_per_dim": (nats * (1 - g.mask[:, 0])).sum(dim=(1, 2))
        / contract.dimensions,
    }
    result |= {f"per_layer_nats_{name}": torch.stack(v, 1) for name, v in per_group.items()}
    result |= {f"full_activations_{r}": a for r, a in activations.items()}
    return result | {f"partial_activations_{r}": a for r, a in features.items()}


@pytest.mark.parametrize(
    ("golden", "name"),
    [(case, name) for case in CASES for name in names_of(case)],
    indirect=["golden"],
)
def test_array(golden, name):
    expected = golden.arrays[name]
    result = golden.computed[name].numpy()
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-9)


def test_every_array_is_compared(golden):
    latents = [f"z_{i:02d}" for i in range(len(golden.latents))]
    assert set(golden.arrays) == {*names_of(golden.case), *GIVEN, *latents}
    assert set(names_of(golden.case)) == set(golden.computed)


def test_trunk_from_the_noise_behind_the_latents(golden):
    # The latents were drawn from q; the noise that gives them again takes the trunk down their path.
    activations = golden.vae.encode(golden.pixels)
    noises = []

    def choose(group, h):
        q = group.block.posterior(h, activations[group.block.resolution])
        z = golden.latents[group.index]
        noises.append((z - q.mean) * torch.exp(-q.log_std))
        return z

    golden.vae.decoder.descend(choose, 3)
    # Noise of a draw from q, not of something else.
    flat = torch.cat([n.flatten() for n in noises])
    assert abs(flat.mean().item()) < 4 / len(flat) ** 0.5
    assert abs(flat.std().item() - 1) < 4 / (2 * len(flat)) ** 0.5
    trunk = run_trunk(golden.vae, golden.pixels, lambda group: noises[group.index], output=True)
    rate = forward_kl(trunk, golden.partial, golden.condition)
    for z, expected in zip(trunk.latents, golden.latents, strict=True):
        np.testing.assert_allclose(z.numpy(), expected.numpy(), rtol=0, atol=1e-9)
    np.testing.assert_allclose(
        rate.numpy(), golden.arrays["per_layer_nats_full_part"], rtol=0, atol=1e-8
    )
    np.testing.assert_allclose(
        trunk.output.numpy(), golden.arrays["decoder_output"], rtol=0, atol=1e-8
    )


def test_posterior_bound_is_made_of_the_same_numbers(golden, monkeypatch):
    # The observation is made by the task, the latents are those of the arrays.
    class Path(ConditionalModel):
        def rate_nats(self, pixels, condition, noise):
            np.testing.assert_allclose(condition, golden.condition, rtol=0, atol=1e-6)
            del noise
            rates = torch.from_numpy(golden.arrays["per_layer_nats_full_part"])
            return rates, torch.from_numpy(golden.arrays["decoder_output"])

    posterior = ImagePosterior(Path(golden.vae, golden.partial), Inpainting())
    terms = posterior.bound(golden.pixels, posterior.observe(golden.pixels, golden.mask))
    for nats, name in ((terms.all_nats, ""), (terms.predicted_nats, "unobserved_")):
        np.testing.assert_allclose(
            nats.numpy() / golden.contract.dimensions,
            golden.arrays[f"nll_{name}nats_per_dim"],
            rtol=0,
            atol=1e-9,
        )


def test_unconditional_file_holds_the_same_vae(golden):
    state = torch.load(golden.folder / f"{golden.case}.vdvae.th", weights_only=True)
    unconditional, partial = split_conditional(state)
    assert partial == {}
    assert unconditional.keys() == golden.vae.state_dict().keys()
    fresh = VDVAE(golden.architecture, golden.contract).double()
    load_strictly(fresh, unconditional, golden.case)
    assert all(torch.equal(v, golden.vae.state_dict()[k]) for k, v in fresh.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "module."])
def test_conditional_layout_round_trip(golden, prefix):
    prefixed = {prefix + key: value for key, value in golden.official.items()}
    merged = merge_conditional(*split_conditional(prefixed))
    assert merged.keys() == golden.official.keys()
    assert all(torch.equal(merged[key], value) for key, value in golden.official.items())


def test_conditional_file_is_no_unconditional_model(golden):
    fresh = VDVAE(golden.architecture, golden.contract).double()
    before = {key: value.clone() for key, value in fresh.state_dict().items()}
    with pytest.raises(ConfigurationError, match=r"extra: decoder\.dec_blocks\.0\.part_enc"):
        load_strictly(fresh, golden.official, golden.case)
    assert all(torch.equal(before[key], value) for key, value in fresh.state_dict().items())
