from __future__ import annotations

import pytest

from condvae.completion import CompletionSettings
from condvae.ground.configuration import ConfigurationError


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 1}, "n = 1: a standard deviation needs at least 2 completions"),
        ({"temperature": -0.5}, "temperature = -0.5: expected >= 0"),
        ({"guidance": -0.5}, "guidance = -0.5: expected >= 0"),
        ({"guidance_rule": "sum"}, "guidance_rule = 'sum': expected one of product, extrapolation"),
        ({"batch_size": 0}, "batch_size = 0: expected > 0"),
        ({"polarity": "white"}, "polarity = 'white': expected one of white_is_hole"),
        ({"small": "enlarged"}, "small = 'enlarged': expected one of refuse, enlarge"),
        ({"unreadable": "go"}, "unreadable = 'go': expected one of stop, skip"),
        ({"quantiles": (0.5, 1.5)}, "quantiles: level 1.5, expected in [0, 1]"),
        ({"quantiles": (0.05, 0.0501)}, "expected levels that differ by 0.01"),
    ],
)
def test_mistakes_are_refused_by_name(change, message):
    with pytest.raises(ConfigurationError) as error:
        CompletionSettings(**change)
    assert message in str(error.value)


def test_only_temperature_one_is_the_posterior():
    assert CompletionSettings(temperature=1.0).stamp is None
    assert CompletionSettings(temperature=0.7).stamp == "temperature 0.7: not the posterior"
    assert CompletionSettings(temperature=1.1).stamp == "temperature 1.1: not the posterior"
    both = CompletionSettings(temperature=0.7, guidance=1.5)
    assert both.stamp == "temperature 0.7, guidance 1.5: not the posterior"
    rule = CompletionSettings(guidance=1.5, guidance_rule="extrapolation")
    assert rule.stamp == "guidance 1.5 by extrapolation: not the posterior"
    assert CompletionSettings(guidance_rule="extrapolation").stamp is None


def test_names_of_quantiles():
    names = [CompletionSettings.quantile_name(level) for level in (0.0, 0.05, 0.5, 0.95, 1.0)]
    assert names == ["00", "05", "50", "95", "100"]
