from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from condvae import load_posterior
from condvae.data import DataConfig, prepare_images
from condvae.ground.configuration import ConfigurationError
from condvae.ground.images import to_nchw
from condvae.masks.kinds import centre_box, half
from condvae.masks.sampling import MaskConfig, draw_mask_in_bin
from condvae.posterior.bounds import ObservationTerms
from condvae.posterior.image_posterior import ImagePosterior
from condvae.posterior.input_check import check_observations, input_reference

CENTRE_BOX = MaskConfig({"centre_box": 1.0})


def make_images(count):
    return np.random.default_rng(1).integers(0, 256, (count, 16, 16, 1), dtype=np.uint8)


def refer(posterior, images, masks=CENTRE_BOX, **options):
    return input_reference(posterior, images, np.arange(len(images)), masks, draws=1, **options)


def with_reference(posterior, bins=None, **changes):
    reference = {"draws": 1, "seed": 0, "bins": bins or {}} | changes
    return dataclasses.replace(posterior, card={"input_reference": reference})


def observe(posterior, make_pixels, batch=1):
    """Images behind a half (bin 40_60), and their scores."""
    mask = torch.from_numpy(half(np.random.default_rng(0), 16))[None, None]
    observation = posterior.observe(make_pixels(batch), mask)
    return observation, posterior.observation_bound(observation).bits_per_observed_dim.tolist()


def reference_bin(low, high, n=199):
    return {"n": n, "low": low, "high": high, "expected_outside": 2 / (n + 1)}


def test_reference_is_the_range_of_the_scores(make_posterior):
    posterior, images = make_posterior(), make_images(9)
    rows = np.array([1, 2, 4, 5, 8])
    reference = input_reference(posterior, images, rows, CENTRE_BOX, draws=2, seed=3)
    # The only mask of this kind shows 3/4 of the picture.
    observation = posterior.observe(
        to_nchw(torch.from_numpy(images[rows])),
        torch.from_numpy(centre_box(np.random.default_rng(0), 16))[None, None],
        tuple(f"reference 60_80 {row}" for row in rows),
    )
    scores = posterior.observation_bound(observation, draws=2, seed=3).bits_per_observed_dim
    assert set(reference["bins"]) == {"60_80"}
    found = reference["bins"]["60_80"]
    assert found["low"] == pytest.approx(scores.min().item(), rel=1e-9)
    assert found["high"] == pytest.approx(scores.max().item(), rel=1e-9)
    assert found["n"] == 5
    assert found["expected_outside"] == pytest.approx(1 / 3)
    assert (reference["draws"], reference["seed"]) == (2, 3)
    assert json.loads(json.dumps(reference, allow_nan=False)) == reference


def test_reference_does_not_depend_on_the_batch(make_posterior):
    posterior, images = make_posterior(), make_images(6)
    masks = MaskConfig()
    state = torch.get_rng_state()
    whole = refer(posterior, images, masks)
    assert torch.equal(torch.get_rng_state(), state)
    parts = refer(posterior, images, masks, batch_size=4)
    assert list(whole["bins"]) == list(parts["bins"])
    assert len(whole["bins"]) == 5
    for name, found in whole["bins"].items():
        assert parts["bins"][name] == pytest.approx(found, rel=1e-9)
    assert refer(posterior, images, masks, seed=1) != whole


def test_reference_takes_at_most_199_images(make_posterior):
    posterior = make_posterior(dtype=torch.float32)
    found = refer(posterior, make_images(230))["bins"]["60_80"]
    assert found["n"] == 199
    assert found["expected_outside"] == pytest.approx(0.01)


def test_reference_counts_no_masks_that_show_nothing(make_posterior):
    posterior, images = make_posterior(dtype=torch.float32), make_images(40)
    assert refer(posterior, images, MaskConfig({"blank": 1.0}))["bins"] == {}
    mixed = refer(posterior, images, MaskConfig({"blank": 1.0, "free_form": 1.0}))["bins"]
    assert 0 < mixed["0_20"]["n"] < 40
    assert mixed["20_40"]["n"] == 40


def test_reference_has_no_bin_with_a_score_that_is_not_finite(make_posterior, monkeypatch):
    def bound(_, observation, **__):
        values = torch.full((len(observation),), 2.0, dtype=torch.float64)
        values[0] = math.inf
        dimensions = torch.full((len(observation),), 8)
        return ObservationTerms(torch.zeros(len(observation), 1), values, dimensions)

    monkeypatch.setattr(ImagePosterior, "observation_bound", bound)
    assert refer(make_posterior(), make_images(6))["bins"] == {}


@pytest.mark.parametrize(
    ("below", "above", "unusual", "words"),
    [
        (1.0, 1.0, False, "nothing unusual about the observed pixels: "),
        (0.0, 0.0, False, "nothing unusual about the observed pixels: "),
        (1.0, -0.5, True, "observed pixels look unlike the training data: "),
        (-0.5, 1.0, True, "look unlike the training data (they are too plain): "),
    ],
)
def test_verdict(make_posterior, make_pixels, below, above, unusual, words):
    posterior = make_posterior()
    observation, (bits,) = observe(posterior, make_pixels)
    low, high = bits - below, bits + above
    bins = {"40_60": reference_bin(low, high), "60_80": reference_bin(-1.0, -0.5)}
    (verdict,) = check_observations(with_reference(posterior, bins), observation)
    assert (verdict.checked, verdict.unusual) == (True, unusual)
    assert verdict.bits_per_observed_dim == bits
    assert (verdict.low, verdict.high) == (low, high)
    assert words in verdict.message
    assert (
        f"{bits:.2f} bits per observed value, 199 validation images seen as much lie between "
        f"{low:.2f} and {high:.2f}"
    ) in verdict.message
    assert verdict.message.endswith("the completion may be meaningless") == unusual


def test_verdicts_use_the_draws_and_the_seed_of_the_reference(make_posterior, make_pixels):
    posterior = make_posterior()
    observation, (bits,) = observe(posterior, make_pixels)
    bins = {"40_60": reference_bin(0.0, 1.0)}
    for changes in ({"draws": 3}, {"seed": 8}):
        (verdict,) = check_observations(with_reference(posterior, bins, **changes), observation)
        expected = posterior.observation_bound(observation, **changes).bits_per_observed_dim
        assert verdict.bits_per_observed_dim == expected.item() != bits


def test_verdicts_belong_to_their_cases(make_posterior, make_pixels):
    posterior = make_posterior()
    observation, bits = observe(posterior, make_pixels, 4)
    middle = sorted(bits)[1:3]
    posterior = with_reference(posterior, {"40_60": reference_bin(*middle)})
    for batch_size in (1, 3, 256):
        verdicts = check_observations(posterior, observation, batch_size=batch_size)
        assert [v.bits_per_observed_dim for v in verdicts] == pytest.approx(bits, rel=1e-9)
    assert [v.unusual for v in verdicts] == [value not in middle for value in bits]


@pytest.mark.parametrize(
    ("mask_value", "bins", "reason"),
    [
        (0, {"0_20": reference_bin(0.0, 1.0)}, "nothing is observed"),
        (1, {"0_20": reference_bin(0.0, 1.0)}, "no scores for masks that show 80 to 100 %"),
        (
            1,
            {"80_100": reference_bin(0.0, 1.0, n=98)},
            "only 98 validation images were scored behind masks that show 80 to 100 % of a picture, "
            "at least 99 are needed",
        ),
    ],
)
def test_what_is_not_checked(make_posterior, make_pixels, mask_value, bins, reason):
    posterior = with_reference(make_posterior(), bins)
    mask = torch.full((1, 1, 16, 16), mask_value)
    (verdict,) = check_observations(posterior, posterior.observe(make_pixels(1), mask))
    assert not verdict.checked
    assert not verdict.unusual
    assert (verdict.bits_per_observed_dim, verdict.low, verdict.high) == (None, None, None)
    assert verdict.message.startswith("input not checked: ")
    assert reason in verdict.message


def test_99_images_are_enough(make_posterior, make_pixels):
    posterior = make_posterior()
    observation, _ = observe(posterior, make_pixels)
    posterior = with_reference(posterior, {"40_60": reference_bin(0.0, 1.0, n=99)})
    assert check_observations(posterior, observation)[0].checked


def test_nothing_is_checked_without_a_reference(make_posterior, make_pixels):
    posterior = make_posterior()
    observation, _ = observe(posterior, make_pixels, 3)
    verdicts = check_observations(posterior, observation)
    assert [(v.checked, v.unusual) for v in verdicts] == [(False, False)] * 3
    assert "the model's card holds no scores" in verdicts[0].message


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_score_that_is_not_finite_is_unusual(make_posterior, make_pixels, monkeypatch, value):
    posterior = with_reference(make_posterior(), {"40_60": reference_bin(0.0, 1.0)})
    observation, _ = observe(posterior, make_pixels)
    terms = ObservationTerms(torch.zeros(1, 1), torch.tensor([value]), torch.tensor([128]))
    monkeypatch.setattr(ImagePosterior, "observation_bound", lambda *_, **__: terms)
    (verdict,) = check_observations(posterior, observation)
    assert verdict.checked
    assert verdict.unusual
    assert verdict.bits_per_observed_dim is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"draws": "four"}, "input_reference.draws = 'four': expected int"),
        ({"level": 0.99}, "unknown parameter input_reference.level"),
    ],
)
def test_broken_reference_is_named(make_posterior, make_pixels, changes, message):
    posterior = make_posterior()
    observation, _ = observe(posterior, make_pixels)
    with pytest.raises(ConfigurationError, match=message):
        check_observations(with_reference(posterior, **changes), observation)
    broken = with_reference(posterior, {"40_60": {"n": 200}})
    with pytest.raises(ConfigurationError, match=r"missing parameter .*\.bins\.40_60\.low"):
        check_observations(broken, observation)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return prepare_images(DataConfig(), tmp_path_factory.mktemp("digits"))


def test_bundled_model_tells_digits_from_other_pictures(digits):
    posterior = load_posterior("digits_inpainting")
    test = to_nchw(torch.from_numpy(digits.pixels[digits.indices("test")[::4]]))
    rng = np.random.default_rng(2)
    masks = np.stack([draw_mask_in_bin(MaskConfig(), 16, 2, rng) for _ in test])
    noise = torch.randint(0, 256, test.shape, dtype=torch.uint8)
    shares = {}
    for name, pixels in (("digits", test), ("inverted", 255 - test), ("noise", noise)):
        observation = posterior.observe(pixels, torch.from_numpy(masks).unsqueeze(1))
        verdicts = check_observations(posterior, observation)
        assert all(v.checked for v in verdicts)
        shares[name] = sum(v.unusual for v in verdicts) / len(verdicts)
    # 1.1 % are expected of the digits: more than 5 of 89 happen once in a thousand times.
    assert shares["digits"] <= 5 / 89
    assert shares["inverted"] > 0.95
    assert shares["noise"] == 1.0


def test_bundled_card_holds_what_training_would_write(digits, monkeypatch):
    # Two bins are enough, and each is drawn on its own.
    monkeypatch.setattr("condvae.posterior.input_check.reachable_bins", lambda *_: (0, 3))
    posterior = load_posterior("digits_inpainting")
    source, card = posterior.card["weights_source"], posterior.card["input_reference"]
    reference = input_reference(
        posterior,
        digits.pixels,
        digits.indices("validation"),
        MaskConfig(**source["masks"]),
        seed=source["seed"],
        batch_size=source["training"]["batch_size"],
    )
    assert list(reference["bins"]) == ["0_20", "60_80"]
    assert len(card["bins"]) == 5
    for name, found in reference["bins"].items():
        assert card["bins"][name] == pytest.approx(found, rel=1e-3)
