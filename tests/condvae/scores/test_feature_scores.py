from __future__ import annotations

import math

import numpy as np
import pytest

from condvae.ground.configuration import ConfigurationError
from condvae.scores.feature_scores import (
    RowUnits,
    check_features,
    check_row_count,
    half_sampling_error,
)

IMAGES = np.repeat(["b", "a", "d", "c"], 3)


def test_split_divides_units_at_random_and_never_in_two():
    units = RowUnits.of(12, 12, True, IMAGES)
    generator, firsts = np.random.default_rng(0), set()
    for _ in range(50):
        parts = units.split(2, generator)
        rows = np.concatenate([a for a, _ in parts])
        np.testing.assert_array_equal(np.sort(rows), np.arange(12))
        for a, b in parts:
            np.testing.assert_array_equal(a, b)
            images, counts = np.unique(IMAGES[a], return_counts=True)
            assert len(images) == 2
            assert (counts == 3).all()
        firsts.add(tuple(parts[0][0]))
    assert len(firsts) == math.comb(4, 2)  # every half occurs, not only the first rows


def test_unpaired_rows_are_split_apart():
    units = RowUnits.of(10, 7, False, None)
    (a, b), (c, d) = units.split(2, np.random.default_rng(0))
    assert sorted([*a, *c]) == list(range(10))
    assert sorted([*b, *d]) == list(range(7))
    assert (len(a), len(c), len(b), len(d)) == (5, 5, 4, 3)
    assert not np.array_equal(a[a < 7], b)
    assert units.count() == 7


def test_half_sampling_error_of_a_mean():
    generator = np.random.default_rng(1)
    values = generator.normal(0, 3, size=400)
    units = RowUnits.of(400, 400, True, None)

    def means(rows, _):
        return values[rows].mean(), -2 * values[rows].mean()

    error = half_sampling_error(means, units, splits=400, rng=generator)
    np.testing.assert_allclose(error, [3 / 20, 6 / 20], rtol=0.15)


def test_half_sampling_error_counts_images_and_not_rows():
    generator = np.random.default_rng(2)
    images = np.repeat(np.arange(100), 4)
    values = generator.normal(size=100)[images]
    errors = [
        half_sampling_error(
            lambda rows, _: values[rows].mean(),
            RowUnits.of(400, 400, True, clusters),
            splits=300,
            rng=generator,
        )
        for clusters in (images, None)
    ]
    assert errors[0] == pytest.approx(0.1, rel=0.2)
    assert errors[1] == pytest.approx(0.05, rel=0.2)


def test_no_splits_or_too_small_halves_give_nan():
    units = RowUnits.of(6, 6, True, None)
    for options in ({"splits": 0}, {"splits": 2, "least_rows": 4}):
        error = half_sampling_error(lambda *_: 1.0, units, rng=np.random.default_rng(0), **options)
        assert np.isnan(error).all()


def test_row_count_names_rows_and_dimensions_unless_forced():
    check_row_count("this", 64, 32)
    with pytest.raises(ConfigurationError, match=r"63 rows of features with 32 dim.*at least 64"):
        check_row_count("this", 63, 32)
    check_row_count("this", 3, 32, force=True)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: check_features(np.ones((3, 2)), np.ones((3, 4))), "2 and 4 dimensions"),
        (
            lambda: check_features(np.ones((3, 2)), np.ones(3), ("x", "reference")),
            r"reference of shape \(3,\)",
        ),
        (lambda: RowUnits.of(3, 4, True, None), "3 and 4 rows"),
        (lambda: RowUnits.of(3, 4, False, [1, 1, 2]), "clusters of unpaired"),
        (lambda: RowUnits.of(3, 3, True, [1, 2]), r"clusters of shape \(2,\)"),
    ],
)
def test_bad_features_are_refused(call, message):
    with pytest.raises(ConfigurationError, match=message):
        call()
