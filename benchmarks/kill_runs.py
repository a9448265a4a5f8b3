"""Kill training again and again; does the outcome change?

    python benchmarks/kill_runs.py --kills 100

A small partial encoder is trained by `fit` in processes that get SIGKILL at random instants or at
chosen moments of a checkpoint's writing, and are started again until they finish. Weights and metric
records of every run must be, byte for byte, those of a run that nobody disturbed. Prints a JSON
object and ends with status 1 if any run differs. Needs a POSIX system.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from condvae.conditional import PartialEncoder, initialise
from condvae.files import open_atomic
from condvae.tasks.inpainting import Inpainting
from condvae.training import TrainingConfig, fit
from condvae.training.conditioning import ForwardKL
from condvae.training.initial import new_vae
from condvae.vdvae import ARCHITECTURES

__all__ = ["kill_runs", "main", "train"]

CONFIG = TrainingConfig(
    steps=40,
    batch_size=4,
    warmup_steps=5,
    schedule="cosine",
    checkpoint_every=5,
    log_every=3,
    validate_every=10,
)
RANDOM_INSTANT = "random instant"
WEIGHTS, METRICS = "weights.safetensors", "metrics.jsonl"


def train(folder: Path, moment: str | None = None, call: int = 1) -> None:
    """Train in this process, or go on training, and write the averaged weights.

    Args:
        folder: Everything goes here.
        moment: A key of `MOMENTS` at which the process kills itself, None for never.
        call: It does so at the call of this number, from 1.
    """
    torch.set_num_threads(1)  # sums must not depend on how many processors are free
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, 16, 16, 1), dtype=np.uint8)
    masks = rng.random((12, 16, 16)) < 0.5
    vae = new_vae(ARCHITECTURES["tiny16"], 127.5, 64.0, 0)
    task = Inpainting()
    partial = PartialEncoder(vae, task.condition_channels(vae.contract))
    initialise(partial, vae, "random", 1)
    rows = np.arange(12)
    objective = ForwardKL(
        vae, partial, task, images, rows[:8], rows[8:], masks[:8], masks[8:], CONFIG, 0
    )
    if moment is not None:
        _arm(moment, call)
    result = fit(CONFIG, objective, folder, "kill-runs")
    with open_atomic(folder / WEIGHTS) as file:
        file.write(safetensors.torch.save(result.weights))


def _write_half(original: Callable[..., Any], payload: Any, file: Any) -> None:
    """What a kill in the middle of `torch.save` leaves."""
    whole = io.BytesIO()
    original(payload, whole)
    file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
    file.flush()


MOMENTS: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    # Where the call is made, its name, what is still done before the process dies.
    "half a checkpoint written": (torch, "save", _write_half),
    "before a rename": (os, "replace", lambda original, *_: None),
    "after a rename": (os, "replace", lambda original, *arguments: original(*arguments)),
    "before a removal": (os, "unlink", lambda original, *_: None),
}


def _arm(moment: str, call: int) -> None:
    """Make this process kill itself at the given call of the moment's function."""
    owner, name, last_act = MOMENTS[moment]
    original, calls = getattr(owner, name), 0

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            last_act(original, *arguments)
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)

    setattr(owner, name, counted)


def kill_runs(kills: int, seed: int, folder: Path) -> dict[str, Any]:
    """Kill training processes and compare what they end with.

    Args:
        kills: Kills in all; processes that finish before theirs do not count.
        seed: Of instants and moments.
        folder: One sub-folder per run and ``undisturbed``.

    Returns:
        ``kills``, ``kills_by_cause``, ``runs`` and ``identical``.
    """
    processes = multiprocessing.get_context("forkserver")  # imports torch once, forks every worker
    # AdamW imports torch._dynamo at its first step, which takes longer than this training.
    preloaded = ["torch._dynamo", "safetensors.torch", "condvae.training.conditioning"]
    processes.set_forkserver_preload(preloaded)

    def start(run: Path, *arguments: Any) -> Any:
        process = processes.Process(target=train, args=(run, *arguments))
        process.start()
        return process

    def finish(run: Path) -> tuple[bytes, bytes]:
        process = start(run)
        process.join()
        if process.exitcode != 0:
            raise RuntimeError(f"{run.name}: training ended with status {process.exitcode}")
        return (run / WEIGHTS).read_bytes(), (run / METRICS).read_bytes()

    expected = finish(folder / "undisturbed")
    started = time.perf_counter()
    identical = finish(folder / "undisturbed-again") == expected
    seconds = time.perf_counter() - started
    rng = random.Random(seed)
    by_cause: Counter[str] = Counter()
    runs = 0
    while by_cause.total() < kills:
        run = folder / f"run-{runs}"
        while by_cause.total() < kills:
            cause = rng.choice([RANDOM_INSTANT] * len(MOMENTS) + list(MOMENTS))
            if cause == RANDOM_INSTANT:
                process = start(run)
                process.join(rng.uniform(0.0, seconds))
                process.kill()
            else:
                process = start(run, cause, rng.randint(1, 6))
            process.join()
            if process.exitcode not in (0, -signal.SIGKILL):
                raise RuntimeError(f"{run.name}: training ended with status {process.exitcode}")
            if (run / WEIGHTS).exists():
                break
            by_cause[cause] += 1
        identical &= finish(run) == expected
        runs += 1
    return {
        "kills": by_cause.total(),
        "kills_by_cause": dict(sorted(by_cause.items())),
        "runs": runs,
        "identical": identical,
    }


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100, help="kills in all (100)")
    parser.add_argument("--seed", type=int, default=0, help="of instants and moments (0)")
    parser.add_argument("--folder", type=Path, help="keep all runs here (a new, empty folder)")
    parser.add_argument("--train", type=Path, help="only train in this folder, undisturbed")
    options = parser.parse_args(arguments)
    if options.train:
        train(options.train)
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        report = kill_runs(options.kills, options.seed, options.folder or Path(temporary))
    print(json.dumps(report, indent=2))
    return 0 if report["identical"] else 1


if __name__ == "__main__":
    sys.exit(main())
