"""`verify`: a VAE scores what its card says, or the command fails after writing the result."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from condvae.data import DataConfig, prepare_images
from condvae.ground.configuration import ConfigurationError, read_config
from condvae.models import ScoreMismatchError, find_model
from condvae.models.folder import load_vae, read_card, save_vae
from pipelines.parameters import VerifyConfig
from pipelines.pipeline_registry import register_pipelines
from pipelines.verification import nodes

SETTINGS = {"images": 240, "batch_size": 64}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return prepare_images(DataConfig(), tmp_path_factory.mktemp("digits"))


@pytest.fixture
def verify(images):
    store = {
        "folder": str(images.folder),
        "name": "digits",
        "fingerprint": images.fingerprint,
    }

    def run(folder, settings=SETTINGS, seed=0):
        vae = {"name": "the VAE", "folder": str(folder), "sha256": read_card(folder)["sha256"]}
        return nodes.verify_score(store, vae, settings, "cpu", seed)

    return run


@pytest.fixture
def changed(tmp_path):
    """Saves the bundled VAE with changed weights under its old card."""

    def save(change, **facts):
        vae, card = load_vae(find_model("digits"))
        with torch.no_grad():
            change(vae)
        save_vae(tmp_path / "changed", vae, {**card, **facts})
        return tmp_path / "changed"

    return save


def test_bundled_vae_passes_on_the_digits(verify):
    found = verify(find_model("digits"))
    assert found["passed"]
    assert found["n"] == 240
    _, card = load_vae(find_model("digits"))
    assert found["expected"] == card["test_bits_per_dim"]
    assert found["expected_standard_error"] == card["test_bits_per_dim_standard_error"]
    combined = math.hypot(found["standard_error"], found["expected_standard_error"])
    assert found["tolerance"] == pytest.approx(0.005 + 3 * combined)
    assert "its card says 1.7346 on 353 test images of digits" in found["message"]
    nodes.refuse_failed_score(found)
    json.dumps(found, allow_nan=False)


def test_few_images_are_no_proof(verify):
    found = verify(find_model("digits"), {"images": 20, "batch_size": 20})
    assert not found["passed"]
    assert "too few images to tell, take about" in found["message"]


def test_images_are_a_random_choice_of_the_test_split(verify, images, monkeypatch):
    chosen = []

    def record(vae, pixels, rows, *_):
        chosen.append(rows)
        return 1.73, 0.01

    monkeypatch.setattr(nodes, "bits_per_dim", record)
    test = images.indices("test")
    few = {"images": 30, "batch_size": 30}
    for seed in (0, 0, 1):
        verify(find_model("digits"), few, seed)
    assert np.array_equal(chosen[0], chosen[1])
    assert not np.array_equal(chosen[0], chosen[2])
    for rows in chosen:
        assert len(set(rows.tolist())) == 30
        assert set(rows.tolist()) <= set(test.tolist())
        assert not np.array_equal(rows, np.sort(test)[:30])
    verify(find_model("digits"), {"images": 10_000, "batch_size": 500})
    assert np.array_equal(chosen[-1], np.sort(test))


def test_changed_vae_fails_after_its_result_is_there(verify, changed, caplog):
    def disturb(vae):
        generator = torch.Generator().manual_seed(0)
        for parameter in vae.parameters():
            scale = 0.05 * parameter.abs().mean()
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))

    found = verify(changed(disturb))
    assert not found["passed"]
    assert abs(found["bits_per_dim"] - found["expected"]) > found["tolerance"]
    assert "too few" not in found["message"]
    assert found["message"] in caplog.text
    with pytest.raises(ScoreMismatchError, match=r"^the VAE: FAIL: .*tolerance"):
        nodes.refuse_failed_score(found)


def test_vae_that_gives_no_number_fails_and_can_be_written(verify, changed):
    found = verify(changed(lambda vae: vae.decoder.gain.fill_(math.nan)))
    assert not found["passed"]
    assert found["bits_per_dim"] is None
    json.dumps(found, allow_nan=False)


def test_vae_without_a_score_is_refused(verify, changed):
    folder = changed(lambda _: None, test_bits_per_dim=None)
    with pytest.raises(ConfigurationError, match="nobody states what this VAE scores"):
        verify(folder)


def test_running_out_of_memory_names_the_parameter(verify, monkeypatch):
    def exhaust(*_):
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(nodes, "bits_per_dim", exhaust)
    with pytest.raises(ConfigurationError, match=r"verify\.batch_size = 64; lower it"):
        verify(find_model("digits"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"images": 1}, r"^verify\.images = 1: a standard error needs at least 2"),
        ({"batch_size": 0}, r"^verify\.batch_size = 0: expected > 0"),
    ],
)
def test_impossible_settings_are_refused(values, message):
    with pytest.raises(ConfigurationError, match=message):
        read_config(VerifyConfig, values, "verify")


def test_result_is_written_before_it_is_judged():
    verify = register_pipelines()["verify"]
    judge = next(node for node in verify.nodes if node.name == "refuse_failed_score_node")
    assert judge.inputs == ["verification"]
    assert not judge.outputs
    assert {"prepare_images_node", "fetch_weights_node"} < {node.name for node in verify.nodes}
