"""The MLflow run of a Kedro session: left as it was found, whatever ends the session.

MLflow keeps the runs that a thread has entered on a stack. kedro-mlflow enters its run again for every
node and leaves it once. To the next session of the same process what stays there is a run that its
caller has opened, and it logs to that run instead of one of its own.
"""

from __future__ import annotations

import atexit
import contextlib
import threading

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from pipelines.runs.database import variable

__all__ = ["SessionRun", "session_run"]

_SILENCE = "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"


class SessionRun:
    """Run of the session that is under way in this process."""

    def __init__(self) -> None:
        self._open = False
        self._of_caller = False
        self._thread = 0
        self._entries = 0
        self._monitor: SystemMetricsMonitor | None = None

    def prepare(self) -> None:
        """Before kedro-mlflow looks for one: end what an interrupted session has left.

        What is active afterwards belongs to the caller, who opened it to have the session log to it.
        """
        self.end_interrupted()
        self._of_caller = mlflow.active_run() is not None

    def open(self) -> None:
        """Note that kedro-mlflow has entered the run, or found the caller's."""
        self._open, self._thread, self._entries = True, threading.get_ident(), 0

    def watch(self, run_id: str) -> None:
        """Record use of processor, memory and GPU until the run is left."""
        # Not mlflow.enable_system_metrics_logging, which would start a monitor for every node.
        self._monitor = SystemMetricsMonitor(run_id)
        self._monitor.start()

    def note_entry(self) -> None:
        """Note that kedro-mlflow has entered the run again; a thread has a stack of its own."""
        if self._open and threading.get_ident() == self._thread:
            self._entries += 1

    def leave(self) -> None:
        """Take back the entries for nodes: one exit, kedro-mlflow's or the caller's, ends the run."""
        if self._monitor is not None:
            self._monitor.finish()
            self._monitor = None
        for _ in range(self._entries):
            # The entry is gone even where the database does not hear of it, and no status changes. Of a
            # server MLflow says each time where the run is.
            with contextlib.suppress(MlflowException), variable(_SILENCE, "true"):
                mlflow.end_run("RUNNING")
        self._open, self._entries = False, 0

    def end_interrupted(self) -> None:
        """Mark a run that no hook has left (Ctrl-C) as killed; MLflow would say finished at exit."""
        if self._open:
            self.leave()
            if not self._of_caller:
                mlflow.end_run("KILLED")


session_run = SessionRun()
# Handlers run last in, first out, so this one comes before MLflow's own.
atexit.register(session_run.end_interrupted)
