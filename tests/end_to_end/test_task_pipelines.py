"""The pipelines of tasks: the nodes of `inpaint` with parameters and folders of their own."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from condvae.models.folder import read_card, save_vae
from condvae.training.initial import new_vae
from condvae.vdvae import ARCHITECTURES

# One process for all: most of a short run is the import of its libraries.
RUN_ALL = """
import json, sys
from pathlib import Path
from kedro.framework.startup import bootstrap_project

bootstrap_project(Path.cwd())
from pipelines.app.session import Session

for name, params in json.loads(sys.argv[1]).items():
    with Session.create(env="test", runtime_params=params) as session:
        session.run(pipeline_names=[name])
"""
QUICK = {"cases_per_bin": 4, "completions": 3, "bound_draws": [], "samplers": ["ipa"]}
TASKS = {
    "super_resolve": "super_resolution",
    "edges_to_photo": "edges",
    "label_to_image": "class_label",
    "colorize": "colourisation",
}


@pytest.fixture(scope="module")
def finished(project, colours):
    """The project after all four."""
    given = {"evaluation": {"quick": QUICK}}
    params = {name: given for name in TASKS} | {"colorize": {**given, **colours}}
    params["edges_to_photo"] = {**given, "task": {"options": {"threshold": 60.0}}}
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL, json.dumps(params)],
        cwd=project.folder,
        env=project.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return project


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """Parameters for a small set of coloured pictures and a VAE for it."""
    folder = tmp_path_factory.mktemp("colours")
    pixels = np.random.default_rng(0).integers(0, 256, (60, 4, 4, 3), np.uint8)
    np.savez(folder / "colours.npz", images=pixels.repeat(4, axis=1).repeat(4, axis=2))
    architecture = dataclasses.replace(ARCHITECTURES["tiny16"], channels=3)
    save_vae(folder / "vae", new_vae(architecture, 127.5, 70.0, 0), {})
    source = {"name": "colours", "source": "npz", "path": str(folder / "colours.npz")}
    return {"data": {**source, "channels": 3}, "weights": {"vae": str(folder / "vae")}}


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", TASKS)
def test_each_has_folders_report_and_metrics_of_its_own(finished, pipeline):
    data = finished.folder / "data/test"
    card = read_card(data / "06_models" / pipeline / "posterior", "posterior")
    assert card["task"] == TASKS[pipeline]
    report = data / "08_reporting" / pipeline
    metrics = json.loads((report / "metrics.json").read_text())
    assert {row["bin"] for row in metrics} == {"pooled"}
    consistency = [row["value"] for row in metrics if row["metric"] == "consistency_rmse"]
    # The class is no image that could be compared.
    assert len(consistency) == (pipeline != "label_to_image")
    assert all(0 < value <= 255 for value in consistency)
    page = (report / "report.html").read_text()
    assert "does not hold exactly" in page
    assert ("Consistency with the observation" in page) == bool(consistency)
    examples = np.load(data / "07_model_output" / pipeline / "examples.npz")
    assert ("pictures" in examples) == bool(consistency)


@pytest.mark.slow
def test_examples_of_classes_are_in_their_order(finished):
    folder = finished.folder / "data/test/07_model_output/label_to_image"
    labels = np.load(folder / "examples.npz")["labels"].tolist()
    assert labels == sorted(set(labels))
    assert len(labels) >= 5


@pytest.mark.slow
def test_what_is_given_wins_over_the_parameters_of_the_pipeline(finished):
    models = finished.folder / "data/test/06_models"
    assert read_card(models / "edges_to_photo/posterior")["task_options"]["threshold"] == 60.0
    options = read_card(models / "super_resolve/posterior")["task_options"]
    assert options == {"factor": 4, "kernel": "box"}


@pytest.mark.slow
def test_mlflow_says_which_task_it_was(finished):
    _, runs = finished.runs()
    tags = {run.data.tags["pipeline"]: run.data.tags.get("task") for run in runs}
    assert {name: tags[name] for name in TASKS} == TASKS
    params = {run.data.tags["pipeline"]: run.data.params for run in runs}
    assert params["super_resolve"]["task.options.factor"] == "4"


@pytest.mark.slow
def test_evaluate_takes_the_task_of_a_named_posterior(finished):
    posterior = "data/test/06_models/super_resolve/posterior"
    full = "evaluation.full.masks_per_image=1,evaluation.full.completions=3"
    finished.kedro(
        *("run", "--env=test", "--pipeline=evaluate", "--to-nodes=evaluate_samplers_node"),
        f"--params=weights.posterior={posterior},{full}",
    )
    metrics = finished.folder / "data/test/08_reporting/super_resolve/metrics.json"
    rows = [r for r in json.loads(metrics.read_text()) if r["metric"] == "consistency_rmse"]
    images = pd.read_parquet(finished.folder / "data/test/03_primary/manifest.parquet")
    assert [row["n"] for row in rows] == [(images["split"] == "test").sum()]
