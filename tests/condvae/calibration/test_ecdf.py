from __future__ import annotations

import numpy as np
import pytest

from condvae.calibration import ecdf_band
from condvae.ground.configuration import ConfigurationError


def is_inside(band):
    return bool(((band.ecdf >= band.low) & (band.ecdf <= band.high)).all())


def test_curve_by_hand():
    band = ecdf_band(np.array([0, 0, 1, 3]), 3)
    assert band.points.tolist() == [0.25, 0.5, 0.75]
    assert band.ecdf.tolist() == [0.5, 0.75, 0.75]
    assert band.n == 4


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_whole_curves_stay_inside_as_often_as_promised(level):
    rng = np.random.default_rng(0)
    bands = [ecdf_band(rng.integers(0, 100, size=150), 99, level=level) for _ in range(600)]
    assert np.mean([is_inside(band) for band in bands]) == pytest.approx(level, abs=0.045)
    # A pointwise band of that level would be left far more often: it is narrower.
    middle = 49
    pointwise = 1.96 * np.sqrt(0.25 / 150) if level == 0.95 else 1.28 * np.sqrt(0.25 / 150)
    assert bands[0].high[middle] - 0.5 > 1.2 * pointwise


def test_p_value_and_band_agree():
    rng = np.random.default_rng(1)
    for _ in range(200):
        band = ecdf_band(np.minimum(rng.integers(0, 106, size=150), 99), 99)
        # At the edge of a discrete band both are right.
        if abs(band.p_value - 0.05) > 0.01:
            assert is_inside(band) == (band.p_value > 0.05)


@pytest.mark.parametrize("power", [0.7, 1.4])
def test_wrong_curves_leave_the_band(power):
    ranks = np.floor(np.random.default_rng(2).random(1000) ** power * 100).astype(int)
    band = ecdf_band(ranks, 99)
    assert not is_inside(band)
    assert band.p_value == pytest.approx(1 / 4001)


def test_many_draws_are_thinned_to_a_readable_number_of_points():
    band = ecdf_band(np.random.default_rng(3).integers(0, 1000, size=300), 999)
    assert len(band.points) == 100
    assert is_inside(band)
    np.testing.assert_allclose(band.ecdf, band.points, atol=0.1)


@pytest.mark.parametrize(
    ("ranks", "level", "message"),
    [([1, 12], 0.95, "ranks from 1 to 12"), ([1, 2], 95, "level = 95")],
)
def test_bad_values_are_refused(ranks, level, message):
    with pytest.raises(ConfigurationError, match=message):
        ecdf_band(ranks, 9, level=level)
