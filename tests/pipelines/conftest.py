"""An empty MLflow database, made once: its tables take seconds."""

from __future__ import annotations

import shutil

import pytest

from pipelines.runs.database import prepare_database


@pytest.fixture(scope="session")
def make_mlflow_database(tmp_path_factory):
    """A function that puts an empty database into a folder and returns its address."""
    empty = tmp_path_factory.mktemp("database") / "mlflow.db"
    prepare_database(f"sqlite:///{empty}")

    def make(folder) -> str:
        shutil.copy(empty, folder / "mlflow.db")
        return f"sqlite:///{folder}/mlflow.db"

    return make


@pytest.fixture
def untracked(monkeypatch):
    """Let hooks that are called by hand leave MLflow alone."""
    monkeypatch.setattr("pipelines.app.hooks.settle_tracking", lambda settings, *_: settings)
