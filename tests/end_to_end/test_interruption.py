"""Preparation, training and evaluation, killed with SIGKILL again and again, end as if untouched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kill_runs.py"
RANDOM, CHOSEN = 8, 4
# All of `inpaint` but the report, which takes as long as the rest.
PIPELINES = "data_preparation,pretrained_weights,conditional_training,evaluation"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="SIGKILL is a POSIX signal"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kill-runs")


@pytest.fixture(scope="module")
def report(folder):
    command = [
        *(sys.executable, SCRIPT, "--kills", str(RANDOM), "--moments", str(CHOSEN)),
        *("--seed", "1", "--folder", folder, "--pipelines", PIPELINES),
    ]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    return {**json.loads(result.stdout or "{}"), "status": result.returncode, "log": result.stderr}


def test_a_dozen_kills_change_no_file(report):
    assert report["status"] == 0, report["log"][-4000:]
    assert report["identical"], report["differing"]
    assert sum(report["kills_by_cause"].values()) == report["kills"] == RANDOM + CHOSEN
    assert report["kills_by_cause"]["random instant"] == RANDOM
    assert len(report["kills_by_cause"]) == 1 + CHOSEN  # every moment of a file's writing
    assert len(report["kills_by_stage"]) >= 3


def test_what_is_compared_is_all_that_matters(report, folder):
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        from kill_runs import describe_outcome
    finally:
        sys.path.remove(str(SCRIPT.parent))
    outcome = describe_outcome(folder / "undisturbed")
    assert len(outcome) == report["files_compared"]
    names = {Path(path).name for path in outcome}
    assert {
        *("images.npy", "manifest.parquet", "model.safetensors", "card.json", "metrics.jsonl"),
        *("checkpoint-000000004.pt", "checkpoint-000000006.pt", "cases_quick.jsonl"),
        *("metrics.json", "metrics.csv", "comparisons.json", "cases.parquet", "examples.npz"),
    } <= names
    # One value of one table, one weight of one checkpoint: a difference shows.
    for path in (name for name in outcome if name.endswith(("metrics.csv", "000006.pt"))):
        spoil(folder / "undisturbed" / path)
        assert describe_outcome(folder / "undisturbed")[path] != outcome[path]


def spoil(path):
    if path.suffix == ".csv":
        path.write_text(path.read_text().replace("1", "2", 1))
    else:
        import torch

        state = torch.load(path, weights_only=True)
        next(iter(state["trainable"].values())).add_(1)
        torch.save(state, path)


def test_no_kill_leaves_an_unreadable_checkpoint(report, folder):
    # Checkpoints are whole or absent; falling back to an older one is for damage from outside.
    for run in range(report["runs"]):
        assert "cannot be used" not in (folder / f"run-{run}" / "log").read_text()


def test_every_run_in_mlflow_is_finished_or_marked_as_killed(report):
    statuses = report["mlflow_statuses"]
    assert statuses["FINISHED"] >= report["runs"]  # a kill may come after the end of the run
    assert set(statuses) <= {"FINISHED", "KILLED"}
    assert statuses.get("KILLED", 0) <= report["kills"]
