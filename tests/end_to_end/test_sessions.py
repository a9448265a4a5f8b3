"""Kedro sessions one after another in one process, as in a notebook or a server."""

from __future__ import annotations

import subprocess
import sys

import pytest

RUN_ALL = """
import contextlib, os
from pathlib import Path

import mlflow
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.runner import SequentialRunner

bootstrap_project(Path.cwd())


class Broken(SequentialRunner):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def _run(self, *arguments, **options):
        super()._run(*arguments, **options)
        raise self.error


def run(runner=None):
    with contextlib.suppress(ValueError, KeyboardInterrupt):
        with KedroSession.create(env="test") as session:
            session.run(
                pipeline_names=["data_preparation"],
                node_names=["prepare_images_node"],
                runner=runner,
            )


run()
run(Broken(ValueError()))
run(Broken(KeyboardInterrupt()))
run()
assert mlflow.active_run() is None
with mlflow.start_run(run_name="study"):
    for seed in range(2):
        with mlflow.start_run(nested=True, run_name=f"seed {seed}"):
            run()
assert mlflow.active_run() is None
left = [name for name in os.environ if name.startswith("MLFLOW_")]
assert not {"MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID"} & set(left), left
"""


@pytest.mark.slow
def test_every_session_has_a_run_that_says_how_it_ended(fresh_project):
    # A setting of MLflow's, for every session of the process; one that the first has set is none.
    fresh_project.environment["MLFLOW_EXPERIMENT_NAME"] = "study"
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL],
        cwd=fresh_project.folder,
        env=fresh_project.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    _, runs = fresh_project.runs("study")
    named = {run.info.run_name: run for run in runs}
    of_sessions = [run for run in reversed(runs) if run.info.run_name == "data_preparation"]
    expected = ["FINISHED", "FAILED", "KILLED", "FINISHED"]
    assert [run.info.status for run in of_sessions] == expected
    assert not any("mlflow.parentRunId" in run.data.tags for run in of_sessions)
    for name in ("seed 0", "seed 1"):
        assert named[name].info.status == "FINISHED"
        assert named[name].data.tags["mlflow.parentRunId"] == named["study"].info.run_id
        assert named[name].data.tags["pipeline"] == "data_preparation"
    assert len(runs) == len(expected) + 3
