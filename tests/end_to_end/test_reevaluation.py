"""`kedro run --pipeline=reevaluate` on a fresh clone, and its exit code."""

from __future__ import annotations

import subprocess

import pytest

# The suite's project may have registered a champion of its own; a fresh clone has none.
SMALL = "reevaluate: {permutations: 99}"


@pytest.mark.slow
def test_a_fresh_clone_has_a_champion_and_an_alarm_has_an_exit_code(fresh_project):
    first_place = fresh_project.folder
    (first_place / "conf/local/parameters.yml").write_text(SMALL)  # under --env=test too
    fresh_project.kedro("run", "--env=test", "--pipeline=reevaluate")
    client, runs = fresh_project.runs()
    assert runs[0].data.params["reevaluate.permutations"] == "99"
    assert (runs[0].info.status, runs[0].data.tags["verdict"]) == ("FINISHED", "ok")
    assert runs[0].data.tags["registered_model"] == "condvae-inpainting-digits"
    assert "reevaluate/crps_per_unobserved_dim" in runs[0].data.metrics
    files = {file.path for file in client.list_artifacts(runs[0].info.run_id, "reevaluate")}
    assert {"reevaluate/index.html", "reevaluate/verdict.json"} <= files
    # Champion, its first evaluation and the earlier run's artifacts come along when a project moves.
    first = runs[0].info.run_id
    fresh_project.move(first_place.with_name("another place"))
    done = subprocess.run(
        fresh_project.command(
            *("run", "--env=test", "--pipeline=reevaluate"),
            "--params=sampling.temperature=0.1",
        ),
        cwd=fresh_project.folder,
        env=fresh_project.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, (done.stdout + done.stderr)[-4000:]
    assert "re-evaluation: degraded" in done.stderr
    assert "Traceback" not in done.stderr
    client, runs = fresh_project.runs()
    assert (runs[0].info.status, runs[0].data.tags["verdict"]) == ("FINISHED", "degraded")
    assert not first_place.exists()
    assert runs[0].data.tags["registered_version"] == "1"
    for run_id in (first, runs[0].info.run_id):
        kept = {file.path for file in client.list_artifacts(run_id, "reevaluate")}
        assert "reevaluate/index.html" in kept
    assert "calibration" in runs[0].data.tags["verdict_about"]
