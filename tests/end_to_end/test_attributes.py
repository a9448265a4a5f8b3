"""`attributes` and `attributes_ladder` as commands in a copy of the project."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

from condvae.cvae.folder import load_cvae
from condvae.cvae.generation import sample
from condvae.ground.files import sha256_of_file


@pytest.fixture(scope="module")
def trained(project):
    """The project after `kedro run --env=test --pipeline=attributes`."""
    project.kedro("run", "--env=test", "--pipeline=attributes")
    return project


def test_everything_lies_where_the_pages_say(trained):
    folder = trained.folder / "data/test"
    model, card = load_cvae(folder / "06_models/attributes/model")
    y = torch.full((1, len(model.attributes)), torch.nan)
    assert sample(model, y, 2).shape == (2, 1, 1, 16, 16)
    report = folder / "08_reporting/attributes"
    metrics = pd.DataFrame(json.loads((report / "metrics.json").read_text()))
    assert set(metrics["model"]) == {card["sha256"]}
    table = pd.read_csv(report / "metrics.csv")
    # JSON has fifteen decimals.
    values = (t["value"].to_numpy(float) for t in (table, metrics))
    np.testing.assert_allclose(*values, rtol=1e-12, atol=1e-14)
    assert "report.html" in {path.name for path in report.iterdir()}


def test_mlflow_run_has_metrics_of_both_stages_and_the_model(trained):
    client, runs = trained.runs()
    run = next(r for r in runs if r.info.run_name == "attributes")
    assert run.info.status == "FINISHED"
    assert run.data.params["cvae.prior"] == "spline"
    weights = trained.folder / "data/test/06_models/attributes/model/model.safetensors"
    assert run.data.tags["model_sha256"] == sha256_of_file(weights)
    for stage in ("cvae", "prior"):
        history = client.get_metric_history(run.info.run_id, f"{stage}/train/loss")
        assert [point.step for point in history] == [2, 4, 6]
    assert "attributes/all/attribute_accuracy_of_ceiling/all/mean" in run.data.metrics
    names = {a.path for a in client.list_artifacts(run.info.run_id, "attributes")}
    assert {"attributes/report.html", "attributes/edits.png", "attributes/metrics.csv"} <= names
    assert client.list_artifacts(run.info.run_id, "model")


def test_ladder_has_a_run_below_for_every_rung_and_seed(trained):
    trained.kedro("run", "--env=test", "--pipeline=attributes_ladder")
    _, runs = trained.runs()
    parent = next(r for r in runs if r.info.run_name == "attributes_ladder")
    below = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(below) == 5 * 2
    assert {r.info.status for r in below} == {"FINISHED"}
    assert {r.data.tags["rung"] for r in below} == {"no_flow", "gaussian", "spline"}
    assert all("attributes/all/log_prob_nats/all/none" in r.data.metrics for r in below)
    assert "ladder/spline/two_stage/log_prob_nats" in parent.data.metrics
    assert "attributes/all/log_prob_nats/all/none" not in parent.data.metrics
    report = trained.folder / "data/test/08_reporting/attributes_ladder"
    assert {"report.html", "ladder.csv", "contributions.json"} <= {p.name for p in report.iterdir()}


def test_wrong_rung_is_refused_before_any_work(trained):
    printed = trained.kedro(
        "run", "--env=test", "--pipeline=attributes_ladder", "--params=ladder.seeds=1", fails=True
    )
    assert "ladder.seeds = 1: a standard error needs at least 2" in printed
    assert "Traceback" not in printed
