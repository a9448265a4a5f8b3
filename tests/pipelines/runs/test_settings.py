"""Where runs go: MLflow's environment variables, several databases, and a real tracking server."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import time
import urllib.request

import click
import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from condvae.ground.configuration import ConfigurationError
from condvae.models.folder import save_posterior
from pipelines.app.hooks import ParameterHooks
from pipelines.comparison.finding import find_runs, read_run
from pipelines.runs import tracking
from pipelines.runs.registry import open_registered, register
from pipelines.runs.settings import keep_variables, settle_tracking

VARIABLES = ("TRACKING_URI", "EXPERIMENT_NAME", "EXPERIMENT_ID", "RUN_ID", "RUN_CONTEXT")
PORT_OF_NOBODY = 9


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    """Nothing that the caller or another test has set; all is put back afterwards."""
    for name in VARIABLES:
        monkeypatch.setenv(f"MLFLOW_{name}", "")
        monkeypatch.delenv(f"MLFLOW_{name}")


@pytest.fixture
def project(tmp_path, make_mlflow_database):
    """A function that settles where the runs of a project go; `project.uri` is its own database."""
    (tmp_path / "mlruns").mkdir()

    def settle(uri=None, run_id=None, **settings):
        server = {"mlflow_tracking_uri": uri or settle.uri}
        tracking_settings = {"experiment": {"name": "condvae"}, "run": {"id": run_id}, **settings}
        settled = settle_tracking({"server": server, "tracking": tracking_settings}, {}, tmp_path)
        found = settled["tracking"]
        return (
            settled["server"]["mlflow_tracking_uri"],
            found["experiment"]["name"],
            found["run"],
            found["experiment"]["create_experiment_kwargs"]["artifact_location"],
        )

    settle.folder = tmp_path
    settle.uri = make_mlflow_database(tmp_path / "mlruns")
    return settle


def test_without_variables_runs_go_where_mlflow_yml_says(project, caplog):
    caplog.set_level(logging.INFO)
    artifacts = (project.folder / "mlruns/artifacts").as_uri()
    assert project() == (project.uri, "condvae", {"id": None}, artifacts)
    assert (
        MlflowClient(project.uri).get_experiment_by_name("condvae").artifact_location == artifacts
    )
    assert not [record for record in caplog.records if "MLflow runs go" in record.message]
    # Relative addresses start at the project, whatever the folder of the command.
    assert project("sqlite:///mlruns/mlflow.db")[0] == project.uri


def test_variables_decide_and_are_named(project, monkeypatch, caplog, make_mlflow_database):
    caplog.set_level(logging.INFO)
    other = project.folder / "other"
    other.mkdir()
    make_mlflow_database(other)
    # That of a variable starts where the command is given, as MLflow has it.
    monkeypatch.chdir(other)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "study")
    uri = f"sqlite:///{other}/mlflow.db"
    assert project() == (uri, "study", {"id": None}, (other / "artifacts").as_uri())
    (line,) = (record.message for record in caplog.records if "MLflow runs go" in record.message)
    for said in (uri, "experiment study", "MLFLOW_TRACKING_URI=sqlite:///mlflow.db"):
        assert said in line
    assert MlflowClient(project.uri).get_experiment_by_name("condvae") is None


def test_experiment_by_id(project, monkeypatch):
    client = MlflowClient(project.uri)
    number = client.create_experiment("mine")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", number)
    assert project()[1] == "mine"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "other")
    with pytest.raises(
        ConfigurationError, match=f"ID = {number} is experiment 'mine', and .*other"
    ):
        project()
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "4711")
    with pytest.raises(ConfigurationError, match=r"^MLFLOW_EXPERIMENT_ID = 4711: No Exp.*4711"):
        project()


@pytest.mark.parametrize("by_variable", [True, False])
def test_a_run_is_continued_where_it_is(project, monkeypatch, by_variable):
    client = MlflowClient(project.uri)
    experiment = client.create_experiment("mine")
    run = client.create_run(experiment, run_name="my own").info

    def go_on(number):
        if not by_variable:
            return project(run_id=number)
        monkeypatch.setenv("MLFLOW_RUN_ID", number)
        return project()

    assert go_on(run.run_id)[1:3] == ("mine", {"id": run.run_id, "name": "my own"})
    asked = "MLFLOW_RUN_ID" if by_variable else "mlflow_run_id"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "other")
    with pytest.raises(
        ConfigurationError, match="is of experiment 'mine', and not of 'other', which"
    ):
        go_on(run.run_id)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    client.delete_run(run.run_id)
    with pytest.raises(ConfigurationError, match=f"^{asked} = {run.run_id}: that run was deleted"):
        go_on(run.run_id)
    with pytest.raises(ConfigurationError, match=rf"^{asked} = 0a1b: .*0a1b.* not found") as caught:
        go_on("0a1b")
    assert "\n" not in str(caught.value)


def test_other_values_in_a_run_that_is_continued_are_said_in_a_line(project):
    client = MlflowClient(project.uri)
    run = client.create_run(client.create_experiment("mine")).info.run_id
    client.log_param(run, "seed", 1)
    with pytest.raises(MlflowException) as refused:
        client.log_param(run, "seed", 2)
    with pytest.raises(click.ClickException, match=r"^MLflow: Changing param .*'seed'") as caught:
        ParameterHooks().on_pipeline_error(refused.value)
    assert "\n" in str(refused.value)
    assert "\n" not in caught.value.message


def test_what_kedro_mlflow_sets_is_not_taken_for_the_users(project, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "study")
    project()
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.setenv(name, "4711")
    keep_variables()
    assert "MLFLOW_TRACKING_URI" not in os.environ
    assert "MLFLOW_EXPERIMENT_ID" not in os.environ
    assert os.environ["MLFLOW_EXPERIMENT_NAME"] == "study"


def test_an_experiment_that_another_command_makes_this_instant_is_used(project, monkeypatch):
    asked = MlflowClient.get_experiment_by_name
    answers = iter([None])  # to the one who looks before the other has made it
    monkeypatch.setattr(
        MlflowClient,
        "get_experiment_by_name",
        lambda client, name: next(answers, None) or asked(client, name),
    )
    MlflowClient(project.uri).create_experiment("condvae")
    assert project()[1] == "condvae"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        (f"http://127.0.0.1:{PORT_OF_NOBODY}", "refused"),
        ("mlruns", "MLFLOW_ALLOW_FILE_STORE"),  # MLflow's own condition
        ("nosuch://server", "nosuch"),
    ],
)
def test_an_address_that_cannot_be_used_is_named_in_a_line(project, monkeypatch, uri, message):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ConfigurationError, match=rf"^MLflow's address .*{message}") as caught:
        project()
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def server(tmp_path_factory, make_mlflow_database):
    """`mlflow server` with artifacts of its own: its address and their folder."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    options = {
        "--backend-store-uri": make_mlflow_database(folder),
        "--artifacts-destination": str(folder / "store"),
        "--host": "127.0.0.1",
        "--port": str(port),
        "--workers": "1",
    }
    clean = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *sum(options.items(), ())],
            cwd=folder,
            env={**clean, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=log,
            stderr=log,
        )
    try:
        until = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except OSError:
                dead = process.poll() is not None or time.monotonic() > until
                assert not dead, (folder / "log").read_text()
                time.sleep(0.1)
        yield address, folder / "store"
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.slow
def test_runs_of_a_server_have_their_artifacts_there(
    server, project, monkeypatch, tmp_path, make_posterior
):
    address, store = server
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    assert project() == (address, "condvae", {"id": None}, None)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(address)
    report, posterior = tmp_path / "report", tmp_path / "posterior"
    report.mkdir()
    columns = {"case_id": "a", "image_id": 0, "image_sha256": "0", "bin": "0_20"}
    scores = {"observed_share": 0.1, "sampler": "ipa", "metric": "m", "value": 1.5, "weight": 1.0}
    pd.DataFrame([columns | scores]).to_parquet(report / "cases.parquet")
    (report / "calibration.json").write_text("{}")
    (report / "manifest.jsonl").write_text("case\n")
    (report / "metrics.json").write_text('[{"metric": "m", "value": 1.5}]')
    (report / "run_facts.json").write_text(json.dumps({"task": "inpainting"}))
    for name in ("report.html", "cards.json", "metrics.csv", "comparisons.json"):
        (report / name).write_text(name)
    save_posterior(posterior, make_posterior(width=8), {"name": "x"})
    try:
        client = MlflowClient()
        experiment = client.get_experiment_by_name("condvae")
        assert experiment.artifact_location.startswith("mlflow-artifacts:/")
        with mlflow.start_run(experiment_id=experiment.experiment_id, run_name="served") as run:
            run_id = run.info.run_id
            monkeypatch.setattr(tracking, "_run_id", run_id)
            pages = {"report": "report.html", "cards": "cards.json", "figures": []}
            tracking.log_output("report_files", {"folder": str(report), **pages})
            registered = register(
                posterior,
                task="inpainting",
                data="served",
                cases=report / "cases.parquet",
                calibration=report / "calibration.json",
                manifest=report / "manifest.jsonl",
                run_id=run_id,
            )
        # Scores and report from there; a model from there, once.
        (found,) = find_runs(client, ["last"])
        assert read_run(client, found).cases["value"].tolist() == [1.5]
        page = f"{address}/get-artifact?run_uuid={run_id}&path=report/report.html"
        with urllib.request.urlopen(page, timeout=30) as answer:
            assert answer.read() == b"report.html"
        again = open_registered(registered.name)
        assert again == registered
        assert pd.read_parquet(again.cases)["value"].tolist() == [1.5]
        assert {path.name for path in store.rglob("report.html")} == {"report.html"}
        assert list(store.rglob("model.safetensors"))
        assert os.listdir(project.folder / "mlruns") == ["mlflow.db"]
    finally:
        mlflow.set_tracking_uri(before)
