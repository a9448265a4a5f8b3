"""Commands beside `inpaint`, as a user gives them: `complete`, `verify` and the published recipe."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from condvae.ground.images import DataContract
from condvae.ipa import PartialEncoder
from condvae.models.folder import read_card
from condvae.models.official_layout import write_official, write_official_conditional
from condvae.vdvae import VDVAE, Architecture


@pytest.fixture
def own_pictures(tmp_path):
    """Two smooth pictures and a mask for both."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for name in "ab":
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4), dtype=np.uint8))
        coarse.resize((16, 16), Image.Resampling.BICUBIC).save(tmp_path / f"images/{name}.png")
    mask = Image.new("1", (16, 16))
    mask.paste(1, (0, 8, 16, 16))
    mask.save(tmp_path / "mask.png")
    return tmp_path


@pytest.fixture(scope="module")
def own_models(tmp_path_factory):
    """Official files that no preset describes, and what their tensors do not say of them."""
    folder = tmp_path_factory.mktemp("own")
    layers = {"encoder": "16x2,16d2,8x1,8d4,2x1,2d2,1x1", "decoder": "1x2,2m1,8m2,16m8,16x1"}
    stated = {**layers, "image_size": 16, "mean": 80.0, "std": 90.0, "test_bits_per_dim": 99.0}
    (folder / "own.yml").write_text(yaml.safe_dump(stated))
    torch.manual_seed(0)
    shape = Architecture(**layers, image_size=16, channels=1, width=12, latent_channels=3)
    vae = VDVAE(shape, DataContract(1, 16, 80.0, 90.0)).requires_grad_(False)
    write_official(folder / "own.th", vae.state_dict())
    write_official_conditional(folder / "own_ipa.th", vae, PartialEncoder(vae, 2))
    return folder


def test_complete_twice(project, own_pictures, own_models):
    output = own_pictures / "out"
    parameters = {
        "complete.images": own_pictures / "images",
        "complete.masks": own_pictures / "mask.png",
        "complete.output": output,
        "complete.n": 2,
        "weights.posterior": own_models / "own_ipa.th",
        "weights.preset": own_models / "own.yml",
    }
    listed = ",".join(f"{name}={value}" for name, value in parameters.items())
    command = ("run", "--env=test", "--pipeline=complete", f"--params={listed}")
    project.kedro(*command)
    catalog = project.folder / "data/test/08_reporting/complete"
    manifest = json.loads((catalog / "completion_manifest.json").read_text())
    assert [one["name"] for one in manifest["pictures"]] == ["a", "b"]
    assert manifest["completed_now"] == 2
    assert "kedro run --pipeline=complete --env=test" in manifest["command"]
    page = json.loads((catalog / "completion_page.json").read_text())
    assert page == {"folder": str(output), "page": "index.html", "names": ["a", "b"]}
    client, (run, *_) = project.runs()
    assert run.data.params["complete.n"] == "2"
    assert run.data.metrics["complete/completed_now"] == 2
    artifacts = {
        entry.path
        for folder in ("complete", "complete/a", "complete/b")
        for entry in client.list_artifacts(run.info.run_id, folder)
    }
    assert {"complete/index.html", "complete/manifest.json"} <= artifacts
    assert {"complete/a/overview.png", "complete/b/overview.png"} <= artifacts
    before = {path: path.stat().st_mtime_ns for path in output.glob("[ab]/*")}
    assert "2 of 2 pictures are done" in project.kedro(*command)
    assert {path: path.stat().st_mtime_ns for path in output.glob("[ab]/*")} == before


def test_verify_ends_with_an_error_after_a_fail(project, own_models):
    weights = f"weights.vae={own_models}/own.th,weights.preset={own_models}/own.yml"
    printed = project.kedro(
        "run", "--env=test", "--pipeline=verify", f"--params={weights}", fails=True
    )
    verdict = json.loads((project.folder / "data/test/08_reporting/verification.json").read_text())
    assert verdict["passed"] is False
    assert "its card says 99.0000" in verdict["message"]
    assert verdict["message"] in " ".join(printed.split())
    assert "Traceback" not in printed
    _, (run, *_) = project.runs()
    assert run.data.metrics["verify/passed"] == 0
    assert run.info.status == "FAILED"


def test_mlflow_has_the_values_of_the_published_recipe(project, own_models):
    weights = f"weights.vae={own_models}/own.th,weights.preset={own_models}/own.yml"
    project.kedro(
        "run",
        "--env=test",
        "--pipelines=data_preparation,pretrained_weights,conditional_training",
        f"--params=recipe=published,training.batch_size=4,{weights}",
    )
    posterior = read_card(project.folder / "data/test/06_models/inpaint/posterior", "posterior")
    assert posterior["architecture"]["widths"] == ""
    assert posterior["architecture"]["encoder"] == "16x2,16d2,8x1,8d4,2x1,2d2,1x1"
    _, (run, *_) = project.runs()
    assert run.data.tags["recipe"] == "published"
    parameters = run.data.params
    assert parameters["model.initialisation"] == "random"
    assert parameters["masks.kinds.free_form_published"] == "1.0"
    assert parameters["masks.stratified"] == "False"
    assert "masks.kinds.free_form" not in parameters
    # Steps of a model that nobody published stay, the command line wins, the rest is CIFAR-10's.
    assert (parameters["training.steps"], parameters["training.batch_size"]) == ("6", "4")
    assert float(parameters["training.learning_rate"]) == 2e-4
    assert parameters["training.ema_decay"] == "0.9999"
