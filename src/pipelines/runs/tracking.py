"""MLflow: what a run logs beside kedro-mlflow's parameters, and streaming while nodes still work.

Metrics that a node returns are lost when it crashes, so long work logs through callbacks, with a
client and the run's id (MLflow's "active run" belongs to a thread).
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import psutil
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from condvae.ground.configuration import ConfigurationError
from condvae.models.card import README
from condvae.models.folder import CARD
from condvae.training.start import Start
from pipelines.runs.database import close_dead_runs
from pipelines.runs.inputs import describe_inputs
from pipelines.runs.labels import (
    command,
    describe_machine,
    git_state,
    list_packages,
    name_run,
    trigger,
)
from pipelines.runs.progress import ProgressBar, progress_bar
from pipelines.runs.session_run import session_run
from pipelines.runs.summary import (
    HEADLINE,
    name_scores,
    summarise_parameters,
    summarise_scores,
)

__all__ = [
    "MlflowMetrics",
    "ProgressBar",
    "begin_run",
    "check_input",
    "command",
    "git_state",
    "log_metrics",
    "log_output",
    "nested_run",
    "peak_memory_mib",
    "progress_bar",
    "record_stage",
    "stage_seconds",
    "tag_training",
    "training_callbacks",
]

log = logging.getLogger(__name__)

_run_id: str | None = None
_trains = False
_stages: dict[str, float] = {}
_made: dict[str, dict[str, str]] = {}  # what identifies the outputs of this run, by dataset

_TRAINING = {"params:training", "params:pretraining"}

# Facts of small JSON outputs that identify what a run used or made.
_TAGS: dict[str, dict[str, str]] = {
    "image_store": {"name": "data", "fingerprint": "data_fingerprint"},
    "pretrained_vae": {"name": "weights", "sha256": "weights_sha256"},
    "trained_vae": {"sha256": "trained_vae_sha256"},
    "posterior": {"sha256": "posterior_sha256", "task": "task"},
    "evaluation_manifest": {"sha256": "manifest_sha256"},
    "compared_runs": {
        **{name: name for name in ("task", "data", "reference_run", "compared_runs")},
        "manifest": "manifest_sha256",
    },
    "feature_network": {"name": "extractor", "sha256": "extractor_sha256"},
    "flat_vae": {"sha256": "model_sha256"},
    "attribute_classifier": {"name": "extractor", "sha256": "extractor_sha256"},
    "registration": {
        "alias": "registration",
        "name": "registered_model",
        "version": "registered_version",
    },
}
# What a nested run takes over from the run above it, so that a search for these finds both.
_SHARED_TAGS = (
    *("pipeline", "task", "data", "data_fingerprint", "recipe", "trigger", "weights_sha256"),
    *("git_commit", "git_dirty", "device", "gpu", "threads", "python", "torch", "condvae"),
)
# Outputs with a folder that is kept with the run, and its place among the artifacts.
_FOLDERS = {
    "posterior": "posterior",
    "trained_vae": "vae",
    "data_docs": "data_docs",
    "flat_vae": "model",
}
# Completed pictures whose overviews are kept with the run.
_OVERVIEWS = 16
_TABLES = (
    *("metrics.json", "metrics.csv", "comparisons.json", "calibration.json", "cases.parquet"),
    "run_facts.json",
)


# Pages with figures, and the tables beside them: their place among the artifacts, names of the tables.
_PAGES = {
    "attribute_files": ("attributes", ("metrics.json", "metrics.csv")),
    "ladder_files": (
        "attributes_ladder",
        ("ladder.json", "ladder.csv", "contributions.json", "results.json"),
    ),
}


def peak_memory_mib() -> float:
    """Largest resident memory of this process so far."""
    memory = psutil.Process().memory_info()
    # Windows knows the peak; elsewhere the kernel's accounting does.
    peak = getattr(memory, "peak_wset", None)
    if peak is not None:
        return float(peak) / 2**20
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage / (1024 if sys.platform != "darwin" else 1024**2)


def record_stage(name: str, seconds: float) -> None:
    """Remember and log how long a node took."""
    _stages[name] = seconds
    log_metrics({f"seconds/{name}": seconds})


def stage_seconds() -> dict[str, float]:
    """Seconds of the nodes that have finished in this process."""
    return dict(_stages)


def begin_run(
    run_params: Mapping[str, Any],
    device: str,
    parameters: Mapping[str, Any],
    datasets: Collection[str],
) -> None:
    """Remember the active run; name it and tag it with where and from what it is made.

    Args:
        run_params: As Kedro gives them to its hooks.
        device: What the run computes on.
        parameters: All of them, nested.
        datasets: Names of all that the run's nodes take and return.
    """
    _stages.clear()
    _made.clear()
    global _run_id, _trains  # noqa: PLW0603 - one MLflow run per process, shared by all threads
    run = mlflow.active_run()
    _run_id = run.info.run_id if run else None
    if run is None or _run_id is None:
        return
    session_run.open()
    close_dead_runs(run.info.experiment_id)
    _trains = not _TRAINING.isdisjoint(datasets)
    pipelines = run_params.get("pipeline_names") or ["__default__"]
    recipe = parameters["recipe"]
    # A name that was configured stays, and so does that of a run that is continued.
    if run.info.run_name == "+".join(pipelines):
        decides = not (_TRAINING | {"params:model", "params:masks"}).isdisjoint(datasets)
        given = run_params.get("runtime_params") or {}
        name = name_run(pipelines, recipe if decides else None, given)
        mlflow.MlflowClient().update_run(_run_id, name=name)
    mlflow.set_tags(
        {
            **git_state(),
            **describe_machine(),
            "command": command(),
            "device": device,
            "recipe": recipe,
            "trigger": trigger(),
            "pipeline": "+".join("inpaint" if p == "__default__" else p for p in pipelines),
            "environment": str(run_params.get("env") or "local"),
        }
    )
    mlflow.log_text(list_packages(), "environment/packages.txt")
    if "params:training" in datasets:
        # Of a run that is continued with other values kedro-mlflow says so.
        with contextlib.suppress(MlflowException):
            mlflow.log_params(summarise_parameters(parameters))
    if "metrics" in datasets:
        # The UI plots the metric that was logged first: not how long the first node took.
        log_metrics({HEADLINE: float("nan")})
    session_run.watch(_run_id)


def tag_training(training: str, source: str, step: int) -> None:
    """Say which training the run goes on with, and where it was taken up.

    Args:
        training: Fingerprint of the training; the first twelve characters name its folder.
        source: That of the training whose checkpoint was loaded.
        step: Of the checkpoint, 0 for none.
    """
    if _run_id is None:
        return
    try:
        client = mlflow.MlflowClient()
        client.set_tag(_run_id, "training_run", training[:12])
        if step:
            experiment = client.get_run(_run_id).info.experiment_id
            same = f"tags.training_run = '{source[:12]}' and attributes.run_id != '{_run_id}'"
            found = client.search_runs([experiment], same, max_results=1)
            earlier = found[0].info.run_id if found else f"training/{source[:12]}"
            client.set_tag(_run_id, "resumed_from", earlier)
            client.set_tag(_run_id, "resumed_step", str(step))
    except Exception as error:  # a locked database must not end hours of training
        log.warning("what was resumed was not tagged in MLflow: %s", error)


def log_metrics(values: Mapping[str, float], step: int = 0) -> None:
    """Log numbers to the current run; does nothing without one."""
    if _run_id is None or not values:
        return
    now = int(time.time() * 1000)
    metrics = [Metric(name, float(value), now, step) for name, value in values.items()]
    try:
        mlflow.MlflowClient().log_batch(_run_id, metrics=metrics)
    except Exception as error:  # a locked database must not end hours of training
        log.warning("metrics were not logged to MLflow: %s", error)


@contextlib.contextmanager
def nested_run(name: str, tags: Mapping[str, Any]) -> Iterator[None]:
    """Log metrics to a run below the current one while the block lasts; does nothing without one.

    However the block ends, its run is ended too: as finished, failed, or killed by Ctrl-C.

    Args:
        name: Of the run.
        tags: Facts about it; data, recipe, commit and the like are those of the run above.
    """
    global _run_id  # noqa: PLW0603
    if _run_id is None:
        yield
        return
    client, parent = mlflow.MlflowClient(), _run_id
    above = client.get_run(parent)
    shared = {key: above.data.tags[key] for key in _SHARED_TAGS if key in above.data.tags}
    # Host and process, so that the next run can tell that this one was killed.
    process = {"mlflow.parentRunId": parent, "host": platform.node(), "pid": os.getpid()}
    own = {key: str(value) for key, value in {**shared, **process, **tags}.items()}
    _run_id = client.create_run(above.info.experiment_id, tags=own, run_name=name).info.run_id
    status = "FAILED"
    try:
        yield
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        client.set_terminated(_run_id, status)
        _run_id = parent


def log_output(name: str, value: Any) -> None:
    """Log what a node has returned under the dataset `name`."""
    _made[name] = _identify(name, value)
    if _run_id is None:
        return
    client = mlflow.MlflowClient()
    for tag, text in _made[name].items():
        client.set_tag(_run_id, tag, text)
    used = describe_inputs(name, value, trains=_trains)
    if used:
        try:
            client.log_inputs(_run_id, used)
        except MlflowException:  # another run was the first to enter the same data
            client.log_inputs(_run_id, used)
    if name == "examples":
        _log_arrays(client, value, "report/examples.npz")
    for file, place in _list_files(name, value):
        client.log_artifact(_run_id, str(Path(value["folder"]) / file), place)
    # A posterior that was only looked up was trained by another run and lies with that one.
    looked_up = name == "posterior" and "images_per_second" not in value
    if name in _FOLDERS and not looked_up:
        client.log_artifacts(_run_id, str(value["folder"]), _FOLDERS[name])
    if name == "metrics":
        log_metrics({**summarise_scores(value), **name_scores(value)})


def check_input(name: str, value: Any) -> None:
    """Refuse what a node is given where this run has made another: two commands share their files.

    Raises:
        ConfigurationError: Another command has written the dataset `name` meanwhile.
    """
    found = _identify(name, value)
    made = _made.get(name, found)
    for key in found:
        if found[key] != made.get(key):
            raise ConfigurationError(
                f"{name}: {key} is {found[key]}, this run has made {made.get(key)}: another command "
                "has replaced it meanwhile; give this one again once that is done"
            )


def _identify(name: str, value: Any) -> dict[str, str]:
    return {tag: str(value[key]) for key, tag in _TAGS.get(name, {}).items() if key in value}


def _log_arrays(client: mlflow.MlflowClient, arrays: Mapping[str, Any], place: str) -> None:
    """Keep named arrays with the run as the compressed ``.npz`` `place`."""
    folder, name = place.rsplit("/", 1)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        path = Path(temporary) / name
        np.savez_compressed(path, allow_pickle=False, **arrays)
        client.log_artifact(_run_id, str(path), folder)


def _list_files(name: str, value: Any) -> list[tuple[str, str]]:
    """Files in the folder of the output `name` that are kept, and their places among the artifacts."""
    if name == "report_files":
        # Only this run's files: the folder may hold older ones.
        files = (value["report"], value["cards"], *value["figures"], *_TABLES)
        return [(file, "report") for file in files]
    if name in ("comparison_files", "anomaly_files"):
        files = value.get("files") or (*value["figures"], "auroc.json", "auroc.csv")
        return [(file, name.removesuffix("_files")) for file in files]
    if name in _PAGES:
        place, tables = _PAGES[name]
        return [(file, place) for file in (value["page"], *value["figures"], *tables)]
    if name == "completion_page":
        pictures = value["names"][:_OVERVIEWS]
        overviews = [(f"{picture}/overview.png", f"complete/{picture}") for picture in pictures]
        return [(value["page"], "complete"), ("manifest.json", "complete"), *overviews]
    if name == "model_card" and value["recorded"]:  # over those that went with the weights
        return [(file, "posterior") for file in (CARD, README)]
    return []


class MlflowMetrics:
    """Training callback that streams metrics to the current run.

    Args:
        start: What the training starts from, for the tags of a resumed run; None = no such tags.
    """

    def __init__(self, start: Start | None = None) -> None:
        self._start = start
        self._clock = 0.0
        self._step = 0
        self._batch_size = 0

    def on_start(self, name: str, step: int, steps: int, batch_size: int) -> None:
        """Start the clock; the first time, tag the run with what it goes on from."""
        del name, steps
        if self._start is not None:  # a training that has diverged begins again
            other = self._start.identity["start"]
            resumed = other["rung"] == "resume" and other["step"] == step
            own = self._start.fingerprint
            tag_training(own, other["run"] if resumed else own, step)
            self._start = None
        self._clock, self._step, self._batch_size = time.perf_counter(), step, batch_size

    def on_step(self, step: int) -> None:
        """Nothing: single steps are not logged."""

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log metrics and the rate since the last record."""
        now = time.perf_counter()
        rate = (step - self._step) * self._batch_size / max(now - self._clock, 1e-9)
        self._clock, self._step = now, step
        log_metrics({**metrics, "train/images_per_second": rate}, step)

    def on_end(self) -> None:
        """Nothing to close."""


def training_callbacks(start: Start) -> tuple[ProgressBar, MlflowMetrics]:
    """What listens to every training run of the pipelines, see `MlflowMetrics`."""
    return ProgressBar(), MlflowMetrics(start)
