"""Kill whole runs again and again; does the outcome change?

    python benchmarks/kill_runs.py --kills 100

`kedro run --env=test --pipeline=inpaint` (preparation, training, evaluation, report) works in a new
folder, in processes that get SIGKILL at random instants and are started again until one of them ends.
Tables, weights, checkpoints, image arrays, figures and cards must then be, byte for byte, those of a
run that nobody disturbed. Not compared are facts of the run itself: durations, memory, dates. Prints
a JSON object that says where the kills landed, and ends with status 1 if any run differs or fails.

Processes are forks of one that has imported everything: time goes into the work, not into imports.
Needs a POSIX system.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import io
import json
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["describe_outcome", "kill_runs", "main"]

CHECKOUT = Path(__file__).resolve().parents[1]
STAGES, LOG = "stages", "log"  # files in a project: the nodes at work so far, what was printed
BEFORE, AFTER = "before the first node", "after the last node"
RANDOM_INSTANT = "random instant"
# Not compared: each run has its own.
OWN_FACTS = {
    *("seconds", "seconds_per_case", "images_per_second"),
    *("peak_memory_mib", "git_commit", "git_dirty"),
}
OWN_FILES = ("report.html", "lock")
# Imported before the first fork; without the later ones, every process would import them at first use.
PRELOADED = (
    *("kedro.framework.session", "kedro.framework.startup", "kedro_mlflow.framework.hooks"),
    *("pipelines.settings", "pipelines.pipeline_registry", "pipelines.catalog.datasets"),
    *("pipelines.catalog.validation", "great_expectations.render.renderer.site_builder"),
    *("mlflow.store.tracking.sqlalchemy_store", "alembic.command", "pyarrow.parquet"),
    *("matplotlib.backends.backend_agg", "scipy.linalg", "sklearn.datasets", "torch_fidelity"),
    "torch._dynamo",
)


def make_project(folder: Path) -> Path:
    """Make an empty project with the checkout's settings; its code is what this script imports."""
    (folder / "src").mkdir(parents=True)
    shutil.copy(CHECKOUT / "pyproject.toml", folder)
    ignored = shutil.ignore_patterns("local")
    shutil.copytree(CHECKOUT / "conf", folder / "conf", ignore=ignored)
    return folder


def run_pipelines(
    project: Path, pipelines: Sequence[str], moment: str | None = None, call: int = 1
) -> None:
    """Do what ``kedro run`` does, in this process.

    Args:
        project: Made by `make_project`.
        pipelines: Names of registered pipelines.
        moment: A key of `MOMENTS` at which the process kills itself, None for never.
        call: It does so at the call of this number, from 1.
    """
    import torch
    from kedro.framework.hooks import hook_impl
    from kedro.framework.session import KedroSession
    from kedro.framework.startup import bootstrap_project

    from pipelines import settings

    class StageHooks:
        """Notes which node is at work."""

        @hook_impl
        def before_node_run(self, node: Any) -> None:
            note_stage(project, node.name)

        @hook_impl(tryfirst=True)
        def after_pipeline_run(self) -> None:
            note_stage(project, AFTER)

    with (project / LOG).open("a") as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    os.chdir(project)
    sys.argv = ["kedro", "run", "--env=test", f"--pipelines={','.join(pipelines)}"]
    torch.set_num_threads(1)  # sums must not depend on how many processors are free
    settings.ROOT = project  # the checkout otherwise, where the modules lie
    settings.HOOKS = (*settings.HOOKS, StageHooks())
    bootstrap_project(project)
    if moment is not None:
        _arm(moment, call)
    with KedroSession.create(project_path=project, env="test") as session:
        session.run(pipeline_names=list(pipelines))


def note_stage(project: Path, stage: str) -> None:
    """Add a line to the project's list of stages."""
    with (project / STAGES).open("a") as file:
        file.write(stage + "\n")


def _write_half(original: Callable[..., Any], payload: Any, file: Any) -> None:
    """What a kill in the middle of `torch.save` leaves."""
    whole = io.BytesIO()
    original(payload, whole)
    file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
    file.flush()


MOMENTS: dict[str, tuple[str, str, int, Callable[..., Any]]] = {
    # Module and name of a function, calls of it in a run (about), and what is still done before the
    # process dies at one of them.
    "half a checkpoint written": ("torch", "save", 3, _write_half),
    "before a rename": ("os", "replace", 40, lambda original, *_: None),
    "after a rename": ("os", "replace", 40, lambda original, *arguments: original(*arguments)),
    "before a removal": ("os", "unlink", 1, lambda original, *_: None),
}


def _arm(moment: str, call: int) -> None:
    """Make this process kill itself at the given call of the moment's function."""
    module, name, _, last_act = MOMENTS[moment]
    owner, calls = sys.modules[module], 0
    original = getattr(owner, name)

    @functools.wraps(original)
    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            last_act(original, *arguments)
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)

    setattr(owner, name, counted)


def describe_outcome(project: Path) -> dict[str, str]:
    """Give the sha256 of every file below ``data/``, by its path there.

    Facts of the run itself are left out; of files that are full of them, only the name is kept. The
    Data Docs list the runs with their dates: only their index is named.
    """
    outcome = {}
    for path in sorted((project / "data").rglob("*")):
        name = path.relative_to(project).as_posix()
        if not path.is_file() or ("/data_docs/" in name and path.name != "index.html"):
            continue
        content = path.read_bytes()
        if path.suffix == ".pt":
            content = _describe_checkpoint(path)
        elif path.name in OWN_FILES or "/data_docs/" in name:
            content = b""
        elif path.suffix == ".json" and isinstance(value := json.loads(content), dict):
            shared = {key: fact for key, fact in value.items() if key not in OWN_FACTS}
            content = json.dumps(shared).encode()
        outcome[name] = hashlib.sha256(content).hexdigest()
    return outcome


def _describe_checkpoint(path: Path) -> bytes:
    """Everything in a checkpoint; its bytes also say which of its strings were one object."""
    import torch

    def flat(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            kind = (str(value.dtype), tuple(value.shape), value.requires_grad)
            return *kind, value.detach().numpy().tobytes()
        if isinstance(value, dict):
            return [(key, flat(item)) for key, item in value.items()]
        return [flat(item) for item in value] if isinstance(value, list | tuple) else value

    return repr(flat(torch.load(path, weights_only=True))).encode()


def count_statuses(project: Path) -> dict[str, int]:
    """Count the MLflow runs of a project by status."""
    with sqlite3.connect(project / "mlruns" / "mlflow.db") as database:
        rows = database.execute("SELECT status, COUNT(*) FROM runs GROUP BY status")
        return dict(rows.fetchall())


class _Attempts:
    """Starts processes in a project and says how they end.

    Attributes:
        seconds: How long the last process took that came to its end; how busy the machine is varies.
    """

    def __init__(self, pipelines: Sequence[str]) -> None:
        self.pipelines = pipelines
        self.seconds = 0.0
        os.environ |= {"OMP_NUM_THREADS": "1", "KEDRO_DISABLE_TELEMETRY": "1"}
        self.processes = multiprocessing.get_context("forkserver")
        self.processes.set_forkserver_preload(list(PRELOADED))
        # The imports are no part of any duration, and what they print is no part of the report.
        stdout = os.dup(1)
        os.dup2(2, 1)
        warm_up = self.processes.Process(target=int)
        warm_up.start()
        warm_up.join()
        os.dup2(stdout, 1)

    def start(self, project: Path, *arguments: Any, seconds: float | None = None) -> bool:
        """Run to the end, or kill after so many seconds; says whether the end was reached."""
        note_stage(project, BEFORE)
        started = time.perf_counter()
        process = self.processes.Process(
            target=run_pipelines, args=(project, self.pipelines, *arguments)
        )
        process.start()
        process.join(seconds)
        process.kill()
        process.join()
        if process.exitcode not in (0, -signal.SIGKILL):
            tail = (project / LOG).read_text()[-3000:]
            raise RuntimeError(f"{project.name} ended with status {process.exitcode}:\n{tail}")
        ended = process.exitcode == 0
        if ended:
            self.seconds = time.perf_counter() - started
        return ended


def kill_runs(
    kills: int,
    moments: int,
    seed: int,
    folder: Path,
    pipelines: Sequence[str] = ("inpaint",),
) -> dict[str, Any]:
    """Kill, restart and compare.

    Args:
        kills: Kills at random instants, uniform over the duration of a run.
        moments: Further kills at chosen moments of a file's writing, see `MOMENTS`.
        seed: Of instants and moments.
        folder: One project for each run is made here.
        pipelines: Names of registered pipelines.

    Returns:
        Numbers of kills by cause and by stage, number of runs, whether the outcome of each was the
        same, and the files that were not.
    """
    attempts = _Attempts(pipelines)
    undisturbed = make_project(folder / "undisturbed")
    started = time.perf_counter()
    attempts.start(undisturbed)
    first = attempts.seconds
    expected = describe_outcome(undisturbed)
    rng = random.Random(seed)
    causes = [RANDOM_INSTANT] * kills + [list(MOMENTS)[i % len(MOMENTS)] for i in range(moments)]
    rng.shuffle(causes)
    by_cause: Counter[str] = Counter()
    by_stage: Counter[str] = Counter()
    statuses: Counter[str] = Counter()
    differing: set[str] = set()
    runs = 0
    while causes:
        project = make_project(folder / f"run-{runs}")
        ended = False
        while causes and not ended:
            if causes[-1] == RANDOM_INSTANT:
                ended = attempts.start(project, seconds=rng.uniform(0.0, attempts.seconds))
            else:
                ended = attempts.start(project, causes[-1], rng.randint(1, MOMENTS[causes[-1]][2]))
            if not ended:
                by_cause[causes.pop()] += 1
                by_stage[(project / STAGES).read_text().splitlines()[-1]] += 1
        if not ended:
            attempts.start(project)
        found = describe_outcome(project)
        differing |= {name for name in expected | found if expected.get(name) != found.get(name)}
        statuses.update(count_statuses(project))
        runs += 1
    return {
        "kills": by_cause.total(),
        "kills_by_cause": dict(sorted(by_cause.items())),
        "kills_by_stage": dict(by_stage.most_common()),
        "runs": runs,
        "files_compared": len(expected),
        "identical": not differing,
        "differing": sorted(differing),
        "mlflow_statuses": dict(statuses),
        "seconds_undisturbed": round(first, 1),
        "seconds": round(time.perf_counter() - started, 1),
    }


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100, help="at random instants (100)")
    parser.add_argument("--moments", type=int, default=0, help="more, at chosen moments (0)")
    parser.add_argument("--seed", type=int, default=0, help="of instants and moments (0)")
    parser.add_argument("--folder", type=Path, help="keep all runs here (a new, empty folder)")
    parser.add_argument("--pipelines", default="inpaint", help="names, with commas (inpaint)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        report = kill_runs(
            options.kills,
            options.moments,
            options.seed,
            options.folder or Path(temporary),
            options.pipelines.split(","),
        )
    print(json.dumps(report, indent=2))
    return 0 if report["identical"] else 1


if __name__ == "__main__":
    sys.exit(main())
