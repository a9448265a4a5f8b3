from __future__ import annotations

import time

import numpy as np
import pytest

from condvae.ground.configuration import ConfigurationError, read_config
from condvae.masks.kinds import MASK_KINDS, bin_of
from condvae.masks.sampling import MaskConfig, draw_mask_in_bin, draw_masks, reachable_bins


def bins_of(masks):
    return [bin_of(share) for share in masks.mean((1, 2))]


@pytest.fixture(scope="module")
def stratified():
    start = time.process_time()
    masks = draw_masks(MaskConfig(), 16, 2002, seed=5)
    return masks, time.process_time() - start


def test_every_bin_gets_its_fifth(stratified):
    masks, _ = stratified
    assert masks.shape == (2002, 16, 16)
    assert masks.dtype == bool
    assert sorted(np.bincount(bins_of(masks))) == [400, 400, 400, 401, 401]
    assert not masks.all((1, 2)).any()


def test_the_bins_come_in_random_order(stratified):
    bins = np.array(bins_of(stratified[0]))
    for half in (bins[:1001], bins[1001:]):
        assert np.abs(np.bincount(half, minlength=5) - 200.2).max() < 60
    same_as_next = (bins[1:] == bins[:-1]).mean()
    assert same_as_next == pytest.approx(0.2, abs=0.04)


def test_drawing_is_fast(stratified):
    # About one second on one core; the bound leaves room for a busy machine.
    assert stratified[1] < 6


def test_same_arguments_same_masks():
    config = MaskConfig()
    first = draw_masks(config, 12, 50, seed=1)
    np.testing.assert_array_equal(first, draw_masks(config, 12, 50, seed=1))
    assert (first != draw_masks(config, 12, 50, seed=2)).any()
    reachable_bins.cache_clear()  # what is remembered between calls does not matter
    np.testing.assert_array_equal(first, draw_masks(config, 12, 50, seed=1))


def test_kinds_follow_their_weights_inside_a_bin():
    # Half does not reach the bin of the centre box and must not dilute the weights there.
    config = MaskConfig(kinds={"blank": 3.0, "centre_box": 1.0, "half": 5.0, "rectangles": 1.0})
    generator = np.random.default_rng(0)
    box = np.ones((16, 16), dtype=bool)
    box[4:12, 4:12] = False
    masks = [draw_mask_in_bin(config, 16, 3, generator) for _ in range(600)]
    share = np.mean([(mask == box).all() for mask in masks])
    assert share == pytest.approx(0.5, abs=0.07)  # centre_box 1 : rectangles 1
    masks = [draw_mask_in_bin(config, 16, 0, generator) for _ in range(20)]
    assert not np.any(masks)  # only blank reaches the first bin


def test_kinds_follow_their_weights_without_stratification():
    config = MaskConfig(kinds={"blank": 1.0, "half": 3.0, "patches": 0.0}, stratified=False)
    shares = draw_masks(config, 10, 2000, seed=0).mean((1, 2))
    assert set(shares) == {0.0, 0.5}
    assert (shares == 0).mean() == pytest.approx(0.25, abs=0.04)


def test_masks_that_hide_nothing_are_drawn_again():
    generator = np.random.default_rng(0)
    draw = MASK_KINDS["free_form"].draw
    assert any(draw(generator, 16, (0.0, 0.2)).all() for _ in range(400))  # they do occur
    config = MaskConfig(kinds={"free_form": 1.0})
    generator = np.random.default_rng(0)
    masks = [draw_mask_in_bin(config, 16, 4, generator) for _ in range(400)]
    assert not any(mask.all() for mask in masks)


@pytest.mark.parametrize("index", range(5))
def test_free_form_reaches_every_bin_at_every_size(index):
    config = MaskConfig(kinds={"free_form": 1.0})
    for size in (8, 28, 64):
        mask = draw_mask_in_bin(config, size, index, np.random.default_rng(3))
        assert bin_of(mask.mean()) == index


def test_what_each_kind_reaches():
    assert reachable_bins("blank", 16) == (0,)
    assert reachable_bins("half", 16) == (2,)
    assert reachable_bins("centre_box", 16) == (3,)
    assert reachable_bins("free_form", 16) == (0, 1, 2, 3, 4)


def test_a_bin_out_of_reach_is_named():
    config = MaskConfig(kinds={"blank": 1.0, "half": 1.0, "free_form": 0.0})
    with pytest.raises(ConfigurationError) as error:
        draw_mask_in_bin(config, 16, 1, np.random.default_rng(0))
    message = str(error.value)
    assert "masks.kinds = blank, half" in message
    assert "bin 20_40" in message
    assert "16 pixels" in message
    assert "masks.stratified" in message
    with pytest.raises(ConfigurationError, match="none of them reaches the bin"):
        draw_masks(config, 16, 10, seed=0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kinds": {"freeform": 1.0}}, "did you mean 'free_form'"),
        ({"kinds": {"half": -1.0}}, "masks.kinds.half = -1.0: expected >= 0"),
        ({"kinds": {"half": 0.0}}, "expected at least one weight > 0"),
        ({"kinds": {}}, "expected at least one weight > 0"),
        ({"pool": 0}, "masks.pool = 0: expected > 0"),
        ({"stratify": True}, "unknown parameter masks.stratify"),
    ],
)
def test_bad_configurations_are_refused(values, message):
    with pytest.raises(ConfigurationError, match=message):
        read_config(MaskConfig, values, "masks")


def test_count_must_be_positive():
    with pytest.raises(ConfigurationError, match="count = 0"):
        draw_masks(MaskConfig(), 16, 0, seed=0)
