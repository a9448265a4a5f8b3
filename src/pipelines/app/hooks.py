"""Kedro hooks: parameters are checked before work starts; what a run made is logged to MLflow."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any

import click
from kedro.config import MissingConfigException
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog, DatasetError
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from condvae.ground.configuration import ConfigurationError, read_config
from condvae.ground.devices import resolve_device
from condvae.models import ScoreMismatchError
from condvae.training import TrainingDivergedError
from pipelines.app.session import requested_pipelines
from pipelines.comparison.finding import find_runs
from pipelines.parameters import (
    AnomalyConfig,
    AttributesConfig,
    CompareConfig,
    CompleteConfig,
    EvaluationConfig,
    ScoreConfig,
    check_parameters,
)
from pipelines.parameters.own import SHARED_FOLDER, check_folder, read_parameters
from pipelines.parameters.recipe import apply_recipe
from pipelines.parameters.shape_file import read_shape_files
from pipelines.runs import tracking
from pipelines.runs.session_run import session_run
from pipelines.runs.settings import keep_variables, settle_tracking

__all__ = ["ParameterHooks", "TrackingHooks"]

log = logging.getLogger(__name__)

_WithInputs = (
    AnomalyConfig
    | AttributesConfig
    | CompareConfig
    | CompleteConfig
    | ScoreConfig
    | EvaluationConfig
)
_USER_ERRORS = (ConfigurationError, ScoreMismatchError, TrainingDivergedError)


class ParameterHooks:
    """Settles task, recipe and relative paths; refuses wrong parameters before anything starts."""

    def __init__(self) -> None:
        self._came_from: str | None = None
        self._folder = SHARED_FOLDER

    @hook_impl(tryfirst=True)
    def after_context_created(self, context: KedroContext) -> None:
        """Check every parameter; a mistake ends the command with one line that names it.

        First, so that nodes, other hooks and MLflow see the parameters that task and recipe leave.
        """
        loader = context.config_loader
        try:
            configured, self._folder = read_parameters(
                loader, requested_pipelines(), context.project_path
            )
            check_parameters(configured)
            given = read_shape_files(loader.runtime_params or {}, context.project_path)
            effective = apply_recipe(configured, given, context.project_path)
            check_parameters(effective, context.project_path)
            loader["parameters"] = effective
            session_run.prepare()
            try:
                credentials = loader["credentials"]
            except MissingConfigException:
                credentials = {}
            loader["mlflow"] = settle_tracking(loader["mlflow"], credentials, context.project_path)
        except ConfigurationError as error:
            raise click.ClickException(str(error)) from None

    @hook_impl(tryfirst=True)
    def before_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """Let relative paths in parameters start at the project, wherever the command is given.

        First, so that a run whose pictures, completions or extractors are missing is refused before
        there is an MLflow run.
        """
        sections: dict[str, type[_WithInputs]] = {
            "anomaly": AnomalyConfig,
            "attributes": AttributesConfig,
            "compare": CompareConfig,
            "complete": CompleteConfig,
            "score": ScoreConfig,
        }
        # The export of cases needs no extractor.
        if "feature_network" in pipeline.datasets():
            sections["evaluation"] = EvaluationConfig
        try:
            check_folder(self._folder, run_params.get("pipeline_names") or ())
            for name, section in sections.items():
                if f"params:{name}" in pipeline.inputs():
                    config = read_config(section, catalog.load(f"params:{name}"), name)
                    config.check_inputs(Path(run_params["project_path"]))
                    if isinstance(config, CompareConfig):
                        find_runs(MlflowClient(), config.named)
        except ConfigurationError as error:
            raise click.ClickException(str(error)) from None
        self._came_from = os.getcwd()
        os.chdir(run_params["project_path"])

    @hook_impl(trylast=True)
    def after_pipeline_run(self) -> None:
        """Go back."""
        self._go_back()

    @hook_impl(trylast=True)
    def on_pipeline_error(self, error: Exception) -> None:
        """End with one line instead of a traceback when the mistake is the user's.

        Last, so that kedro-mlflow has closed its run as failed before.
        """
        self._go_back()
        # A dataset's own failure wraps what went wrong; missing inputs name the file. A full disk or a
        # folder that cannot be written is said in one line too, and so is what MLflow refuses: other
        # values in a run that is continued, say.
        if isinstance(error, (*_USER_ERRORS, DatasetError, OSError)):
            raise click.ClickException(str(error)) from None
        if isinstance(error, MlflowException):
            said, _, _ = str(error).strip().partition("\n")  # below it may be a lesson or SQL
            raise click.ClickException(f"MLflow: {said}") from None

    def _go_back(self) -> None:
        if self._came_from is not None:
            os.chdir(self._came_from)
            self._came_from = None


class TrackingHooks:
    """Adds to kedro-mlflow's run what it does not log: provenance, scores, pictures, models."""

    def __init__(self) -> None:
        self._started: dict[str, float] = {}
        self._device = ""
        self._parameters: dict[str, Any] = {}

    @hook_impl(trylast=True)
    def after_context_created(self, context: KedroContext) -> None:
        """Remember which device the run computes on, and what it goes by; after kedro-mlflow."""
        keep_variables()
        self._device = str(resolve_device(context.params["device"]))
        self._parameters = context.params

    @hook_impl(trylast=True)
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline) -> None:
        """Name and tag the run that kedro-mlflow has started."""
        tracking.begin_run(run_params, self._device, self._parameters, pipeline.datasets())

    @hook_impl(tryfirst=True)
    def after_pipeline_run(self) -> None:
        """Stop what runs beside the pipeline, before kedro-mlflow closes the run."""
        session_run.leave()

    @hook_impl(tryfirst=True)
    def on_pipeline_error(self) -> None:
        """The same when a node has failed."""
        session_run.leave()

    @hook_impl(trylast=True)
    def before_node_run(self, node: Node) -> None:
        """Remember when a node began, after kedro-mlflow has entered the run for it."""
        session_run.note_entry()
        self._started[node.name] = time.perf_counter()

    @hook_impl
    def after_node_run(self, node: Node) -> None:
        """Log how long the node took."""
        tracking.record_stage(node.name, time.perf_counter() - self._started[node.name])

    @hook_impl
    def after_dataset_loaded(self, dataset_name: str, data: Any) -> None:
        """See that it is this run's, where this run has made it."""
        tracking.check_input(dataset_name, data)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any) -> None:
        """Log hashes, scores and files once they are validated and on the disk."""
        tracking.log_output(dataset_name, data)
