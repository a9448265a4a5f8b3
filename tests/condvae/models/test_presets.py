from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from condvae.ground.configuration import ConfigurationError
from condvae.ground.images import DataContract, encoder_input, likelihood_target
from condvae.ipa import PartialEncoder
from condvae.models.presets import PRESETS, Preset, preset_named
from condvae.training.config import TrainingConfig
from condvae.training.guard import UpdateGuard
from condvae.vdvae import ARCHITECTURES, VDVAE, architecture_named

# Groups, latent values, parameters in millions (VAE, partial encoder of inpainting, if published).
SIZES = {
    "cifar10": (43, 412_432, 39.15, 17.80),
    "imagenet32": (78, 765_216, 119.28, 51.99),
    "imagenet64": (75, 1_451_040, 125.01, 58.22),
    "ffhq256": (66, 4_470_816, 114.87, 55.89),
    "ffhq1024": (70, 27_588_640, None, None),
}
# Size, mean, std, bits.
CONTRACTS = {
    "cifar10": (32, 120.63838, 64.16736, 8),
    "imagenet32": (32, 116.2373, 69.37404, 8),
    "imagenet64": (64, 115.92961967, 69.37404, 8),
    "ffhq256": (256, 112.8666757481, 69.84780273, 5),
    "ffhq1024": (1024, 111.8685, 69.9465, 8),
}
# Rate, batch over all GPUs, EMA, clipping, skipping: of the VAE and of its partial encoder.
SETTINGS = {
    "cifar10": ((2e-4, 32, 0.9999, 200, 400), (2e-4, 30, 0.9999, 200, 400)),
    "imagenet32": ((1.5e-4, 256, 0.999, 200, 300), (1.5e-4, 16, 0.999, 200, 300)),
    "imagenet64": ((1.5e-4, 128, 0.999, 220, 380), (5e-5, 4, 0.999, 220, 380)),
    "ffhq256": ((1.5e-4, 32, 0.999, 130, 180), (1.5e-4, 12, 0.999, 130, 180)),
    "ffhq1024": ((7e-5, 32, 0.999, 360, 500), None),
}


EFFICIENT = {"efficient_celeba64", "efficient_imagenet32", "efficient_imagenet64"}


def test_all_published_models_are_there():
    assert set(PRESETS) - EFFICIENT == set(SIZES) == set(CONTRACTS) == set(SETTINGS)
    for name in SIZES:
        preset = PRESETS[name]
        assert preset_named(name) is preset
        assert preset.architecture == name
        assert "Child 2021" in preset.source


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_those_published(name):
    groups, latents, millions, partial_millions = SIZES[name]
    preset = PRESETS[name]
    architecture = architecture_named(preset.architecture)
    assert len(architecture.decoder_blocks) == groups
    assert architecture.latent_dimensions == latents
    assert architecture.latent_channels == 16
    assert architecture.bias_up_to == 64
    with torch.device("meta"):
        vae = VDVAE(architecture, preset.contract)
        partial = PartialEncoder(vae, 4)
    if millions is not None:
        for module, expected in ((vae, millions), (partial, partial_millions)):
            count = sum(p.numel() for p in module.parameters())
            assert count / 1e6 == pytest.approx(expected, abs=0.005)
    # One learned first hidden state per resolution from 1 (2 is never used) to 64 at most.
    sizes = [bias.shape[2] for bias in vae.decoder.bias_xs]
    assert sizes == [1, *(r for r in (4, 8, 16, 32, 64) if r <= preset.contract.size)]


def test_number_of_mixtures():
    mixtures = {name: architecture_named(name).mixtures for name in PRESETS}
    assert mixtures == {**dict.fromkeys(PRESETS, 10), "ffhq1024": 2}


@pytest.mark.parametrize("name", SIZES)
def test_contracts(name):
    size, mean, std, bits = CONTRACTS[name]
    contract = PRESETS[name].contract
    assert (contract.channels, contract.size, contract.bits) == (3, size, bits)
    assert (contract.mean, contract.std) == pytest.approx((mean, std), abs=1e-9)


def test_ffhq1024_is_normalised_on_the_unit_scale():
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    found = encoder_input(pixels, PRESETS["ffhq1024"].contract, torch.float64)
    expected = (pixels.double() / 255 - 0.4387) / 0.2743
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_five_bits_are_of_the_likelihood_and_not_of_the_encoder():
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    contract = PRESETS["ffhq256"].contract
    assert len(torch.unique(likelihood_target(pixels, contract))) == 32
    assert len(torch.unique(encoder_input(pixels, contract))) == 256


@pytest.mark.parametrize("name", SIZES)
def test_training_settings(name):
    preset = PRESETS[name]
    found = (preset.unconditional, preset.conditional)
    for config, expected in zip(found, SETTINGS[name], strict=True):
        if expected is None:
            assert config is None
            continue
        rate, batch, ema, clip, skip = expected
        assert (config.learning_rate, config.batch_size) == (rate, batch)
        assert (config.ema_decay, config.clip_norm, config.skip_threshold) == (ema, clip, skip)
        assert (config.schedule, config.warmup_steps) == ("constant", 100)
        assert (config.betas, config.weight_decay) == ((0.9, 0.9), 0.01)
        assert (config.skip_rule, config.ema_warmup, config.precision) == (
            "published",
            False,
            "float32",
        )


def test_steps_are_the_age_of_published_results():
    steps = {
        name: (p.unconditional.steps, p.conditional and p.conditional.steps)
        for name, p in PRESETS.items()
        if p.unconditional
    }
    assert steps == {
        "cifar10": (1_050_000, 550_000),
        "imagenet32": (1_700_000, 700_000),
        "imagenet64": (1_600_000, 700_000),
        "ffhq256": (1_700_000, 626_000),
        "ffhq1024": (1_700_000, None),
    }


def test_published_threshold_is_of_the_norm_itself():
    guard = UpdateGuard(PRESETS["ffhq256"].conditional)
    assert guard.take(179.0)
    assert not guard.take(181.0)


def test_unknown_name_lists_those_known():
    with pytest.raises(
        ConfigurationError,
        match=r"preset = 'ffhq': expected one of cifar10, imagenet32, imagenet64, ffhq256, ffhq1024",
    ):
        preset_named("ffhq")
    with pytest.raises(ConfigurationError, match=r"\(did you mean 'cifar10'\?\)"):
        preset_named("cifar-10")


def test_contract_of_other_images_is_refused():
    with pytest.raises(ConfigurationError, match=r"contract for 1 x 32².*cifar10 takes 3 x 32²"):
        Preset("cifar10", DataContract(1, 32, 120.0, 64.0), TrainingConfig(), None, "")


def test_softplus_stds_are_not_those_of_published_models(monkeypatch):
    shape = dataclasses.replace(ARCHITECTURES["cifar10"], latent_std="softplus")
    monkeypatch.setitem(ARCHITECTURES, "smooth", shape)
    with pytest.raises(ConfigurationError, match=r"smooth has latent_std = 'softplus': published"):
        Preset("smooth", PRESETS["cifar10"].contract, TrainingConfig(), None, "")


def test_presets_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PRESETS["cifar10"].source = ""
