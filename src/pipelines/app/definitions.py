"""Dagster's view of the project: the jobs of `conf/base/dagster.yml`, their schedules, their retries.

A job is one `kedro run` in a process of its own. kedro-dagster, which reads that file, would turn every
node into a step instead: around its assets no hooks are called (no lock, no MLflow run, no alarm), what
nodes return is saved past the validators of the catalog, the project's session class is not asked, and
the MLflow run of a job that has failed ends as finished.
"""

# Not `from __future__ import annotations`: Dagster takes the class in the annotation of `context`.
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
from kedro_dagster import ExecutorCreator
from kedro_dagster.config import JobOptions, KedroDagsterConfig, ScheduleOptions

from condvae.ground.configuration import ConfigurationError
from pipelines.app.config_loader import ConfigLoader

__all__ = ["define_jobs", "defs", "read_dagster_config"]

ROOT = Path(__file__).resolve().parents[2]
# As in `run_labels` and `reevaluation.hooks`, with which Dagster's servers would load torch.
TRIGGER = "CONDVAE_TRIGGER"
ALARM_EXIT_CODE = 3
# Tag that Dagster puts on the runs of a schedule.
SCHEDULE = "dagster/schedule_name"
# Options of `kedro run` that are not called as kedro-dagster calls them.
RENAMED = {"node_names": "nodes", "node_namespaces": "namespaces"}


def read_dagster_config() -> KedroDagsterConfig:
    """Read `dagster.yml`: `conf/base`, the environment that ``$KEDRO_ENV`` names, `conf/local`."""
    loader = ConfigLoader(
        conf_source=str(ROOT / "conf"),
        env=os.environ.get("KEDRO_ENV"),
        base_env="base",
        default_run_env="local",
        config_patterns={"dagster": ["dagster*"]},
    )
    return KedroDagsterConfig(**loader["dagster"])


def define_jobs(config: KedroDagsterConfig) -> dg.Definitions:
    """Make an asset, a job of it and its schedule of every entry in `jobs`.

    Args:
        config: Content of `dagster.yml`; jobs name their executor and their schedule.

    Returns:
        The definitions; schedules are running unless someone has stopped them.

    Raises:
        ConfigurationError: A job names an executor or a schedule that is not there.
    """
    executors = ExecutorCreator(dagster_config=config).create_executors()
    assets, jobs, schedules = [], [], []
    for name, options in (config.jobs or {}).items():
        executor = _find(executors, options.executor, f"jobs.{name}.executor")
        planned = _find(config.schedules or {}, options.schedule, f"jobs.{name}.schedule")
        asset = _define_asset(name, options, planned)
        job = dg.define_asset_job(name, selection=[asset], executor_def=executor)
        assets.append(asset)
        jobs.append(job)
        if planned is not None:
            schedules.append(
                dg.ScheduleDefinition(
                    name=f"{name}_{options.schedule}",
                    job=job,
                    # kedro-dagster's own schedules wait until someone starts them by hand.
                    default_status=dg.DefaultScheduleStatus.RUNNING,
                    **planned.model_dump(),
                )
            )
    return dg.Definitions(
        assets=assets, jobs=jobs, schedules=schedules, executor=dg.in_process_executor
    )


def _find(entries: Mapping[str, Any], name: Any, where: str) -> Any:
    if name is not None and (not isinstance(name, str) or name not in entries):
        raise ConfigurationError(f"dagster.yml: {where}: {name!r} is none of {sorted(entries)}")
    return None if name is None else entries[name]


def _define_asset(
    name: str, options: JobOptions, schedule: ScheduleOptions | None
) -> dg.AssetsDefinition:
    """What the pipeline leaves behind, as one asset: materialising it runs the pipeline."""
    tries = (schedule and schedule.metadata) or {}
    policy = dg.RetryPolicy(
        max_retries=tries.get("retries", 0), delay=tries.get("retry_delay_seconds")
    )
    arguments = _list_arguments(options)

    def run_pipeline(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        # Words for the search of MLflow's page, where the run says the rest.
        found = {"mlflow_search": f"tags.dagster_run = '{context.run_id}'"}
        code, message = _run_kedro(arguments, context.run)
        if code != 0:
            # The same inputs give the same verdict; anything else may have passed by the next try.
            raise dg.Failure(message, found, allow_retries=code != ALARM_EXIT_CODE)
        return dg.MaterializeResult(metadata=found)

    return dg.asset(
        name=f"{name}_results",  # Dagster wants other names for assets than for jobs
        description=" ".join(["kedro", *arguments]),
        retry_policy=policy,
        kinds={"kedro", "mlflow"},
    )(run_pipeline)


def _list_arguments(options: JobOptions) -> list[str]:
    chosen = options.pipeline.model_dump(exclude_none=True, exclude={"pipeline_name"})
    filters = [
        f"--{RENAMED.get(name, name).replace('_', '-')}={','.join(values)}"
        for name, values in chosen.items()
    ]
    return ["run", f"--pipeline={options.pipeline.pipeline_name}", *filters]


def _run_kedro(arguments: list[str], run: dg.DagsterRun) -> tuple[int, str]:
    """Run kedro and pass on what it prints; return its exit code and its error, or else last line."""
    trigger = {TRIGGER: "schedule"} if SCHEDULE in run.tags else {}
    context = {"MLFLOW_RUN_CONTEXT": json.dumps({"dagster_run": run.run_id})}
    last_line = error = ""
    with subprocess.Popen(
        [sys.executable, "-m", "kedro", *arguments],
        cwd=ROOT,
        env={**os.environ, **trigger, **context, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        try:
            for line in process.stdout or ():
                sys.stdout.write(line)
                last_line = line.strip() or last_line
                if line.startswith("Error: "):  # a progress bar may have the last word
                    error = line.strip()
        except BaseException:  # someone has ended the job in Dagster
            process.terminate()
            raise
    return process.returncode, error or last_line


defs = define_jobs(read_dagster_config())
