"""Around a re-evaluation: one at a time, its verdict on the MLflow run, and an exit code for alarms."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import click
import mlflow
from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline

from condvae.evaluation.monitoring import OK
from condvae.ground.configuration import ConfigurationError, read_config
from pipelines.parameters import ReevaluationConfig
from pipelines.reevaluation.lock import hold
from pipelines.runs.tracking import command

__all__ = ["ALARM_EXIT_CODE", "AlarmError", "ReevaluationHooks", "VerdictHooks"]

ALARM_EXIT_CODE = 3
LOCK = ".lock"


class AlarmError(click.ClickException):
    """The verdict is not ``ok``; by then everything is saved, and the MLflow run closed as finished."""

    exit_code = ALARM_EXIT_CODE


class ReevaluationHooks:
    """Holds the project's lock for the time of a run; raises the alarm as the very last thing."""

    def __init__(self) -> None:
        self._lock: IO[str] | None = None
        self._verdict: dict[str, Any] | None = None

    @hook_impl(tryfirst=True)
    def before_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """Take the lock before there is an MLflow run."""
        self._verdict = None
        if "params:reevaluate" not in pipeline.inputs():
            return
        project = Path(run_params["project_path"])
        self._release()  # of a run in this process that another hook has refused
        try:
            config = read_config(
                ReevaluationConfig, catalog.load("params:reevaluate"), "reevaluate"
            )
            config.check_inputs(project)
            self._lock = hold(project / config.folder / LOCK, config.wait_seconds, command())
        except ConfigurationError as error:
            raise click.ClickException(str(error)) from None

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any) -> None:
        """Remember the verdict."""
        if dataset_name == "reevaluation_verdict":
            self._verdict = data

    @hook_impl(trylast=True)
    def after_pipeline_run(self) -> None:
        """Give the lock back; end with `ALARM_EXIT_CODE` unless all is well."""
        self._release()
        verdict, self._verdict = self._verdict, None
        if verdict is not None and verdict["verdict"] != OK:
            reasons = "; ".join(reason["message"] for reason in verdict["reasons"])
            raise AlarmError(f"re-evaluation: {verdict['verdict']}: {reasons}")

    @hook_impl(tryfirst=True)
    def on_pipeline_error(self) -> None:
        """Give the lock back, before another hook ends the command."""
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


class VerdictHooks:
    """Puts verdict and report on the MLflow run while it is still open."""

    def __init__(self) -> None:
        self._verdict: dict[str, Any] = {}
        self._page: dict[str, Any] = {}

    @hook_impl
    def before_pipeline_run(self) -> None:
        """Forget those of a run in this process that has failed after its verdict."""
        self._verdict, self._page = {}, {}

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any) -> None:
        """Remember verdict and report."""
        if dataset_name == "reevaluation_verdict":
            self._verdict = data
        if dataset_name == "reevaluation_page":
            self._page = data

    @hook_impl(tryfirst=True)
    def after_pipeline_run(self) -> None:
        """Log them, before kedro-mlflow closes the run."""
        verdict, page = self._verdict, self._page
        self._verdict, self._page = {}, {}
        if not verdict or mlflow.active_run() is None:
            return
        champion = verdict["champion"]
        tags = {
            "verdict": verdict["verdict"],
            "verdict_about": ", ".join(dict.fromkeys(r["about"] for r in verdict["reasons"])),
            "registered_model": champion["name"],
            "registered_version": champion["version"],
            "posterior_sha256": champion["sha256"],
            "manifest_sha256": (verdict["manifest"] or {}).get("sha256"),
        }
        mlflow.set_tags({name: value for name, value in tags.items() if value})
        mlflow.log_dict(verdict, "reevaluate/verdict.json")
        for name in page.get("files", ()):
            mlflow.log_artifact(str(Path(page["folder"]) / name), "reevaluate")
