from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import time
from types import SimpleNamespace

import mlflow
import pytest
from mlflow.data.meta_dataset import MetaDataset
from mlflow.data.sources import LocalArtifactDatasetSource
from mlflow.entities import Dataset, DatasetInput

from condvae.ground.configuration import ConfigurationError
from pipelines.runs import database as run_database
from pipelines.runs.database import prepare_database


def address(path):
    return f"sqlite:///{path}"


def add_run(path):
    """Use the database as kedro-mlflow does; return the tags of the run."""
    client = mlflow.MlflowClient(address(path))
    experiment = client.create_experiment("condvae")
    mlflow.set_tracking_uri(address(path))
    try:
        with mlflow.start_run(experiment_id=experiment) as run:
            return client.get_run(run.info.run_id).data.tags
    finally:
        mlflow.set_tracking_uri(None)


@pytest.fixture(autouse=True)
def context(monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT", "{}")  # put back afterwards


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A new database, and the seconds it took to make."""
    import alembic.command  # noqa: F401
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

    path = tmp_path_factory.mktemp("project") / "mlruns" / "mlflow.db"
    started = time.perf_counter()
    prepare_database(address(path))
    return path, time.perf_counter() - started


def test_new_database_serves_and_its_runs_know_their_process(made, context):
    path, _ = made
    assert os.listdir(path.parent) == ["mlflow.db"]
    prepare_database(address(path))
    tags = add_run(path)
    assert tags["pid"] == str(os.getpid())
    assert tags["host"]


def test_database_that_is_there_is_left_as_it_is(tmp_path):
    path = tmp_path / "mlflow.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE runs (name TEXT)")
    before = path.read_bytes()
    prepare_database(address(path))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["mlflow.db"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [('{"team": "a", "pid": "0"}', {"team": "a"}), ("[1]", {}), ("no json", {}), ("", {})],
)
def test_context_that_is_there_is_added_to(monkeypatch, given, kept):
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT", given)
    prepare_database(None)
    context = json.loads(os.environ["MLFLOW_RUN_CONTEXT"])
    assert context.pop("host")
    assert context == {**kept, "pid": str(os.getpid())}


@pytest.mark.parametrize("uri", ["http://localhost:5000", "mlruns", "postgresql://host/db", None])
def test_other_addresses_are_left_alone(tmp_path, monkeypatch, uri):
    monkeypatch.chdir(tmp_path)
    prepare_database(uri)
    assert os.listdir(tmp_path) == []
    assert json.loads(os.environ["MLFLOW_RUN_CONTEXT"])["pid"] == str(os.getpid())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="SIGKILL is a POSIX signal")
def test_kill_while_it_is_made_leaves_none_or_a_whole_one(tmp_path, made):
    # MLflow alone leaves a file here with which every later run ends in an error.
    path = tmp_path / "mlruns" / "mlflow.db"
    child = os.fork()
    if child == 0:
        prepare_database(address(path))
        os._exit(0)
    time.sleep(0.6 * made[1])
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    prepare_database(address(path))
    assert add_run(path)
    assert os.listdir(path.parent) == ["mlflow.db"]


def test_path_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "mlruns").write_text("a file")
    path = tmp_path / "mlruns" / "mlflow.db"
    with pytest.raises(ConfigurationError, match=r"mlruns/mlflow\.db cannot be written") as caught:
        prepare_database(address(path))
    assert "\n" not in str(caught.value)
    assert "conf/local/mlflow.yml" in str(caught.value)
    assert (tmp_path / "mlruns").read_text() == "a file"


@pytest.mark.parametrize("content", [b"not a database at all" * 10, None], ids=["text", "folder"])
def test_what_is_no_database_is_named_and_left_alone(tmp_path, content):
    path = tmp_path / "mlflow.db"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"mlflow\.db cannot be written \("):
        prepare_database(address(path))
    assert path.is_dir() if content is None else path.read_bytes() == content


def test_database_that_may_only_be_read_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "mlflow.db"
    sqlite3.connect(path).execute("CREATE TABLE runs (name TEXT)")
    connect = sqlite3.connect
    # The superuser, who may run the tests, writes to any file; this connection does not.
    monkeypatch.setattr(
        sqlite3, "connect", lambda p, timeout: connect(f"file:{p}?mode=ro", uri=True)
    )
    with pytest.raises(ConfigurationError, match="readonly database"):
        prepare_database(address(path))


def test_a_database_that_another_command_makes_meanwhile_is_used(tmp_path, monkeypatch, made):
    path = tmp_path / "mlruns" / "mlflow.db"

    def make(*_):
        """The other command is done first, and has a run already."""
        shutil.copy(made[0], path)
        with sqlite3.connect(path) as database:
            database.execute("INSERT INTO experiments (name) VALUES ('of the other')")
        return made[0].read_bytes()

    monkeypatch.setattr(run_database, "_new_database", make)
    prepare_database(address(path))
    with sqlite3.connect(path) as database:
        names = [name for (name,) in database.execute("SELECT name FROM experiments")]
    assert "of the other" in names
    assert os.listdir(path.parent) == ["mlflow.db"]


@pytest.fixture
def project(tmp_path, make_mlflow_database):
    """A project with a run that has an artifact, data and experiments in other places."""
    folder = tmp_path / "old"
    (folder / "mlruns").mkdir(parents=True)
    client = mlflow.MlflowClient(make_mlflow_database(folder / "mlruns"))
    # As in a database that was made here.
    with sqlite3.connect(folder / "mlruns/mlflow.db") as database:
        default = str(folder / "mlruns/artifacts/0")
        database.execute("UPDATE experiments SET artifact_location = ?", (default,))
    places = {
        "condvae": (folder / "mlruns/artifacts").as_uri(),
        "elsewhere": (tmp_path / "store").as_uri(),
        "beside": str(tmp_path / "older/mlruns/other"),
        "bucket": "s3://bucket/mlruns/artifacts",
    }
    experiments = {name: client.create_experiment(name, place) for name, place in places.items()}
    run = client.create_run(experiments["condvae"]).info.run_id
    client.log_text(run, "old", "report/page.html")
    source = LocalArtifactDatasetSource(str(folder / "data/images"))
    data = MetaDataset(source, name="digits", digest="1").to_dict()
    client.log_inputs(run, [DatasetInput(Dataset(**{**data, "profile": "{}"}), [])])
    return SimpleNamespace(folder=folder, run=run, places=places)


def read_addresses(folder):
    client = mlflow.MlflowClient(address(folder / "mlruns/mlflow.db"))
    return client, {e.name: e.artifact_location for e in client.search_experiments()}


@pytest.mark.parametrize("new", ["größer, with a blank", "old/within", "old/.."])
@pytest.mark.parametrize("stays", [True, False], ids=["copied", "moved"])
def test_addresses_follow_the_project(project, tmp_path, new, stays, caplog):
    folder = (tmp_path / new).resolve()
    kept = shutil.copytree(project.folder, tmp_path / "kept")
    if not stays:
        shutil.rmtree(project.folder)
    shutil.copytree(kept, folder, dirs_exist_ok=True)
    path = folder / "mlruns" / "mlflow.db"
    prepare_database(address(path))
    assert f"the project was at {project.folder} before" in caplog.text
    caplog.clear()
    prepare_database(address(path))
    assert caplog.text == ""  # once is enough
    client, found = read_addresses(folder)
    assert found.pop("Default") == str(folder / "mlruns/artifacts/0")
    assert found == project.places | {"condvae": (folder / "mlruns/artifacts").as_uri()}
    assert [file.path for file in client.list_artifacts(project.run, "report")] == [
        "report/page.html"
    ]
    client.log_text(project.run, "new", "report/more.html")
    assert [p.read_text() for p in (folder / "mlruns").rglob("more.html")] == ["new"]
    (used,) = client.get_run(project.run).inputs.dataset_inputs
    assert json.loads(used.dataset.source) == {"uri": str(folder / "data/images")}
    assert project.folder.joinpath("mlruns").exists() == stays
    if stays:
        assert read_addresses(project.folder)[1]["condvae"] == project.places["condvae"]
        assert not list(project.folder.joinpath("mlruns").rglob("more.html"))
