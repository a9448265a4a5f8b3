import math

import pytest

from condvae.plots import (
    coverage_target,
    direction_words,
    format_interval,
    metric_label,
    statistic_label,
)
from condvae.plots.labels import axis_title
from condvae.scores.attribute_definitions import ATTRIBUTE_METRICS
from condvae.scores.definitions import METRICS


def test_words_of_a_metric_are_those_of_its_definition():
    assert metric_label("frechet_distance") is METRICS["frechet_distance"]
    own = metric_label("information_used_nats")
    assert own is ATTRIBUTE_METRICS["information_used_nats"]
    unknown = metric_label("mean_rate_nats")
    assert (unknown.title, unknown.unit, unknown.definition) == ("Mean rate (nats)", "value", "")


def test_only_coverage_has_a_target():
    targets = {metric: coverage_target(metric) for metric in METRICS}
    assert {metric: target for metric, target in targets.items() if target is not None} == {
        "posterior_coverage": 0.9,
        "coverage_50": 0.5,
        "coverage_80": 0.8,
        "coverage_95": 0.95,
    }
    assert direction_words("posterior_coverage") == "calibrated: 0.90"
    assert direction_words("recall") == "↑ higher is better"


@pytest.mark.parametrize(
    ("key", "title"),
    [
        ("validation/kl_nats", "KL (nats)"),
        ("kl", "KL"),
        ("klotz_share", "Klotz share"),
        ("distortion_nats", "Distortion (nats)"),
    ],
)
def test_titles_of_axes_keep_abbreviations(key, title):
    assert axis_title(key) == title


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pixel_2", "Random pixel 2"),
        ("projection_11", "Random projection 11"),
        ("feature_projection_1", "Feature projection 1"),
        ("tarp_other_features", "Distance to reference of another y, features"),
        ("sharpness_3", "Sharpness 3"),
        ("projection_x", "Projection x"),
    ],
)
def test_statistics_have_names_in_words(name, words):
    assert statistic_label(name) == words


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0.63891, 0.598, 0.68), "0.639 [0.598, 0.680]"),
        ((-1.5, -2.0, -1.0), "−1.50 [−2.00, −1.00]"),
        ((1234.4, 1000.0, 1500.0), "1234 [1000, 1500]"),
        ((0.5, None, None, 0.02), "0.500 ± 0.020"),
        ((0.5, math.nan, math.nan), "0.5"),
        ((0.5, 0.5, 0.5), "0.5"),
        ((None, 0.1, 0.2), "–"),
    ],
)
def test_intervals_have_the_decimals_their_width_supports(arguments, text):
    assert format_interval(*arguments) == text
