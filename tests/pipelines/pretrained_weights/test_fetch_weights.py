"""The frozen VAE must exist, be trained, and fit the images."""

from __future__ import annotations

import pytest

from condvae.ground.configuration import ConfigurationError
from condvae.models.folder import save_vae
from pipelines.pretrained_weights.nodes import fetch_weights

STORE = {
    **{"name": "digits", "fingerprint": "f" * 64, "channels": 1, "image_size": 16},
    **{"training_mean": 80.0, "training_std": 90.0},
}
MODEL = {"architecture": "tiny16"}


def fetch(tmp_path, **weights):
    return fetch_weights(STORE, weights, MODEL, {"vae": str(tmp_path / "vae")}, 0)


def test_bundled_vae_is_found_by_name(tmp_path):
    found = fetch(tmp_path, vae="digits")
    assert found["name"] == "digits"
    assert len(found["sha256"]) == 64


def test_random_vae_must_be_allowed(tmp_path):
    with pytest.raises(ConfigurationError, match=r"'random' was never trained.*pretrain"):
        fetch(tmp_path, vae="random")
    assert fetch(tmp_path, vae="random", allow_untrained=True)["name"] == "random"


def test_random_vae_is_what_joint_training_begins_with(tmp_path):
    arguments = (STORE, {"vae": "random"}, MODEL, {"vae": str(tmp_path / "vae")}, 0)
    with pytest.raises(ConfigurationError, match=r"objective\.name=joint"):
        fetch_weights(*arguments, {"name": "ipa"})
    assert fetch_weights(*arguments, {"name": "joint"})["name"] == "random"


def test_random_vae_is_the_same_for_the_same_seed(tmp_path):
    first = fetch(tmp_path / "a", vae="random", allow_untrained=True)
    second = fetch(tmp_path / "b", vae="random", allow_untrained=True)
    assert first["sha256"] == second["sha256"]


def test_saved_vae_without_a_source_counts_as_never_trained(tmp_path, make_vae):
    save_vae(tmp_path / "own", make_vae(), {"weights_source": None})
    with pytest.raises(ConfigurationError, match="was never trained"):
        fetch(tmp_path, vae=str(tmp_path / "own"))


def test_vae_for_other_images_is_refused(tmp_path):
    store = {**STORE, "image_size": 32}
    with pytest.raises(ConfigurationError, match=r"takes 1 x 16² images, the data have 1 x 32²"):
        fetch_weights(store, {"vae": "digits"}, MODEL, {"vae": str(tmp_path / "vae")}, 0)
