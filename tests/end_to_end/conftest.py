"""A throw-away project whose code comes from the wheel, and `kedro` in it as a user runs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


class Server:
    """Starts commands of Kedro in forks of one process; see ``kedro_server.py``."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def run(self, folder: Path, environment: dict[str, str], arguments: list[str]) -> int:
        """Run a command, what it prints going to ``printed.txt``; return its exit status."""
        if self._process is None:
            script = Path(__file__).with_name("kedro_server.py")
            self._process = subprocess.Popen(
                [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        request = {"arguments": arguments, "folder": str(folder), "environment": environment}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def stop(self) -> None:
        if self._process is not None:
            self._process.communicate()


class Project:
    """The configuration of the checkout and the code of the wheel, with empty data and no runs."""

    def __init__(self, folder: Path, wheel: Path, server: Server) -> None:
        self.folder, self.server = folder, server
        for name in ("pyproject.toml", ".telemetry"):
            shutil.copy(ROOT / name, folder / name)
        shutil.copytree(ROOT / "conf", folder / "conf", ignore=shutil.ignore_patterns("local"))
        (folder / "conf" / "local").mkdir()
        # A file that the wheel lacks is missing here too.
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder / "src")
        # MLflow tells other processes of the database that a test has opened in this one.
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
        self.environment = {
            **inherited,
            "PYTHONPATH": str(folder / "src"),
            "KEDRO_DISABLE_TELEMETRY": "1",
            "DO_NOT_TRACK": "1",
        }

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "kedro", *arguments]

    def kedro(self, *arguments: str, fails: bool = False) -> str:
        """Run kedro; return what it printed."""
        status = self.server.run(self.folder, self.environment, list(arguments))
        printed = (self.folder / "printed.txt").read_text()
        assert (status != 0) == fails, printed[-4000:]
        return printed

    def move(self, folder: Path) -> None:
        """Move the whole project."""
        self.folder.rename(folder)
        self.folder = folder
        self.environment["PYTHONPATH"] = str(folder / "src")

    def runs(self, experiment: str = "condvae"):
        """MLflow runs, newest first."""
        import mlflow

        client = mlflow.MlflowClient(f"sqlite:///{self.folder}/mlruns/mlflow.db")
        found = client.get_experiment_by_name(experiment)
        return client, client.search_runs([found.experiment_id])


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The package as `pip install` of this checkout would build it, without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", folder / "src", ignore=ignored)
    code = "from setuptools.build_meta import build_wheel; build_wheel('built')"
    subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, check=True)
    (built,) = (folder / "built").glob("*.whl")
    return built


@pytest.fixture(scope="session")
def server():
    """One for all tests of this process."""
    server = Server()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def project(tmp_path_factory, wheel, server):
    """One project for all tests that only add to it."""
    return Project(tmp_path_factory.mktemp("project"), wheel, server)


@pytest.fixture
def fresh_project(tmp_path, wheel, server):
    """A project for one test alone."""
    folder = tmp_path / "project"
    folder.mkdir()
    return Project(folder, wheel, server)
