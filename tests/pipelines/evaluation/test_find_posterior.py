"""Which posterior `evaluate` scores: as told, else the last trained, else the bundled one."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from condvae.ground.configuration import ConfigurationError
from condvae.models import find_model
from condvae.models.folder import read_card, save_posterior
from condvae.models.official_layout import merge_conditional, write_official
from condvae.models.presets import PRESETS, Preset
from condvae.training.config import TrainingConfig
from condvae.vdvae import ARCHITECTURES
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


def test_official_conditional_checkpoint_is_converted(tmp_path, monkeypatch, make_posterior):
    architecture = dataclasses.replace(ARCHITECTURES["tiny16"], channels=3)
    posterior = make_posterior(channels=3, dtype=torch.float32)
    monkeypatch.setitem(ARCHITECTURES, "colour16", architecture)
    preset = Preset("colour16", posterior.contract, TrainingConfig(), None, "a test")
    monkeypatch.setitem(PRESETS, "colour16", preset)
    path = tmp_path / "colour16-ipa.th"
    model = posterior.model
    write_official(path, merge_conditional(model.vae.state_dict(), model.latents.state_dict()))
    weights = {"posterior": str(path), "preset": "colour16"}
    description, history = find_posterior(weights, {"inpaint": str(tmp_path / "inpaint")})
    assert description["folder"].startswith(str(tmp_path / "inpaint" / "official"))
    assert description["task"] == "inpainting"
    assert description["vae"] == "colour16-ipa.th"
    assert history == []
    assert read_card(description["folder"], "posterior")["sha256"] == description["sha256"]
