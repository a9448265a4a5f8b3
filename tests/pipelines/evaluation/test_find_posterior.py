"""Which posterior `evaluate` scores: as told, else the last trained, else the bundled one."""

from __future__ import annotations

import pytest

from condvae.configuration import ConfigurationError
from condvae.model_folder import read_card, save_posterior
from condvae.pretrained import find_model
from pipelines.evaluation.nodes import BUNDLED_POSTERIOR, find_posterior


def test_fresh_clone_scores_the_bundled_posterior(tmp_path):
    description, history = find_posterior({}, {"inpaint": str(tmp_path / "inpaint")})
    card = read_card(find_model(BUNDLED_POSTERIOR), "posterior")
    assert description["sha256"] == card["sha256"]
    assert history == []


def test_last_trained_posterior_comes_first(tmp_path, make_posterior):
    folder = tmp_path / "inpaint" / "posterior"
    card = save_posterior(folder, make_posterior(), {"weights_source": {"run": "f" * 64}})
    training = tmp_path / "inpaint" / "training" / ("f" * 12)
    training.mkdir(parents=True)
    (training / "metrics.jsonl").write_text('{"step": 1, "train/loss": 0.5}\n')
    description, history = find_posterior({}, {"inpaint": str(tmp_path / "inpaint")})
    assert description["sha256"] == card["sha256"]
    assert history == [{"step": 1, "train/loss": 0.5}]


def test_named_posterior_comes_before_the_last(tmp_path, make_posterior):
    save_posterior(tmp_path / "inpaint" / "posterior", make_posterior(), {})
    named = tmp_path / "named"
    card = save_posterior(named, make_posterior(seed=3), {})
    description, _ = find_posterior(
        {"posterior": str(named)}, {"inpaint": str(tmp_path / "inpaint")}
    )
    assert description["sha256"] == card["sha256"]


def test_name_that_is_nothing_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"'nowhere': neither a registered name"):
        find_posterior({"posterior": "nowhere"}, {"inpaint": str(tmp_path / "inpaint")})
