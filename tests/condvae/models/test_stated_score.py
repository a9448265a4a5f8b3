from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from condvae.ground.configuration import ConfigurationError
from condvae.models import card_named, check_score, stated_score

CARD = card_named("vdvae-cifar10-seed1")  # 2.842


def test_score_within_rounding_and_three_standard_errors_passes():
    verdict = check_score(2.86, 0.008, 10_000, CARD)
    assert verdict.passed
    assert verdict.tolerance == pytest.approx(0.005 + 3 * 0.008)
    assert verdict.expected == 2.842
    assert verdict.message == (
        "pass: 2.8600 bits/dim (standard error 0.0080) on 10000 images, published 2.8420 on the "
        "10,000 test images of CIFAR-10; difference +0.0180, tolerance 0.0290"
    )


@pytest.mark.parametrize("sign", [1, -1])
def test_tolerance_has_two_sides_and_an_edge(sign):
    assert check_score(2.842 + sign * 0.0349, 0.01, 5000, CARD).passed
    verdict = check_score(2.842 + sign * 0.0351, 0.01, 5000, CARD)
    assert not verdict.passed
    assert verdict.message.startswith("FAIL: ")
    assert "too few" not in verdict.message


def test_another_seed_of_the_same_model_fails():
    assert not check_score(2.879, 0.008, 10_000, CARD).passed


def test_bits_taken_for_nats_fail():
    assert not check_score(2.842 * math.log(2), 0.008, 10_000, CARD).passed


def test_agreement_on_too_few_images_is_no_pass_and_says_how_many_are_needed():
    verdict = check_score(2.85, 0.1, 50, CARD)
    assert not verdict.passed
    needed = math.ceil(50 * (0.3 / (0.025 * 2.842)) ** 2)
    assert f"too few images to tell, take about {needed}" in verdict.message
    # With that many images the standard error is small enough.
    assert check_score(2.85, 0.1 * math.sqrt(50 / needed), needed, CARD).passed


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_score_that_is_no_number_fails(value):
    assert not check_score(value, 0.01, 1000, CARD).passed


def test_failure_of_a_model_known_not_to_fit_says_so():
    card = card_named("vdvae-ffhq1024")
    verdict = check_score(9.0, 0.001, 100, card)
    assert "reported not to fit the published architecture" in verdict.message
    assert "reported" not in check_score(2.4208, 0.001, 100, card).message


def test_card_without_a_score_is_refused():
    with pytest.raises(ConfigurationError, match="no score is published for this model"):
        check_score(3.8, 0.01, 100, card_named("vdvae-imagenet32-raw"))
    with pytest.raises(ConfigurationError, match="no score"):
        check_score(2.8, 0.01, 100, replace(CARD, expected_bits_per_dim=None))


@pytest.mark.parametrize(
    ("error", "n", "message"),
    [
        (0.01, 0, "n = 0"),
        (-0.01, 10, "standard_error = -0.01"),
        (math.nan, 10, "standard_error = nan"),
        (math.inf, 10, "standard_error = inf"),
    ],
)
def test_impossible_measurements_are_refused(error, n, message):
    with pytest.raises(ConfigurationError, match=message):
        check_score(2.842, error, n, CARD)


def test_error_of_the_expected_score_widens_the_tolerance():
    # Two independent means: variances add.
    verdict = check_score(2.842 + 0.05, 0.012, 5000, CARD, 0.009)
    assert verdict.tolerance == pytest.approx(0.005 + 3 * 0.015)
    assert verdict.passed
    assert not check_score(2.842 + 0.0501, 0.012, 5000, CARD, 0.009).passed
    assert not check_score(2.842 + 0.05, 0.012, 5000, CARD).passed


def test_images_are_not_too_few_for_the_error_of_the_expected_score():
    # More images would not make the card's figure any better.
    assert "too few" not in check_score(2.842, 0.01, 5000, CARD, 0.1).message


@pytest.mark.parametrize("error", [-0.01, math.nan, math.inf])
def test_impossible_error_of_the_expected_score_is_refused(error):
    with pytest.raises(ConfigurationError, match="expected_standard_error = "):
        check_score(2.842, 0.01, 100, CARD, error)


OWN = {
    "name": "faces",
    "sha256": "a" * 64,
    "test_bits_per_dim": 3.1,
    "test_bits_per_dim_standard_error": 0.02,
    "test_images": 500,
}


def test_vae_trained_here_is_measured_against_its_own_card():
    card, error = stated_score(Path("own"), OWN)
    assert (card.expected_bits_per_dim, error) == (3.1, 0.02)
    message = check_score(3.15, 0.02, 400, card, error).message
    assert message == (
        "pass: 3.1500 bits/dim (standard error 0.0200) on 400 images, its card says 3.1000 on 500 "
        "test images of faces; difference +0.0500, tolerance 0.0899"
    )


def test_converted_checkpoint_is_measured_against_the_published_score():
    source = {"official": "cifar10-seed1-iter-1050000-model-ema.th", "sha256": "b" * 64}
    card, error = stated_score(Path("converted"), {"weights_source": source})
    assert card == CARD
    assert error == 0.0


@pytest.mark.parametrize(
    "card",
    [{}, {"weights_source": None}, {"weights_source": {"official": "my-own.th"}}],
)
def test_vae_whose_score_nobody_states_is_refused(card):
    with pytest.raises(ConfigurationError, match="own: nobody states what this VAE scores"):
        stated_score(Path("own"), card)


def test_converted_checkpoint_without_a_published_score_is_refused_before_it_is_scored():
    source = {"official": card_named("vdvae-imagenet32-raw").file_name}
    with pytest.raises(ConfigurationError, match="no score is published for this model"):
        stated_score(Path("converted"), {"weights_source": source})


@pytest.mark.parametrize("score", [0.0, -1.0, "low"])
def test_impossible_score_on_a_card_is_refused(score):
    with pytest.raises(ConfigurationError, match="expected_bits_per_dim"):
        stated_score(Path("own"), {**OWN, "test_bits_per_dim": score})
