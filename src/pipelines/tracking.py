"""MLflow: what a run logs beside kedro-mlflow's parameters, and streaming while nodes still work.

Metrics that a node returns are lost when it crashes, so long work logs through callbacks, with a
client and the run's id (MLflow's "active run" belongs to a thread).
"""

from __future__ import annotations

import atexit
import logging
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import psutil
import torch
from mlflow.entities import Metric
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from tqdm import tqdm

from condvae.model_card import README
from condvae.model_folder import CARD

__all__ = [
    "MlflowMetrics",
    "ProgressBar",
    "begin_run",
    "command",
    "end_run",
    "git_state",
    "log_metrics",
    "log_output",
    "peak_memory_mib",
    "progress_bar",
    "record_stage",
    "stage_seconds",
    "training_callbacks",
]

log = logging.getLogger(__name__)

_run_id: str | None = None
_monitor: SystemMetricsMonitor | None = None
_stages: dict[str, float] = {}

# Facts of small JSON outputs that identify what a run used or made.
_TAGS = {
    "image_store": {"name": "data", "fingerprint": "data_fingerprint"},
    "pretrained_vae": {"name": "weights", "sha256": "weights_sha256"},
    "trained_vae": {"sha256": "trained_vae_sha256"},
    "posterior": {"sha256": "posterior_sha256", "task": "task"},
    "evaluation_manifest": {"sha256": "manifest_sha256"},
    "feature_network": {"name": "extractor", "sha256": "extractor_sha256"},
}
# Outputs with a folder that is kept with the run, and its place among the artifacts.
_FOLDERS = {
    "posterior": "posterior",
    "trained_vae": "vae",
    "data_docs": "data_docs",
}


def git_state() -> dict[str, str]:
    """Commit and whether files differ from it; empty outside a repository."""
    folder = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        return {
            "git_commit": git("rev-parse", "HEAD"),
            "git_dirty": str(bool(git("status", "--porcelain", "--untracked-files=no"))).lower(),
        }
    except (OSError, subprocess.CalledProcessError):
        return {}


# Completed pictures whose overviews are kept with the run.
_OVERVIEWS = 16
_TABLES = (
    *("metrics.json", "metrics.csv", "comparisons.json", "calibration.json", "cases.parquet"),
    "run_facts.json",
)


def command() -> str:
    """The command of this process."""
    return shlex.join(["kedro", *sys.argv[1:]])


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


def begin_run(run_params: Mapping[str, Any], device: str, recipe: str) -> None:
    """Remember the active run and tag it with where and from what it is made."""
    _stages.clear()
    global _run_id, _monitor  # noqa: PLW0603 - one MLflow run per process, shared by all threads
    run = mlflow.active_run()
    _run_id = run.info.run_id if run else None
    if run is None or _run_id is None:
        return
    _close_dead_runs(run.info.experiment_id)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    facts = {
        **git_state(),
        "command": command(),
        "device": device,
        "recipe": recipe,
        "pid": str(os.getpid()),
        "environment": str(run_params.get("env") or "local"),
        "gpu": gpu,
        "host": platform.node(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": str(torch.get_num_threads()),
    }
    mlflow.set_tags(facts)
    # Not mlflow.enable_system_metrics_logging: kedro-mlflow enters the run again for every node, and
    # each time would start one more monitor.
    _monitor = SystemMetricsMonitor(_run_id)
    _monitor.start()


def _close_dead_runs(experiment_id: str) -> None:
    """Mark runs of this machine whose process is gone as killed: SIGKILL leaves them running."""
    client = mlflow.MlflowClient()
    where = f"attributes.status = 'RUNNING' and tags.host = '{platform.node()}'"
    for run in client.search_runs([experiment_id], where):
        pid = int(run.data.tags.get("pid", 0))
        if pid and pid != os.getpid() and not psutil.pid_exists(pid):
            client.set_terminated(run.info.run_id, "KILLED")


def _end_interrupted_run() -> None:
    """At exit, mark a run that no hook has ended (Ctrl-C) as killed; MLflow would say finished."""
    if _monitor is not None and _run_id is not None:
        end_run()
        # kedro-mlflow enters the run again for every node; MLflow would end what is left as finished.
        while mlflow.active_run() is not None:
            mlflow.end_run("KILLED")


# Handlers run last in, first out, so this one comes before MLflow's own.
atexit.register(_end_interrupted_run)


def end_run() -> None:
    """Stop recording processor, memory and GPU use."""
    global _monitor  # noqa: PLW0603
    if _monitor is not None:
        _monitor.finish()
        _monitor = None


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


def log_output(name: str, value: Any) -> None:
    """Log what a node has returned under the dataset `name`."""
    if _run_id is None:
        return
    client = mlflow.MlflowClient()
    for key, tag in _TAGS.get(name, {}).items():
        if key in value:
            client.set_tag(_run_id, tag, str(value[key]))
    for file, place in _list_files(name, value):
        client.log_artifact(_run_id, str(Path(value["folder"]) / file), place)
    # A posterior that was only looked up was trained by another run and lies with that one.
    looked_up = name == "posterior" and "images_per_second" not in value
    if name in _FOLDERS and not looked_up:
        client.log_artifacts(_run_id, str(value["folder"]), _FOLDERS[name])
    if name == "metrics":
        log_metrics(_metric_names(value))


def _list_files(name: str, value: Any) -> list[tuple[str, str]]:
    """Files in the folder of the output `name` that are kept, and their places among the artifacts."""
    if name == "report_files":
        # Only this run's files: the folder may hold older ones.
        files = (value["report"], value["cards"], *value["figures"], *_TABLES)
        return [(file, "report") for file in files]
    if name == "anomaly_files":
        return [(file, "anomaly") for file in (*value["figures"], "auroc.json", "auroc.csv")]
    if name == "completion_page":
        pictures = value["names"][:_OVERVIEWS]
        overviews = [(f"{picture}/overview.png", f"complete/{picture}") for picture in pictures]
        return [(value["page"], "complete"), ("manifest.json", "complete"), *overviews]
    if name == "model_card" and value["recorded"]:  # over those that went with the weights
        return [(file, "posterior") for file in (CARD, README)]
    return []


def _metric_names(table: pd.DataFrame) -> dict[str, float]:
    """``eval/<bin>/<metric>/<extractor>`` for the first sampler, ``eval_<sampler>/...`` for others."""
    names = {}
    for row in table.itertuples():
        root = "eval" if row.sampler == table["sampler"].iloc[0] else f"eval_{row.sampler}"
        names[f"{root}/{row.bin}/{row.metric}/{row.extractor}"] = float(str(row.value))
    return names


class MlflowMetrics:
    """Training callback that streams metrics to the current run."""

    def __init__(self) -> None:
        self._clock = 0.0
        self._step = 0
        self._batch_size = 0

    def on_start(self, name: str, step: int, steps: int, batch_size: int) -> None:
        """Start the clock."""
        del name, steps
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


class ProgressBar:
    """Training callback that shows steps, images/s, loss and the time left."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None

    def on_start(self, name: str, step: int, steps: int, batch_size: int) -> None:
        """Open the bar at the step reached so far."""
        self._bar = progress_bar(name, steps * batch_size, initial=step * batch_size, unit="img")
        self._batch_size = batch_size

    def on_step(self, step: int) -> None:
        """Advance by one batch."""
        if self._bar is not None:
            self._bar.update(self._batch_size)

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Show the latest values."""
        if self._bar is not None:
            shown = ("train/loss", "train/kl_nats", "train/bits_per_dim")
            self._bar.set_postfix(
                {k.split("/")[1]: f"{metrics[k]:.4g}" for k in shown if k in metrics}
            )

    def on_end(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()


def progress_bar(name: str, total: int, *, initial: int = 0, unit: str = "it") -> tqdm[Any]:
    """A bar with rate and time left; on a file or pipe one line every ten seconds at most."""
    interval = 0.2 if sys.stderr.isatty() else 10.0
    return tqdm(total=total, initial=initial, desc=name, unit=unit, mininterval=interval)


def training_callbacks() -> tuple[ProgressBar, MlflowMetrics]:
    """What listens to every training run of the pipelines."""
    return ProgressBar(), MlflowMetrics()
