"""MLflow's database: whole or absent, writable before work starts, and without runs that are dead."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import psutil

from condvae.configuration import ConfigurationError
from condvae.files import open_atomic

__all__ = ["close_dead_runs", "prepare_database"]

SQLITE = "sqlite:///"


def prepare_database(uri: str | None) -> None:
    """Make MLflow's SQLite file unless it is there, and see whether it can be written.

    MLflow adds table after table to the file itself; once killed in between it can neither use the
    file nor complete it.

    Args:
        uri: MLflow's tracking address; other addresses than ``sqlite:///PATH`` are left alone, and so
            is None, with which MLflow takes its own.

    Raises:
        ConfigurationError: The file cannot be made or written, or is no database.
    """
    # Said with the run's first transaction: who looks for killed runs must know whose each one is.
    os.environ["MLFLOW_RUN_CONTEXT"] = json.dumps(
        {**_given_context(), "host": platform.node(), "pid": str(os.getpid())}
    )
    # A bar a file, while nodes show bars of their own.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    if uri is None or not uri.startswith(SQLITE):
        return
    path = Path(uri.removeprefix(SQLITE))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            content = _new_database()
            with open_atomic(path) as file:
                file.write(content)
        with contextlib.closing(sqlite3.connect(path, timeout=60)) as database:
            database.execute("BEGIN IMMEDIATE")
            database.execute("PRAGMA user_version = 1")  # never committed
    except (OSError, sqlite3.Error) as error:
        raise ConfigurationError(
            f"MLflow's database {path} cannot be written ({error}): free the path, or give another "
            "one as server.mlflow_tracking_uri in conf/local/mlflow.yml"
        ) from error


def close_dead_runs(experiment_id: str) -> None:
    """Mark runs of this machine whose process is gone as killed: SIGKILL leaves them running."""
    from mlflow import MlflowClient

    client = MlflowClient()
    where = f"attributes.status = 'RUNNING' and tags.host = '{platform.node()}'"
    for run in client.search_runs([experiment_id], where):
        pid = int(run.data.tags.get("pid", 0))
        if pid and pid != os.getpid() and not _is_alive(pid, run.info.start_time / 1000):
            client.set_terminated(run.info.run_id, "KILLED")


def _is_alive(pid: int, since: float) -> bool:
    """Whether the process is there that was at `since`, seconds of the epoch; numbers come again."""
    try:
        return psutil.Process(pid).create_time() < since + 60  # clocks are put right now and then
    except psutil.Error:
        return False


def _given_context() -> dict[str, Any]:
    """Tags that the caller's environment asks for; MLflow takes no others than a JSON object's."""
    try:
        context = json.loads(os.environ.get("MLFLOW_RUN_CONTEXT", "{}"))
    except ValueError:
        return {}
    return context if isinstance(context, dict) else {}


def _new_database() -> bytes:
    """The file that MLflow makes: all tables, no runs."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "mlflow.db"
        SqlAlchemyStore(f"{SQLITE}{path.as_posix()}", "mlruns/artifacts").engine.dispose()
        return path.read_bytes()
