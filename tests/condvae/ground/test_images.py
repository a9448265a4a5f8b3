from __future__ import annotations

import numpy as np
import pytest
import torch

from condvae.ground.configuration import ConfigurationError
from condvae.ground.images import (
    DataContract,
    composite,
    encoder_input,
    likelihood_target,
    pixels_from_unit_range,
    to_nchw,
)

ALL_LEVELS = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)


def contract(**changes):
    return DataContract(**{"channels": 1, "size": 16, "mean": 100.0, "std": 50.0, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 2}, "channels = 2: expected one of 1, 3"),
        ({"bits": 7}, "bits = 7: expected one of 5, 8"),
        ({"size": 0}, "size = 0: expected > 0"),
        ({"std": 0.0}, "std = 0.0: expected > 0"),
    ],
)
def test_contract_refuses(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        contract(**changes)


def test_dimensions():
    assert contract().dimensions == 256
    assert contract(channels=3, size=4).dimensions == 48


@pytest.mark.parametrize(
    "pixels",
    [
        torch.zeros(2, 1, 16, 16),
        torch.zeros(1, 16, 16, dtype=torch.uint8),
        torch.zeros(2, 3, 16, 16, dtype=torch.uint8),
        torch.zeros(2, 1, 16, 15, dtype=torch.uint8),
        torch.zeros(2, 16, 16, 1, dtype=torch.uint8),
    ],
)
def test_check_names_what_it_found_and_what_it_expects(pixels):
    with pytest.raises(ConfigurationError) as error:
        contract().check(pixels)
    # The one thing that is wrong is named, and not what is right.
    found, expected = f"shape {tuple(pixels.shape)}", "(B, 1, 16, 16)"
    if pixels.dtype != torch.uint8:
        found, expected = f"type {pixels.dtype}", "torch.uint8"
    assert f"images of {found}" in str(error.value)
    assert expected in str(error.value)


def test_to_nchw():
    nhwc = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    result = to_nchw(torch.from_numpy(nhwc))
    np.testing.assert_array_equal(result.numpy(), nhwc.transpose(0, 3, 1, 2))
    assert result.is_contiguous()


def test_encoder_input():
    result = encoder_input(ALL_LEVELS, contract(), torch.float64)
    np.testing.assert_allclose(result.flatten().numpy(), (np.arange(256) - 100) / 50, rtol=1e-15)
    assert encoder_input(ALL_LEVELS, contract()).dtype == torch.float32


def test_target_with_eight_bits():
    result = likelihood_target(ALL_LEVELS, contract(), torch.float64).flatten()
    np.testing.assert_allclose(result.numpy(), np.arange(256) / 127.5 - 1, atol=1e-15)
    assert result[0] == -1.0
    assert result[255] == 1.0


def test_target_with_five_bits():
    result = likelihood_target(ALL_LEVELS, contract(bits=5), torch.float64).flatten()
    expected = [(8 * (level // 8) - 127.5) / 127.5 for level in range(256)]
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-15)
    assert len(result.unique()) == 32


def test_the_target_does_not_depend_on_the_encoders_scale():
    a = likelihood_target(ALL_LEVELS, contract())
    b = likelihood_target(ALL_LEVELS, contract(mean=3.0, std=2.0))
    assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pixels_are_rounded_clipped_and_inverse_to_the_target(dtype):
    target = likelihood_target(ALL_LEVELS, contract(), dtype)
    assert torch.equal(pixels_from_unit_range(target), ALL_LEVELS)
    just_below = target - 0.4 / 127.5
    assert torch.equal(pixels_from_unit_range(just_below), ALL_LEVELS)
    far = torch.tensor([-7.0, 7.0], dtype=dtype)
    assert pixels_from_unit_range(far).tolist() == [0, 255]


def test_pixels_leave_the_argument_alone():
    x = torch.tensor([3.0, -3.0])
    pixels_from_unit_range(x)
    assert x.tolist() == [3.0, -3.0]


def test_composite_broadcasts_over_samples_and_colours(make_pixels):
    completion = torch.stack([make_pixels(2, 3, 4, seed=s) for s in range(5)])
    observed = make_pixels(2, 3, 4, seed=9)
    mask = make_pixels(2, 1, 4, seed=8) > 127
    result = composite(completion, observed, mask)
    where = mask.expand(5, 2, 3, 4, 4)
    assert torch.equal(result[where], observed.expand(5, -1, -1, -1, -1)[where])
    assert torch.equal(result[~where], completion[~where])
    assert torch.equal(result, composite(completion, observed, mask.to(torch.uint8)))
    assert result.dtype == torch.uint8
