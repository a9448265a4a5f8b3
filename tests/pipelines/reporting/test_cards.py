from dataclasses import asdict

import numpy as np
import pandas as pd

from condvae.ground.files import write_json
from condvae.scores.definitions import METRICS
from pipelines.reporting.cards import make_card

EXTRACTOR = "digits_classifier_f2_abababab"


def card_of(metrics, metric, run_facts):
    return make_card(metric, metrics[metrics["metric"] == metric], run_facts)


def test_card_says_how_the_numbers_came_about(metrics, run_facts):
    card = card_of(metrics, "frechet_distance", run_facts)
    assert card.definition == METRICS["frechet_distance"].definition
    assert (card.title, card.unit) == ("Fréchet distance", "squared feature distance")
    assert card.made_up == "of all cases together"
    assert (card.computed_from, card.resizer) == (EXTRACTOR, "none")
    assert card.extractor_sha256 == "ab" * 32
    assert card.n == {"0_20": [100], "20_40": [100], "40_60": [100]} | {
        "60_80": [100],
        "80_100": [100],
        "pooled": [500],
    }
    assert (card.k, card.seed, card.level, card.manifest) == ([10], [0], [0.95], ["3f" * 32])
    assert not card.proper
    assert card_of(metrics, "bound_bits_per_unobserved_dim", run_facts).proper


def test_what_needs_no_extractor_names_none(metrics, run_facts):
    card = card_of(metrics, "posterior_coverage", run_facts)
    assert (card.computed_from, card.extractor_sha256, card.resizer) == ("pixels", None, None)
    card = card_of(metrics, "negative_elbo_nats_per_dim", run_facts)
    assert card.computed_from == "the model's densities"


def test_hash_of_the_own_network_is_not_given_to_another(metrics, run_facts):
    foreign = metrics.assign(extractor="inception-v3-compat_6726825d")
    facts = run_facts | {"resizers": {"inception-v3-compat_6726825d": "bilinear"}}
    card = card_of(foreign, "frechet_distance", facts)
    assert (card.extractor_sha256, card.resizer) == (None, "bilinear")
    facts |= {"extractor_hashes": {"inception-v3-compat_6726825d": "67" * 32}}
    assert card_of(foreign, "frechet_distance", facts).extractor_sha256 == "67" * 32
    plain = metrics.assign(extractor="digits_classifier_f2")  # as a classifier: no digits
    card = card_of(plain, "class_agreement", run_facts)
    assert (card.extractor_sha256, card.resizer) == ("ab" * 32, "none")


def test_settings_are_those_of_the_rows(metrics, run_facts):
    assert card_of(metrics.assign(settings=""), "precision", run_facts).settings == []
    told = metrics.assign(settings='{"neighbours": 3}')
    assert card_of(told, "frechet_distance", run_facts).settings == ['{"neighbours": 3}']


def test_temperatures_belong_to_samplers_and_may_mean_nothing(metrics, run_facts, tmp_path):
    heats = metrics["sampler"].map({"ipa": 0.7, "untrained": 1.0, "prior": np.nan})
    card = card_of(metrics.assign(temperature=heats), "class_agreement", run_facts)
    assert card.temperatures == {"ipa": 0.7, "untrained": 1.0}
    write_json(tmp_path / "card.json", asdict(card))


def test_unknown_metric_has_a_card_with_what_is_known():
    row = {"metric": "sharpness", "bin": "pooled", "sampler": "a", "value": 1.0, "n": 3}
    card = make_card("sharpness", pd.DataFrame([row]), {})
    assert (card.definition, card.made_up, card.computed_from) == ("", "", "not stated")
    assert card.n == {"pooled": [3]}
    assert card.temperatures == {}
