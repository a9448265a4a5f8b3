"""Ticks the schedule and runs its job in the project around it; prints what Dagster says as JSON.

In a process of its own, because a project's settings know one folder: that of their file.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from pipelines.app.definitions import ROOT, defs

dg.Definitions.validate_loadable(defs)
instance = dg.DagsterInstance.ephemeral()
repository = defs.get_repository_def()
schedule = repository.get_schedule_def("reevaluate_weekly")
monday = datetime(2026, 3, 2, 3, tzinfo=UTC)
tick = schedule.evaluate_tick(
    dg.build_schedule_context(
        instance=instance, scheduled_execution_time=monday, repository_def=repository
    )
)


def run(tags: dict[str, str]) -> dict[str, object]:
    """Run the job; say how it ended."""
    job = repository.get_job("reevaluate")
    done = job.execute_in_process(instance=instance, tags=tags, raise_on_error=False)
    failed = [event.step_failure_data for event in done.all_events if event.is_step_failure]
    return {
        "run": done.run_id,
        "success": done.success,
        "retries": sum(event.is_step_up_for_retry for event in done.all_events),
        "errors": [step.user_failure_data.description for step in failed],
    }


outcome = {
    "status": schedule.default_status.value,
    "cron": schedule.cron_schedule,
    "tick": [dict(request.tags) for request in tick.run_requests or []],
}
outcome["scheduled"] = run(dict(tick.run_requests[0].tags))
served = ROOT / "conf" / "test" / "parameters_served.yml"
served.write_text("sampling: {temperature: 0.1}\n")
outcome["alarm"] = run({})
served.unlink()
# Where results go there is a file: the first step that keeps something fails.
results = Path(ROOT, "data", "test", "08_reporting", "reevaluate", "results")
results.rename(results.with_name("kept"))
results.write_text("")
outcome["broken"] = run({})
print("OUTCOME", json.dumps(outcome))  # noqa: T201
