"""Scores reach the card of the posterior that was trained here, and of no other."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from condvae.ground.configuration import ConfigurationError
from condvae.models.folder import read_card, save_posterior
from pipelines.evaluation.model_card import record_scores_node

STORE = {"name": "digits", "fingerprint": "f" * 64, "count": 9}
MANIFEST = {"sha256": "m" * 64, "cases": 20, "completions": 4, "size": "quick", "path": "unused"}
VERDICT = {"words": ["biased"], "summary": "biased: 1 test rejects.", "n": 20, "rejected": ["x"]}


def make_metrics(samplers=("ipa", "prior", "ipa_t0.7")):
    common = {"level": 0.95, "n": 20, "extractor": "pixels", "seed": 5, "temperature": 1.0}
    return pd.DataFrame(
        [
            {
                **{"metric": "crps", "bin": bin_name, "sampler": sampler, **common},
                **{"value": number + 0.5, "low": 0.25, "high": math.nan, "standard_error": 0.125},
            }
            for number, sampler in enumerate(samplers)
            for bin_name in ("0_20", "pooled")
        ]
    )


@pytest.fixture
def record(tmp_path, make_posterior):
    """Saves a posterior in `folder` and records scores of it."""

    def record(folder, metrics=None, calibration=None, facts=None):
        if not (folder / "card.json").exists():
            save_posterior(folder, make_posterior(), {"name": "digits"})
        return record_scores_node(
            STORE,
            {"folder": str(folder), "sha256": read_card(folder)["sha256"]},
            MANIFEST,
            make_metrics() if metrics is None else metrics,
            calibration or {"ipa": {"verdicts": {"pooled": VERDICT}}},
            {"inpaint": str(tmp_path / "inpaint")},
            facts or {},
        )

    return record


def test_pooled_scores_of_the_posterior_are_recorded(record, tmp_path):
    folder = tmp_path / "inpaint" / "posterior"
    assert record(folder) == {"folder": str(folder), "recorded": True}
    assert read_card(folder)["scores"] == {
        "quick": {
            **{"manifest": "m" * 64, "cases": 20, "completions": 4, "temperature": 1.0},
            **{"seed": 5, "level": 0.95, "data": {"name": "digits", "fingerprint": "f" * 64}},
            "metrics": [
                {
                    **{"metric": "crps", "value": 0.5, "low": 0.25, "high": None},
                    **{"standard_error": 0.125, "n": 20, "extractor": "pixels"},
                }
            ],
            "calibration": {"words": ["biased"], "summary": VERDICT["summary"], "n": 20},
        }
    }
    assert "biased: 1 test rejects." in (folder / "README.md").read_text()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    record(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_calibration_may_be_missing(record, tmp_path):
    folder = tmp_path / "inpaint" / "posterior"
    record(folder, calibration={"prior": {}})
    assert read_card(folder)["scores"]["quick"]["calibration"] is None


@pytest.mark.parametrize(
    ("facts", "what"),
    [({"posterior_sha256": "e" * 64}, "posterior"), ({"manifest": "e" * 64}, "manifest")],
)
def test_scores_of_another_posterior_or_manifest_are_refused(record, tmp_path, facts, what):
    folder = tmp_path / "inpaint" / "posterior"
    with pytest.raises(ConfigurationError, match=f"scores are of the {what} eeeeeeeeeeee..., but"):
        record(folder, facts=facts)
    assert "scores" not in read_card(folder)
    own = {"posterior_sha256": read_card(folder)["sha256"], "manifest": MANIFEST["sha256"]}
    assert record(folder, facts=own)["recorded"]


def test_models_of_others_stay_as_they_are(record, tmp_path):
    folder = tmp_path / "theirs"
    assert record(folder) == {"folder": str(folder), "recorded": False}
    assert sorted(path.name for path in folder.iterdir()) == ["card.json", "model.safetensors"]
    assert "scores" not in read_card(folder)


def test_without_scores_of_the_posterior_nothing_is_recorded(record, tmp_path):
    folder = tmp_path / "inpaint" / "posterior"
    assert not record(folder, make_metrics(("prior", "ipa_t0.7")))["recorded"]
    assert "scores" not in read_card(folder)
