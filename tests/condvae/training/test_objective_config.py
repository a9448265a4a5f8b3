from __future__ import annotations

import pytest

from condvae.ground.configuration import ConfigurationError, read_config
from condvae.training import ObjectiveConfig


def test_likelihood_weight_is_geometric_and_then_constant():
    config = ObjectiveConfig(
        "ipa_r", likelihood_start=0.01, likelihood_end=1.0, likelihood_steps=100
    )
    weights = [config.likelihood_weight(step) for step in (0, 25, 50, 100, 5000)]
    assert weights == pytest.approx([0.01, 0.01 * 10**0.5, 0.1, 1.0, 1.0])
    ratios = [config.likelihood_weight(s + 1) / config.likelihood_weight(s) for s in range(100)]
    assert ratios == pytest.approx([100 ** (1 / 100)] * 100)
    assert ObjectiveConfig("ipa_r").likelihood_weight(0) == 1.0
    falling = ObjectiveConfig("ipa_r", likelihood_start=4.0, likelihood_steps=2)
    assert [falling.likelihood_weight(s) for s in range(3)] == pytest.approx([4.0, 2.0, 1.0])


def test_choices_are_what_differs_from_the_defaults():
    assert ObjectiveConfig().choices == {}
    assert ObjectiveConfig("joint").choices == {"name": "joint"}
    assert ObjectiveConfig(trainable="all", predicted="unobserved").choices == {
        "trainable": "all",
        "predicted": "unobserved",
    }


@pytest.mark.parametrize(
    ("choices", "trained"),
    [
        ({}, "partial"),
        ({"trainable": "output_head"}, "output_head"),
        ({"trainable": "all"}, "all"),
        ({"name": "joint"}, "all"),
        ({"name": "ipa_r"}, "partial"),
    ],
)
def test_which_weights_are_trained(choices, trained):
    assert ObjectiveConfig(**choices).trained == trained


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "ipar"}, r"objective\.name = 'ipar': expected one of ipa, ipa_r, joint"),
        ({"trainable": "most"}, r"objective\.trainable = 'most': expected one of partial,"),
        ({"observations_per_image": 0}, r"objective\.observations_per_image = 0: expected > 0"),
        ({"name": "ipa_r", "likelihood_end": 0.0}, r"likelihood_end = 0\.0: expected > 0"),
        ({"name": "ipa_r", "observations_per_image": 2}, "observations_per_image = 2: has no eff"),
        ({"name": "ipa_r", "trainable": "all"}, "trainable = 'all': has no effect"),
        ({"name": "joint", "trainable": "output_head"}, "trainable = 'output_head': has no eff"),
        ({"predicted": "unobserved"}, "predicted = 'unobserved': has no effect"),
        ({"likelihood_steps": 5}, "likelihood_steps = 5: has no effect"),
        ({"name": "ipa_r", "likelihood_start": 0.1}, "likelihood_start = 0.1: has no effect"),
        ({"name": "ipa_r", "likelihood_steps": 5}, "likelihood_steps = 5: has no effect"),
    ],
)
def test_what_contradicts_itself_is_refused(values, message):
    with pytest.raises(ConfigurationError, match=message):
        read_config(ObjectiveConfig, values, "objective")
