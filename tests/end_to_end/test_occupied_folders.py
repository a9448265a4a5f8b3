"""Where `kedro run` cannot write, it says so in one line and leaves everything as it was."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow


def said_in_one_line(printed):
    """The line that begins with `Error: `; there must be no traceback before it."""
    assert "Traceback" not in printed
    (line,) = (line for line in printed.splitlines() if line.startswith("Error: "))
    return line


# A file in the folder's place: permissions would not stop the superuser, who may run the tests.


def test_no_place_for_mlflow(fresh_project):
    (fresh_project.folder / "mlruns").write_text("a file")
    line = said_in_one_line(fresh_project.kedro("run", "--env=test", fails=True))
    assert (
        f"MLflow's database {fresh_project.folder / 'mlruns' / 'mlflow.db'} cannot be written"
        in line
    )
    assert (fresh_project.folder / "mlruns").read_text() == "a file"
    assert not (fresh_project.folder / "data").exists()


def test_no_place_for_results(fresh_project):
    (fresh_project.folder / "data").write_text("a file")
    line = said_in_one_line(fresh_project.kedro("run", "--env=test", fails=True))
    assert "data/test/02_intermediate" in line
    assert (fresh_project.folder / "data").read_text() == "a file"
    _, (run,) = fresh_project.runs()
    assert run.info.status == "FAILED"
