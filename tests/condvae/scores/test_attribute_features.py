"""Distances and diversity of images that share attributes, against laws known in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from condvae.ground.attributes import Attribute
from condvae.ground.configuration import ConfigurationError
from condvae.scores.attribute_features import (
    LEAST_ROWS,
    frechet_by_value,
    frechet_of_halves,
    pair_distances,
    relative_diversity,
)
from condvae.scores.frechet import frechet_distance

RED = Attribute("red", ("no", "yes"))
SLANT = Attribute("slant", ())


def test_distance_of_each_value_by_itself():
    """Samples with the values exchanged have the law of all images, and neither value's."""
    rng = np.random.default_rng(0)
    y = np.stack([rng.integers(2, size=4000) * 1.0, rng.normal(size=4000)], axis=1)
    shift = np.array([3.0, 0.0])
    real = rng.normal(size=(4000, 2)) + shift * y[:, :1]
    generated = rng.normal(size=(4000, 2)) + shift * (1 - y[:, :1])
    found = frechet_by_value(generated, y, real, y, (RED, SLANT), extractor="plane", resamples=0)
    assert list(found) == ["all", "red=no", "red=yes"]
    assert found["all"].value < 0.02
    for value in ("red=no", "red=yes"):
        assert found[value].value == pytest.approx(9.0, abs=0.5)  # distance of the means, squared
    assert found["red=yes"].n == (y[:, 0] == 1).sum()
    assert found["all"].extractor == "plane"


def test_floor_is_the_bias_at_half_the_number():
    rng = np.random.default_rng(1)
    real, y = rng.normal(size=(400, 8)), np.zeros((400, 1))
    floors = [
        frechet_of_halves(real, y, (RED,), extractor="e", resamples=0, seed=seed)["red=no"]
        for seed in range(10)
    ]
    equal = [
        frechet_distance(
            rng.normal(size=(200, 8)), rng.normal(size=(200, 8)), paired=False, resamples=0
        ).value
        for _ in range(10)
    ]
    assert floors[0].n == 200
    assert np.mean([f.value for f in floors]) == pytest.approx(np.mean(equal), rel=0.25)


def test_halves_of_a_sorted_file_are_alike():
    real = np.linspace(0, 100, 200)[:, None]
    floor = frechet_of_halves(real, np.zeros((200, 1)), (RED,), extractor="e", resamples=0)
    assert floor["all"].value < 30  # first against second half: 50 squared


def test_halves_have_the_same_conditions():
    """Images that y decides are the same in both halves; at random, means would differ by chance."""
    y = np.random.default_rng(4).permutation(np.repeat([0.0, 1.0, np.nan], [60, 40, 20]))
    real = np.select([y == 0, y == 1], [0.0, 10.0], 20.0)[:, None]
    floor = frechet_of_halves(real, y[:, None], (RED,), extractor="e", resamples=0)["all"]
    assert floor.value == pytest.approx(0, abs=1e-6)


def test_small_groups_are_left_out_and_unknown_ones_count_in_all_only():
    rng = np.random.default_rng(2)
    y = np.full((40, 1), np.nan)
    y[: LEAST_ROWS - 1] = 0
    y[20:] = 1
    real = rng.normal(size=(40, 2))
    found = frechet_by_value(real, y, real, y, (RED,), extractor="e", resamples=0)
    assert {name: score.n for name, score in found.items()} == {"all": 40, "red=yes": 20}
    assert set(frechet_of_halves(real, y, (RED,), extractor="e", resamples=3)) == {
        "all",
        "red=yes",
    }


def test_pairs_of_samples():
    samples = np.zeros((3, 2, 2), dtype=np.uint8)
    samples[1, 0] = 3, 4
    samples[2, 0] = 6, 8
    np.testing.assert_allclose(pair_distances(samples), [(5 + 10 + 5) / 3, 0])
    with pytest.raises(ConfigurationError, match=r"samples of shape \(1, 2, 2\)"):
        pair_distances(samples[:1])


def test_samples_of_the_true_law_are_as_diverse_as_the_data():
    rng = np.random.default_rng(3)
    y = rng.integers(3, size=(600, 1)) * 1.0
    width = 1.0 + y  # conditions differ in spread and place
    real = 10 * y + width * rng.normal(size=(600, 4))
    samples = 10 * y + width * rng.normal(size=(5, 600, 4))
    alike = relative_diversity(pair_distances(samples), real, y)
    assert abs(alike.value - 1) < 3 * alike.standard_error
    assert 0.003 < alike.standard_error < 0.05
    narrow = relative_diversity(pair_distances(10 * y + 0.5 * (samples - 10 * y)), real, y)
    assert narrow.value == pytest.approx(0.5 * alike.value)
    assert relative_diversity(np.zeros(600), real, y).value == 0


def test_standard_error_of_diversity_is_that_of_repetition():
    def once(seed):
        rng = np.random.default_rng(seed)
        y = rng.integers(2, size=(60, 1)) * 1.0
        real = (1 + y) * rng.normal(size=(60, 1))
        return relative_diversity(pair_distances((1 + y) * rng.normal(size=(3, 60, 1))), real, y)

    runs = [once(seed) for seed in range(150)]
    spread = np.std([run.value for run in runs], ddof=1)
    stated = np.sqrt(np.mean([run.standard_error**2 for run in runs]))
    assert stated == pytest.approx(spread, rel=0.25)


def test_conditions_without_partners_do_not_count():
    real = np.array([[0.0], [1.0], [5.0], [7.0]])
    y = np.array([[np.nan], [np.nan], [0.0], [1.0]])
    found = relative_diversity(np.array([1.0, 1.0, 99.0, 99.0]), real, y)
    assert (found.value, found.n) == (1.0, 2)  # rows of unknown value are alike
    assert relative_diversity(np.ones(4), real, np.arange(4.0)[:, None]) is None


def test_shapes_that_do_not_fit_are_refused():
    real = np.zeros((10, 2))
    with pytest.raises(ConfigurationError, match=r"real_y of shape \(9, 1\)"):
        frechet_by_value(real, np.zeros((10, 1)), real, np.zeros((9, 1)), (RED,), extractor="e")
    with pytest.raises(ConfigurationError, match=r"conditions of shape \(9, 1\)"):
        relative_diversity(np.zeros(10), real, np.zeros((9, 1)))
