"""Training and manifest of tasks that show something else than pixels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from condvae import load_posterior
from condvae.data import open_images
from condvae.evaluation.cases import read_cases
from condvae.ground.configuration import ConfigurationError
from condvae.models.folder import save_vae
from condvae.posterior.input_check import check_observations
from condvae.training.initial import new_vae
from condvae.vdvae import ARCHITECTURES
from pipelines.conditional_training.nodes import train_partial_encoder
from pipelines.data_preparation.nodes import prepare_images_node
from pipelines.evaluation.nodes import build_manifest, write_exchange

LABELS = {"name": "class_label", "options": {"classes": 10}}


@pytest.fixture
def store(tmp_path):
    data = {"name": "few", "limit": 80, "image_size": 16, "channels": 1}
    return prepare_images_node(data, {"images": str(tmp_path)})[0]


@pytest.fixture
def train(tmp_path, store):
    """Trains two steps for a task; returns the posterior's description."""
    vae = new_vae(ARCHITECTURES["tiny16"], 80.0, 90.0, 0)
    sha256 = save_vae(tmp_path / "vae", vae, {})["sha256"]

    def run(task, kinds=None, **start):
        return train_partial_encoder(
            image_store=store,
            pretrained_vae={"name": "tiny", "folder": str(tmp_path / "vae"), "sha256": sha256},
            model={"architecture": "tiny16"},
            task=task,
            masks={"kinds": kinds or {"half": 1.0}, "stratified": False, "pool": 8},
            training={"steps": 2, "batch_size": 4, "warmup_steps": 0, "learning_rate": 1e-3},
            start=start,
            folders={"inpaint": str(tmp_path / "inpaint")},
            device="cpu",
            seed=7,
        )[0]

    return run


def test_a_class_is_trained_and_stored(train, tmp_path):
    described = train(LABELS)
    assert described["task_options"] == {"classes": 10, "hidden": 0.0}
    posterior = load_posterior(described["folder"])
    assert posterior.card["weights_source"]["task_options"] == described["task_options"]
    # Pixels are not observed: there is nothing to compare them with.
    assert "input_reference" not in posterior.card
    y = posterior.observe(labels=torch.tensor([3, -1]))
    assert posterior.sample(y, 2).shape == (2, 2, 1, 16, 16)
    verdict = check_observations(posterior, y)[0]
    assert "task 'class_label' shows no pixels themselves" in verdict.message
    # Masks are not looked at: other kinds make the same run.
    assert train(LABELS, {"rectangles": 1.0})["sha256"] == described["sha256"]
    runs = sorted((tmp_path / "inpaint" / "training").iterdir())
    assert len(runs) == 1
    with pytest.raises(ConfigurationError, match="that run has task 'class_label', this one 'inp"):
        train({"name": "inpainting"}, resume=str(runs[0]))


def test_the_identity_of_inpainting_says_nothing_of_options(train, tmp_path):
    train({"name": "inpainting"})
    (marker,) = (tmp_path / "inpaint" / "training").glob("*/run.json")
    identity = json.loads(marker.read_text())["identity"]
    assert identity["task"] == "inpainting"
    assert set(identity) == {
        *("training", "masks", "initialisation", "heads", "task", "vae", "data", "seed", "start")
    }


def test_labels_that_do_not_fit_are_refused(train):
    with pytest.raises(ConfigurationError, match="classes = 5: the data set has the label 9"):
        train({"name": "class_label", "options": {"classes": 5}})


def test_glimpses_are_scored_as_far_as_their_pixels_go(train):
    posterior = load_posterior(train({"name": "glimpses"})["folder"])
    assert set(posterior.card["input_reference"]["bins"]) >= {"0_20", "20_40"}


def test_manifest_and_export_follow_the_task(store, tmp_path):
    folders, masks = {"evaluation": str(tmp_path)}, {"kinds": {"half": 1.0}}
    size = {"cases_per_bin": 2, "completions": 2, "bound_draws": [1], "samplers": ["ipa"]}
    evaluation = {"quick": size, "full": size}
    made = build_manifest(store, evaluation, masks, LABELS, folders, "quick")
    cases = read_cases(Path(made["path"]), made["sha256"])
    assert len(cases) == 10
    assert not np.any([case.mask for case in cases])
    rows = set(open_images(Path(store["folder"])).indices("test").tolist())
    assert {case.image_id for case in cases} <= rows
    with pytest.raises(
        ConfigurationError, match=r"task.name = 'class_label': cases are written as"
    ):
        write_exchange(store, made, LABELS, folders)
    windows = build_manifest(store, evaluation, masks, {"name": "outpainting"}, folders, "quick")
    cases = read_cases(Path(windows["path"]))
    assert [case.bin for case in cases] == [0, 1, 2, 3, 4] * 2
    assert all(case.mask[7:9, 7:9].any() and not case.mask[-1, -1] for case in cases)
