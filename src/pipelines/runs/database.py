"""MLflow's database: whole or absent, writable before work starts, and without runs that are dead.

It holds absolute addresses, of each experiment, run and model. Where the project has been moved or
copied they are brought up to date before anything is read or written.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import platform
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import psutil

from condvae.ground.configuration import ConfigurationError
from condvae.ground.files import open_atomic

__all__ = ["SQLITE", "close_dead_runs", "path_of_database", "prepare_database", "variable"]

SQLITE = "sqlite:///"
ARTIFACTS = "artifacts"
"""Folder beside the database for the artifacts of its experiments."""

log = logging.getLogger(__name__)

# Where MLflow keeps addresses.
_ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("datasets", "dataset_source"),
)


@contextlib.contextmanager
def variable(name: str, value: str) -> Iterator[None]:
    """Set an environment variable while the block lasts."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def path_of_database(uri: str) -> Path | None:
    """The file of an address ``sqlite:///PATH``; None for any other address."""
    if not uri.startswith(SQLITE):
        return None
    return Path(uri.removeprefix(SQLITE).partition("?")[0])


def prepare_database(uri: str | None) -> None:
    """Make MLflow's SQLite file unless it is there, and see whether it can be written.

    Where it has come from another place, its addresses are made those of the new one.

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
    path = path_of_database(uri or "")
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            content = _new_database(path.parent / ARTIFACTS)
            with open_atomic(path, keep=True) as file:
                file.write(content)
        with contextlib.closing(sqlite3.connect(path, timeout=60)) as database:
            database.execute("BEGIN IMMEDIATE")
            _follow_project(database, path.resolve().parent)
            database.commit()
            _forget_places()
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


def _follow_project(database: sqlite3.Connection, folder: Path) -> None:
    """Rewrite addresses inside the project as it was, before it was moved or copied, to where it is.

    Args:
        database: In a transaction.
        folder: Of the database; its artifacts lie beside it, and the project is the folder above.
    """
    project, own = folder.parent, f"/{folder.name}/{ARTIFACTS}"
    columns = [
        (table, column)
        for table, column in _ADDRESSES
        if column in {row[1] for row in database.execute(f"PRAGMA table_info({table})")}
    ]
    if _ADDRESSES[0] not in columns:  # no database of MLflow's
        return
    formers = set()
    for (address,) in database.execute("SELECT DISTINCT artifact_location FROM experiments"):
        parsed = urlsplit(address or "")
        place = url2pathname(parsed.path) if parsed.scheme == "file" else address or ""
        # That of the experiment that MLflow makes by itself ends with its id.
        place = Path(place).as_posix().removesuffix("/0")
        if place.endswith(own) and Path(place).is_absolute() and place != own:
            formers.add(Path(place.removesuffix(own)))
    for former in formers - {project}:
        forms = [
            (str(former), str(project)),
            (former.as_uri(), project.as_uri()),
            (_begin_source(former), _begin_source(project)),
        ]
        changed = 0
        for (table, column), (old, new) in itertools.product(columns, forms):
            # Moved into a folder of its own, what already says so begins with the old address too.
            done = f"{new}/" if new.startswith(f"{old}/") else "\n"
            changed += database.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                f"WHERE substr({column}, 1, ?) = ? AND substr({column}, 1, ?) != ?",
                (new, len(old) + 1, len(old) + 1, f"{old}/", len(done), done),
            ).rowcount
        log.warning(
            "the project was at %s before: %d addresses of MLflow's runs, models and data now say %s",
            *(former, changed, project),
        )


def _forget_places() -> None:
    """MLflow remembers where artifacts of runs are, by their ids, which a copied project has too."""
    from mlflow.tracking._tracking_service import utils

    getattr(utils, "_artifact_repos_cache", {}).clear()


def _begin_source(folder: Path) -> str:
    """How the source of a data set in a folder begins."""
    return json.dumps({"uri": str(folder)}).removesuffix('"}')


def _new_database(artifacts: Path) -> bytes:
    """The file that MLflow makes: all tables, no runs."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "mlflow.db"
        SqlAlchemyStore(f"{SQLITE}{path.as_posix()}", artifacts.as_posix()).engine.dispose()
        return path.read_bytes()
