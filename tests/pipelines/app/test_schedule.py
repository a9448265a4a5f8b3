"""The schedules that `docs/schedule.md` shows: cron's line, and Dagster's job."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from kedro.framework.cli.project import run as kedro_run
from mlflow import MlflowClient

from pipelines.pipeline_registry import register_pipelines

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "schedule.md").read_text()
PLACE = "PATH/condvae"


def fenced(language: str) -> str:
    return re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)[1]


def read_cron_line() -> tuple[str, str]:
    """When, and what."""
    line = fenced("cron").strip()
    assert "\n" not in line
    assert "%" not in line  # cron takes it for the end of the line
    *when, command = line.split(maxsplit=5)
    return " ".join(when), command


def parse_kedro(command: str) -> dict[str, object]:
    """What `kedro run` makes of the arguments after those words."""
    words = shlex.split(command)
    place = next(i for i, word in enumerate(words) if word.endswith("bin/kedro"))
    assert words[place + 1] == "run"
    arguments = words[place + 2 :]
    end = arguments.index(">>") if ">>" in arguments else len(arguments)
    return kedro_run.make_context("run", arguments[:end]).params


def test_the_documented_commands_name_a_pipeline_and_parameters_that_exist():
    service = fenced("ini")
    for command in (read_cron_line()[1], re.search(r"ExecStart=(.*)", service)[1]):
        assert parse_kedro(command)["pipeline"] == "reevaluate"
    assert "reevaluate" in register_pipelines()
    given = re.findall(r"--params=([\w.]+)=", PAGE)
    assert given == ["reevaluate.new_data"]
    known = yaml.safe_load((ROOT / "conf/base/parameters/reevaluate.yml").read_text())
    for name in (*given, *re.findall(r"`(reevaluate\.\w+)`", PAGE)):
        section, key = name.split(".")
        assert key in known[section]


def test_cron_systemd_and_dagster_say_the_same_time():
    config = yaml.safe_load((ROOT / "conf/base/dagster.yml").read_text())
    job = config["jobs"]["reevaluate"]
    assert job["pipeline"] == {"pipeline_name": "reevaluate"}
    assert job["executor"] in config["executors"]
    assert config["schedules"][job["schedule"]]["cron_schedule"] == read_cron_line()[0]
    minute, hour, *days = read_cron_line()[0].split()
    assert days == ["*", "*", "1"]
    assert f"OnCalendar=Mon {int(hour):02}:{int(minute):02}\n" in fenced("ini")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the checkout with nothing in it, in the environment `test`."""
    folder = tmp_path_factory.mktemp("scheduled") / "condvae"
    folder.mkdir()
    for name in ("pyproject.toml", ".telemetry"):
        shutil.copy(ROOT / name, folder / name)
    for name in ("conf", "src"):
        left_out = shutil.ignore_patterns("__pycache__", "local", "*.egg-info")
        shutil.copytree(ROOT / name, folder / name, ignore=left_out)
    for name in ("conf/local", "mlruns", ".venv/bin"):
        (folder / name).mkdir(parents=True)
    (folder / "conf/test/parameters_small.yml").write_text("reevaluate: {permutations: 99}\n")
    kedro = folder / ".venv/bin/kedro"
    kedro.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m kedro "$@"\n')
    kedro.chmod(0o755)
    return folder


def surroundings(project: Path) -> dict[str, str]:
    """Little more than cron gives."""
    names = ("PATH", "HOME", "OMP_NUM_THREADS", "SYSTEMROOT")
    return {
        **{name: os.environ[name] for name in names if name in os.environ},
        "PYTHONPATH": str(project / "src"),
        **dict.fromkeys(("KEDRO_DISABLE_TELEMETRY", "DAGSTER_DISABLE_TELEMETRY"), "1"),
        "KEDRO_ENV": "test",
    }


def runs_of(project: Path, words: str = ""):
    """MLflow runs, oldest first."""
    client = MlflowClient(f"sqlite:///{project}/mlruns/mlflow.db")
    experiment = client.get_experiment_by_name("condvae").experiment_id
    return client.search_runs([experiment], words, order_by=["attributes.start_time ASC"])


@pytest.fixture(scope="module")
def outcome(project):
    """What Dagster says of a tick and of three jobs, see `run_schedule.py`."""
    pytest.importorskip(
        "kedro_dagster", reason="needs the extra `schedule`, which no other test needs"
    )
    config = yaml.safe_load((ROOT / "conf/base/dagster.yml").read_text())
    for schedule in config["schedules"].values():
        schedule["metadata"] = {"retries": 1, "retry_delay_seconds": 0}
    (project / "conf/test/dagster.yml").write_text(yaml.safe_dump(config))
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("run_schedule.py")],
        cwd=project.parent,
        env=surroundings(project),
        capture_output=True,
        text=True,
        check=False,
    )
    told = re.findall(r"^OUTCOME (.*)$", done.stdout, re.MULTILINE)
    assert told, (done.stdout + done.stderr)[-4000:]
    return json.loads(told[0])


@pytest.mark.slow
def test_the_schedule_is_on_and_its_tick_asks_for_the_job(outcome):
    assert outcome["status"] == "RUNNING"
    assert outcome["cron"] == read_cron_line()[0]
    assert outcome["tick"] == [{"dagster/schedule_name": "reevaluate_weekly"}]


@pytest.mark.slow
def test_the_scheduled_job_is_a_tracked_run(outcome, project):
    assert outcome["scheduled"]["success"]
    (run,) = runs_of(project, f"tags.dagster_run = '{outcome['scheduled']['run']}'")
    tags = run.data.tags
    assert run.info.status == "FINISHED"
    assert (tags["verdict"], tags["trigger"]) == ("ok", "schedule")
    assert tags["command"] == "kedro run --pipeline=reevaluate"


@pytest.mark.slow
def test_an_alarm_fails_the_job_and_is_not_tried_again(outcome, project):
    alarm = outcome["alarm"]
    assert (alarm["success"], alarm["retries"]) == (False, 0)
    assert "re-evaluation: degraded" in alarm["errors"][0]
    (run,) = runs_of(project, f"tags.dagster_run = '{alarm['run']}'")
    tags = run.data.tags
    assert (run.info.status, tags["verdict"]) == ("FINISHED", "degraded")
    assert tags["trigger"] == "manual"


@pytest.mark.slow
def test_a_job_that_fails_is_tried_again_and_its_mlflow_runs_say_failed(outcome, project):
    broken = outcome["broken"]
    assert (broken["success"], broken["retries"]) == (False, 1)
    assert "results" in broken["errors"][0]
    runs = runs_of(project, f"tags.dagster_run = '{broken['run']}'")
    assert [run.info.status for run in runs] == ["FAILED", "FAILED"]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="cron's shell")
def test_the_line_of_cron_does_its_work_in_an_empty_environment(project):
    command = read_cron_line()[1].replace(PLACE, shlex.quote(str(project)))
    blocked = project / "data/test/08_reporting/reevaluate/results"
    if blocked.is_file():  # what the job of Dagster failed on
        blocked.unlink()
        blocked.with_name("kept").rename(blocked)

    def run_line(text: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", "-c", text],
            cwd="/",
            env=surroundings(project),
            capture_output=True,
            text=True,
            check=False,
        )

    done = run_line(command)
    log = project / "mlruns" / "reevaluate.log"
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), log.read_text()[-4000:]
    tags = runs_of(project)[-1].data.tags
    assert (tags["verdict"], tags["trigger"]) == ("ok", "schedule")
    assert "re-evaluation: ok" in log.read_text()
    alarmed = run_line(command.replace(" >>", " --params=sampling.temperature=0.1 >>"))
    assert (alarmed.returncode, alarmed.stderr) == (3, "")
    assert "re-evaluation: degraded" in alarmed.stdout
    assert alarmed.stdout.count("\n") == 3
