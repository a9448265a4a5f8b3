from __future__ import annotations

import numpy as np
import pytest
import torch

from condvae.ground.configuration import ConfigurationError
from condvae.ground.images import DataContract
from condvae.tasks import Inpainting, Subject

CONTRACT = DataContract(3, 4, 100.0, 50.0)


def observe(pixels, mask, contract=CONTRACT, **options):
    return Inpainting().observe(Subject(pixels, mask), contract, **options)


@pytest.mark.parametrize("channels", [1, 3])
def test_condition_is_normalised_then_zero_filled_then_the_mask(make_pixels, channels):
    contract = DataContract(channels, 4, 100.0, 50.0)
    pixels, mask = make_pixels(2, channels, 4), make_pixels(2, 1, 4, seed=1) > 128
    y = observe(pixels, mask, contract)
    x, m = pixels.numpy().astype(float), mask.numpy()
    expected = np.concatenate([np.where(m, (x - 100) / 50, 0.0), m], axis=1)
    np.testing.assert_allclose(y.condition.numpy(), expected, atol=1e-6)
    assert y.condition.shape[1] == Inpainting().condition_channels(contract) == channels + 1
    np.testing.assert_array_equal(y.pixels.numpy(), np.where(m, x, 0))
    assert y.pixels.dtype == torch.uint8
    assert torch.equal(y.mask, mask)


def test_masks_of_other_number_types_and_one_mask_for_all(make_pixels):
    pixels, mask = make_pixels(3, 3, 4), make_pixels(1, 1, 4, seed=1) > 128
    reference = observe(pixels, mask.expand(3, -1, -1, -1))
    for same in (mask, mask.float(), mask.to(torch.uint8), mask.to(torch.int64)):
        y = observe(pixels, same)
        assert y.mask.dtype == torch.bool
        assert y.mask.shape == (3, 1, 4, 4)
        assert torch.equal(y.condition, reference.condition)


def test_all_observed_is_taken(make_pixels):
    pixels = make_pixels(2, 3, 4)
    y = observe(pixels, torch.ones(1, 1, 4, 4))
    assert torch.equal(y.pixels, pixels)
    assert y.predicted_dimensions.tolist() == [0, 0]


def test_images_are_left_alone(make_pixels):
    pixels = make_pixels(2, 3, 4)
    before = pixels.clone()
    observe(pixels, torch.zeros(1, 1, 4, 4))
    assert torch.equal(pixels, before)


def test_names(make_pixels):
    pixels, mask = make_pixels(2, 3, 4), torch.ones(1, 1, 4, 4)
    assert observe(pixels, mask).case_ids == ("0", "1")
    assert observe(pixels, mask, case_ids=("a", "b")).case_ids == ("a", "b")
    with pytest.raises(ValueError, match="1 case ids for 2 observations"):
        observe(pixels, mask, case_ids=("a",))


@pytest.mark.parametrize(
    "shape", [(2, 3, 4, 4), (2, 4, 4), (4, 4), (3, 1, 4, 4), (2, 1, 4, 5), (2, 1, 8, 8)]
)
def test_masks_of_other_shapes_are_refused(make_pixels, shape):
    with pytest.raises(
        ValueError, match=r"mask of shape .*: expected \(2 or 1, 1, 4, 4\)"
    ) as error:
        observe(make_pixels(2, 3, 4), torch.ones(shape))
    assert str(shape) in str(error.value)


@pytest.mark.parametrize("value", [255, 0.5, -1, 2, float("nan")])
def test_masks_with_other_values_are_refused(make_pixels, value):
    mask = torch.zeros(2, 1, 4, 4)
    mask[1, 0, 2, 3] = value
    with pytest.raises(ValueError, match=r"mask with values .*: expected 0 \(hole\)"):
        observe(make_pixels(2, 3, 4), mask)


def test_images_of_another_kind_are_refused(make_pixels):
    with pytest.raises(
        ConfigurationError, match=r"images of type torch.float32: expected torch.uint8"
    ):
        observe(make_pixels(2, 3, 4).float(), torch.ones(1, 1, 4, 4))
