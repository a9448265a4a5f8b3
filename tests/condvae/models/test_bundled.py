"""The bundled models are what their cards say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from condvae.data import DataConfig, prepare_images
from condvae.evaluation.cases import build_cases
from condvae.ground.images import to_nchw
from condvae.masks.sampling import MaskConfig
from condvae.models import find_model, read_cards
from condvae.models.folder import load_posterior, load_vae, read_card
from condvae.training.pretraining import bits_per_dim


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return prepare_images(DataConfig(), tmp_path_factory.mktemp("digits"))


@pytest.mark.parametrize("name", ["digits", "digits_inpainting", "photos"])
def test_card_names_its_command_and_seed(name):
    card = read_card(find_model(name), read_cards()[name].kind)
    source = card["weights_source"]
    assert source["command"].startswith("kedro run --pipeline=")
    assert isinstance(source["seed"], int)
    assert card["sha256"] == read_cards()[name].sha256


def test_models_were_trained_on_the_digits_of_today(digits):
    # Another split would put their training images among the test images.
    for name in ("digits", "digits_inpainting"):
        assert read_card(find_model(name))["weights_source"]["data"] == digits.fingerprint


def test_vae_scores_what_its_card_says(digits):
    vae, card = load_vae(find_model("digits"))
    seed = card["weights_source"]["seed"]
    bits, error = bits_per_dim(vae, digits.pixels, digits.indices("test"), 64, seed)
    assert card["test_images"] == len(digits.indices("test"))
    assert bits == pytest.approx(card["test_bits_per_dim"], abs=1e-4)
    assert error == pytest.approx(card["test_bits_per_dim_standard_error"], abs=1e-4)


def test_vae_of_photographs_knows_photographs_it_has_never_seen(tmp_path):
    # Its own training images are not at hand here; those of scikit-learn were not among them.
    config = DataConfig(
        **{"name": "photos", "source": "photographs", "limit": 60, "seed": 0},
        **{"image_size": 32, "channels": 3, "validation_share": 0.3, "test_share": 0.3},
    )
    patches = prepare_images(config, tmp_path)
    vae, card = load_vae(find_model("photos"))
    rows = np.arange(len(patches.records))
    bits, error = bits_per_dim(vae, patches.pixels, rows, 60, seed=0)
    noise = np.random.default_rng(0).integers(0, 256, patches.pixels.shape, dtype=np.uint8)
    of_noise, _ = bits_per_dim(vae, noise, rows, 60, seed=0)
    # A uniform distribution over the grey levels takes 8 bits.
    assert card["test_bits_per_dim"] < bits + 3 * error < 6 < 8 < of_noise


def test_posterior_knows_more_than_the_prior(digits):
    posterior = load_posterior("digits_inpainting")
    rows = digits.indices("test")
    sha256 = [digits.records[row].sha256 for row in rows]
    cases = build_cases(rows.tolist(), sha256, 16, MaskConfig(), per_bin=8, seed=3)
    truths = to_nchw(torch.from_numpy(digits.pixels[[case.image_id for case in cases]]))
    masks = torch.from_numpy(np.stack([case.mask for case in cases])).unsqueeze(1)
    y = posterior.observe(truths, masks, tuple(case.case_id for case in cases))
    seen = posterior.bound(truths, y)
    blind = posterior.observe(truths, torch.zeros_like(masks), y.case_ids)
    unseen = posterior.bound(truths, blind)
    # What is seen must make the latents of the rest cheaper, by much where much is seen.
    gain_nats = (unseen.rate_nats - seen.rate_nats).sum(dim=1)
    shares = torch.tensor([case.observed_share for case in cases])
    assert gain_nats[shares > 0.6].mean() > 20.0
    assert gain_nats[shares > 0.6].mean() > gain_nats[shares < 0.2].mean()
    bits = seen.bound_bits.sum() / seen.predicted_dimensions.sum()
    assert 0.0 < float(bits) < 8.0
    assert math.isfinite(float(bits))
