"""What runs are tagged with, how they end, and which files of outputs are kept, and where."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import mlflow
import numpy as np
import pytest
from mlflow.exceptions import MlflowException

from condvae.ground.configuration import ConfigurationError
from condvae.models.card import README
from condvae.models.folder import CARD
from condvae.training.start import Start
from pipelines.runs import tracking
from pipelines.runs.database import close_dead_runs
from pipelines.runs.session_run import SessionRun


@pytest.fixture
def kept(monkeypatch):
    """Log an output; returns the artifacts as (path, place)."""
    found = []

    class Client:
        def log_artifact(self, run_id, path, place):
            assert run_id == "a"
            found.append((path, place))

        log_artifacts = log_artifact

        def set_tag(self, *_):
            pass

    def log(name, value):
        found.clear()
        tracking.log_output(name, value)
        return list(found)

    monkeypatch.setattr(tracking, "_run_id", "a")
    monkeypatch.setattr(tracking, "_made", {})
    monkeypatch.setattr(tracking.mlflow, "MlflowClient", Client)
    return log


def test_files_of_outputs_have_their_places(kept):
    report = {"folder": "r", "report": "report.html", "cards": "cards.json", "figures": ["a.png"]}
    found = kept("report_files", report)
    assert found[:3] == [(f"r/{n}", "report") for n in ("report.html", "cards.json", "a.png")]
    assert ("r/metrics.csv", "report") in found
    names = ("auroc.png", "auroc.json", "auroc.csv")
    assert kept("anomaly_files", {"folder": "s", "figures": ["auroc.png"]}) == [
        (f"s/{name}", "anomaly") for name in names
    ]
    page = {"folder": "c", "page": "index.html", "names": [f"p{i}" for i in range(20)]}
    found = kept("completion_page", page)
    assert found[:2] == [("c/index.html", "complete"), ("c/manifest.json", "complete")]
    # Of the first sixteen pictures only.
    assert found[2:] == [(f"c/p{i}/overview.png", f"complete/p{i}") for i in range(16)]


def test_outputs_that_another_command_has_replaced_are_refused(kept):
    posterior = {"folder": "m", "sha256": "f" * 64, "task": "inpainting"}
    tracking.check_input("posterior", posterior)  # made by an earlier run
    kept("posterior", posterior)
    tracking.check_input("posterior", {**posterior, "start": {}})
    message = "posterior: posterior_sha256 is eeee.*, this run has made ffff.*: another command"
    with pytest.raises(ConfigurationError, match=message):
        tracking.check_input("posterior", {**posterior, "sha256": "e" * 64})


@pytest.mark.parametrize("recorded", [True, False])
def test_card_is_kept_where_something_was_recorded(kept, recorded):
    files = [(f"m/{name}", "posterior") for name in (CARD, README)] if recorded else []
    assert kept("model_card", {"folder": "m", "recorded": recorded}) == files


def test_posterior_that_was_looked_up_is_not_kept(kept):
    posterior = {"folder": "m", "sha256": "f"}
    assert kept("posterior", posterior) == []
    assert kept("posterior", {**posterior, "images_per_second": 1.0}) == [("m", "posterior")]
    assert kept("trained_vae", {"folder": "v", "sha256": "f"}) == [("v", "vae")]
    assert kept("something", {}) == []


PARAMETERS = {
    "data": {"name": "digits"},
    "model": {"flows": "", "initialisation": "random"},
    "objective": {"name": "ipa"},
    "task": {"name": "inpainting"},
    "training": {"steps": 9},
    "recipe": "tuned",
    "seed": 3,
}


@pytest.fixture(scope="module")
def experiment(tmp_path_factory, make_mlflow_database):
    """A real database, and the id of an experiment in it."""
    folder = tmp_path_factory.mktemp("mlflow")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(make_mlflow_database(folder))
    yield mlflow.create_experiment("condvae", artifact_location=str(folder / "artifacts"))
    mlflow.set_tracking_uri(before)


@pytest.fixture
def run(experiment, monkeypatch):
    """A run that tracking logs to; `run()` reads it again."""
    session_run = SessionRun()
    monkeypatch.setattr(session_run, "watch", lambda _: None)
    monkeypatch.setattr(tracking, "session_run", session_run)
    for name in ("_run_id", "_trains"):
        monkeypatch.setattr(tracking, name, None)
    with mlflow.start_run(experiment_id=experiment, run_name="inpaint") as active:
        yield lambda: mlflow.MlflowClient().get_run(active.info.run_id)


def test_a_run_says_what_it_is(run, monkeypatch, tmp_path):
    monkeypatch.setenv("CONDVAE_TRIGGER", "schedule")
    given = {"pipeline_names": ["inpaint"], "runtime_params": {"seed": 3}, "env": "test"}
    parameters = PARAMETERS | {"recipe": "published"}
    tracking.begin_run(given, "cpu", parameters, {"params:training", "metrics"})
    assert run().data.params["about.recipe"] == "published"
    tags = run().data.tags
    assert run().info.run_name == "inpaint-published seed=3"
    # The UI takes the first metric: that of the evaluation, whatever is logged before it is known.
    tracking.record_stage("prepare_images_node", 1.0)
    assert np.isnan(run().data.metrics[tracking.HEADLINE])
    tracking.log_metrics({"train/loss": 3.0, tracking.HEADLINE: 2.0})
    assert next(iter(run().data.metrics.items())) == (tracking.HEADLINE, 2.0)
    assert tags["trigger"] == "schedule"
    assert (tags["pipeline"], tags["recipe"], tags["device"]) == ("inpaint", "published", "cpu")
    assert tags["pid"] == str(os.getpid())
    assert {"command", "python", "torch", "condvae", "host", "gpu"} <= set(tags)
    run_id = run().info.run_id
    assert "torch==" in mlflow.artifacts.load_text(f"runs:/{run_id}/environment/packages.txt")
    store = {"name": "digits", "folder": str(tmp_path), "fingerprint": "ab" * 32}
    tracking.log_output("image_store", store | {"count": 9, "image_size": 16, "channels": 1})
    (used,) = run().inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("digits", "ab" * 18)
    assert {tag.key: tag.value for tag in used.tags}["mlflow.data.context"] == "training"
    tracking.log_output("examples", {"masks": np.eye(3, dtype=bool)})
    path = mlflow.artifacts.download_artifacts(f"runs:/{run_id}/report/examples.npz")
    with np.load(path) as arrays:
        assert np.array_equal(arrays["masks"], np.eye(3, dtype=bool))


def test_data_that_another_run_enters_this_instant_are_an_input_all_the_same(
    run, monkeypatch, tmp_path
):
    log_inputs, refusals = mlflow.MlflowClient.log_inputs, iter(["UNIQUE constraint failed"])

    def refuse_once(*arguments):
        for message in refusals:
            raise MlflowException(message)
        log_inputs(*arguments)

    monkeypatch.setattr(mlflow.MlflowClient, "log_inputs", refuse_once)
    monkeypatch.setattr(tracking, "_run_id", run().info.run_id)
    store = {"name": "digits", "folder": str(tmp_path), "fingerprint": "ab" * 32}
    tracking.log_output("image_store", store | {"count": 9, "image_size": 16, "channels": 1})
    assert [used.dataset.name for used in run().inputs.dataset_inputs] == ["digits"]


def test_given_name_stays_and_recipe_is_named_where_it_decides(run):
    tracking.begin_run({"pipeline_names": ["complete"]}, "cpu", PARAMETERS, {"params:complete"})
    assert run().info.run_name == "inpaint"  # not that of the pipeline: somebody has chosen it
    mlflow.MlflowClient().update_run(run().info.run_id, name="complete")
    tracking.begin_run({"pipeline_names": ["complete"]}, "cpu", PARAMETERS, {"params:complete"})
    assert run().info.run_name == "complete"
    assert run().data.params == {}  # it trains nothing


def test_resumed_run_names_the_run_it_goes_on_from(run, experiment, monkeypatch):
    fingerprint, other = "ab" * 32, "cd" * 32
    client = mlflow.MlflowClient()
    monkeypatch.setattr(tracking, "_run_id", run().info.run_id)
    killed = client.create_run(experiment, tags={"training_run": fingerprint[:12]}).info.run_id
    scratch = Start(identity={"start": {"rung": "scratch"}})
    monkeypatch.setattr(Start, "fingerprint", fingerprint)
    tracking.MlflowMetrics(scratch).on_start("conditional", 0, 9, 8)
    assert run().data.tags["training_run"] == fingerprint[:12]
    assert "resumed_from" not in run().data.tags
    listener = tracking.MlflowMetrics(scratch)
    listener.on_start("conditional", 4, 9, 8)
    assert run().data.tags["resumed_from"] == killed
    # After a divergence it begins again, at a checkpoint of its own.
    listener.on_start("conditional", 2, 9, 8)
    assert run().data.tags["resumed_step"] == "4"
    # `start.resume` at the other run's step; nobody knows who has made that.
    facts = {"rung": "resume", "run": other, "step": 5}
    tracking.MlflowMetrics(Start("resume", "d", {"start": facts})).on_start("c", 5, 9, 8)
    assert run().data.tags["resumed_from"] == f"training/{other[:12]}"
    tracking.MlflowMetrics(Start("resume", "d", {"start": facts})).on_start("c", 7, 9, 8)
    assert run().data.tags["resumed_from"] == killed


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is a POSIX signal")
def test_runs_of_dead_processes_are_closed(experiment):
    client = mlflow.MlflowClient()

    def begin(pid, ago=0.0, host=None):
        tags = {"host": host or platform.node(), "pid": str(pid)}
        started = int(1000 * (time.time() - ago))
        return client.create_run(experiment, start_time=started, tags=tags).info.run_id

    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    runs = {
        "KILLED": [begin(process.pid, 3600)],  # the number is now another process's
        "RUNNING": [begin(process.pid), begin(os.getpid()), begin(2**22 + 1, host="elsewhere")],
    }
    close_dead_runs(experiment)
    found = {s: [client.get_run(r).info.status for r in ids] for s, ids in runs.items()}
    assert found == {status: [status] * len(ids) for status, ids in runs.items()}
    process.send_signal(signal.SIGKILL)
    process.wait()
    close_dead_runs(experiment)
    assert client.get_run(runs["RUNNING"][0]).info.status == "KILLED"
    assert client.get_run(runs["RUNNING"][1]).info.status == "RUNNING"


def test_a_registration_is_told_by_the_tags_of_its_run(run, monkeypatch):
    monkeypatch.setattr(tracking, "_run_id", run().info.run_id)
    tracking.log_output("registration", {"registered": False})
    assert "registration" not in run().data.tags
    found = {"registered": True, "name": "condvae-a-b", "version": "3", "alias": "challenger"}
    tracking.log_output("registration", {**found, "reason": "not shown to be better"})
    tags = run().data.tags
    names = ("registration", "registered_model", "registered_version")
    assert [tags[name] for name in names] == ["challenger", "condvae-a-b", "3"]


def test_pages_of_attributes_have_their_places(kept):
    files = {"folder": "a", "page": "report.html", "figures": ["edits.png"]}
    assert kept("attribute_files", files) == [
        (f"a/{name}", "attributes")
        for name in ("report.html", "edits.png", "metrics.json", "metrics.csv")
    ]
    assert ("a/contributions.json", "attributes_ladder") in kept("ladder_files", files)
    assert kept("flat_vae", {"folder": "m", "sha256": "f"}) == [("m", "model")]


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "FINISHED"), (ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")],
)
def test_nested_runs_end_however_they_end(monkeypatch, error, status):
    made = {}

    class Client:
        def get_run(self, run_id):
            assert run_id == "parent"
            tags = {"data": "digits", "seed": "0", "command": "kedro run"}
            return SimpleNamespace(
                info=SimpleNamespace(experiment_id="7"), data=SimpleNamespace(tags=tags)
            )

        def create_run(self, experiment, tags, run_name):
            made.update(experiment=experiment, tags=tags, name=run_name)
            return SimpleNamespace(info=SimpleNamespace(run_id="child"))

        def set_terminated(self, run_id, status):
            made["ended"] = (run_id, status)

    monkeypatch.setattr(tracking, "_run_id", "parent")
    monkeypatch.setattr(tracking.mlflow, "MlflowClient", Client)
    with contextlib.suppress(ValueError, KeyboardInterrupt), tracking.nested_run("a", {"seed": 1}):
        assert tracking._run_id == "child"
        if error is not None:
            raise error
    assert tracking._run_id == "parent"
    assert made["ended"] == ("child", status)
    assert made["tags"]["mlflow.parentRunId"] == "parent"
    assert (made["tags"]["seed"], made["tags"]["pid"]) == ("1", str(os.getpid()))
    # A search for the runs of a data set finds both.
    assert made["tags"]["data"] == "digits"


def test_without_a_run_nothing_is_nested(monkeypatch):
    monkeypatch.setattr(tracking, "_run_id", None)
    with tracking.nested_run("a", {}):
        assert tracking._run_id is None
