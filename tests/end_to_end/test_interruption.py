"""Training that is killed with SIGKILL ends as if nobody had touched it."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kill_runs.py"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
KILLS = 12

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="SIGKILL is a POSIX signal"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kill-runs")


@pytest.fixture(scope="module")
def report(folder):
    command = [sys.executable, SCRIPT, "--kills", str(KILLS), "--seed", "1", "--folder", folder]
    result = subprocess.run(command, check=False, env=ENVIRONMENT, capture_output=True, text=True)
    return {
        **(json.loads(result.stdout or "{}")),
        "status": result.returncode,
        "log": result.stderr,
    }


def test_a_dozen_kills_change_neither_weights_nor_history(report):
    assert report["status"] == 0, report["log"]
    assert report["kills"] == KILLS
    assert report["identical"]
    assert "random instant" in report["kills_by_cause"]
    assert len(report["kills_by_cause"]) >= 3  # moments of a checkpoint's writing too


def test_no_kill_leaves_an_unreadable_checkpoint(report):
    # Checkpoints are whole or absent; falling back to an older one is for damage from outside.
    assert "cannot be used" not in report["log"]


def test_killed_and_undisturbed_runs_leave_the_same_files(report, folder):
    expected = {path.name for path in (folder / "undisturbed").iterdir()}
    assert {"metrics.jsonl", "weights.safetensors"} < expected
    for run in range(report["runs"]):
        found = {path.name for path in (folder / f"run-{run}").iterdir()}
        # A kill between the last rename and the last removal leaves one checkpoint more.
        assert found - expected <= {"checkpoint-000000030.pt"}
        assert expected <= found


def test_a_new_interpreter_continues_what_another_began(report, folder):
    # The workers above are forks of one interpreter; these three share nothing but the folder.
    run = folder / "interpreters"
    command = [sys.executable, SCRIPT, "--train", run]
    rng = random.Random(0)
    for checkpoint in ("checkpoint-000000005.pt", "checkpoint-000000015.pt"):
        process = subprocess.Popen(command, env=ENVIRONMENT)
        wait_for(run / checkpoint, process)
        time.sleep(rng.uniform(0.0, 0.1))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert not (run / "weights.safetensors").exists()
    subprocess.run(command, env=ENVIRONMENT, check=True)
    for name in ("weights.safetensors", "metrics.jsonl"):
        assert (run / name).read_bytes() == (folder / "undisturbed" / name).read_bytes()


def wait_for(path, process):
    while not path.exists():
        assert process.poll() is None, "training ended before the checkpoint was seen"
        time.sleep(0.002)
