"""The training loop: idempotent, resumable, deterministic on one machine.

`fit` may be killed at any instant; called again with the same arguments it goes on from the newest
checkpoint and ends with the same weights. Called once more when finished, it does nothing. Where a run
without a checkpoint starts is decided in `condvae.training.start`.

A run that diverges may go back to a checkpoint (`TrainingConfig.max_restarts`). The checkpoint says so
before training goes on, and a kill changes nothing here either.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from condvae.ground.devices import explain_out_of_memory
from condvae.ground.files import open_atomic
from condvae.training.callbacks import Callback
from condvae.training.config import TrainingConfig
from condvae.training.ema import WeightAverage
from condvae.training.guard import TrainingDivergedError, UpdateGuard
from condvae.training.start import Start, begin_run, check_start
from condvae.training.state import CheckpointFolder

__all__ = ["FitResult", "Objective", "fit", "learning_rate_at"]

RESTART_FACTOR = 0.5  # of the learning rate

log = logging.getLogger(__name__)


class Objective(Protocol):
    """What is trained and how its loss is computed."""

    @property
    def name(self) -> str:
        """Shown beside the progress bar."""
        ...

    @property
    def section(self) -> str:
        """Name of the parameters that set its `TrainingConfig`, for messages."""
        ...

    @property
    def module(self) -> nn.Module:
        """Its parameters that require gradients are trained."""
        ...

    def loss(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one step and metrics to log; a pure function of the weights and `step`.

        `step` chooses data and noise. After a restart it is beyond the run's last step.
        """
        ...

    def validate(self) -> dict[str, float]:
        """Scores on held-out images, with the averaged weights in place; always the same images."""
        ...


@dataclass(frozen=True)
class FitResult:
    """What training gave.

    Attributes:
        weights: Averaged trainable weights by name.
        history: One record per logged step: ``step, images_seen`` and metrics. `images_seen` counts
            every step at this run's batch size, those of a resumed run too, but none that a restart
            has undone.
        resumed_from: Step the run started from in this process.
        images_per_second: Over this process's steps, None when there were none.
    """

    weights: dict[str, Tensor]
    history: list[dict[str, float]]
    resumed_from: int
    images_per_second: float | None


def learning_rate_at(config: TrainingConfig, step: int, restarts: int = 0) -> float:
    """Rate of 0-based `step`: linear warm-up, then constant or half a cosine down to zero.

    Each of `restarts` halves it.
    """
    rate = config.learning_rate * RESTART_FACTOR**restarts
    if step < config.warmup_steps:
        return rate * (step + 1) / config.warmup_steps
    if config.schedule == "cosine":
        span = max(1, config.steps - config.warmup_steps)
        rate *= 0.5 * (1.0 + math.cos(math.pi * (step - config.warmup_steps) / span))
    return rate


class _History:
    """Metric records in ``metrics.jsonl``; on resume, records after the checkpoint are dropped."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self.records: list[dict[str, float]] = []
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    record = json.loads(line)
                except json.JSONDecodeError:
                    break  # the line a kill cut short is the last one
                if record["step"] <= step:
                    self.records.append(record)
        with open_atomic(path) as file:
            for record in self.records:
                file.write((json.dumps(record) + "\n").encode())

    def append(self, record: dict[str, float]) -> None:
        self.records.append(record)
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")


class _Run:
    """State of one `fit` call."""

    def __init__(self, config: TrainingConfig, objective: Objective) -> None:
        self.config = config
        self.objective = objective
        self.parameters = [p for p in objective.module.parameters() if p.requires_grad]
        if not self.parameters:
            raise ValueError(f"objective {objective.name!r} has no trainable parameters")
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
        )
        self.average = WeightAverage(objective.module, config.ema_decay, warmup=config.ema_warmup)
        self.guard = UpdateGuard(config)
        self.step = 0
        self.restarts: list[int] = []  # steps of the checkpoints that were gone back to
        self.updates = 0  # in this process

    @property
    def name(self) -> str:
        return self.objective.name

    @property
    def module(self) -> nn.Module:
        return self.objective.module

    def update(self) -> dict[str, Tensor | float]:
        """One optimisation step; returns its metrics."""
        restarts = len(self.restarts)
        rate = learning_rate_at(self.config, self.step, restarts)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss, metrics = self.objective.loss(self.step + restarts * self.config.steps)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm))
        if self.guard.take(norm):
            self.optimizer.step()
            self.average.update(self.step)
        self.step += 1
        self.updates += 1
        return {
            **metrics,
            "loss": loss.detach(),
            "learning_rate": rate,
            "gradient_norm": norm,
            "skipped_updates": float(self.guard.skipped),
            **({"restarts": float(restarts)} if self.config.max_restarts else {}),
        }

    def state(self) -> dict[str, Any]:
        return {
            "trainable": {n: p.detach().clone() for n, p in self._trainable().items()},
            "average": dict(self.average.values),
            "optimizer": self.optimizer.state_dict(),
            "guard": self.guard.state_dict(),
            "restarts": list(self.restarts),
        }

    def save(self, folder: CheckpointFolder) -> None:
        """Write a checkpoint that training can go back to.

        Raises:
            TrainingDivergedError: Weights or their averages are not finite; nothing is written.
        """
        weights = (*self.parameters, *self.average.values.values())
        # One answer for all of them: a GPU is waited for once.
        if not bool(torch.stack([values.isfinite().all() for values in weights]).all()):
            raise TrainingDivergedError(
                f"weights are not finite after {self.step} steps: lower learning_rate or "
                "clip_norm; the last checkpoint holds the weights before"
            )
        folder.save(self.step, self.state())
        self.guard.mark_checkpoint()

    def load(self, state: Mapping[str, Any]) -> None:
        self.take(state["trainable"])
        self.average.load(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        for group in self.optimizer.param_groups:  # another run's may differ
            group.update(betas=self.config.betas, weight_decay=self.config.weight_decay)
        self.guard.load_state_dict(state["guard"])
        self.restarts = list(state.get("restarts", []))  # older checkpoints have none
        self.step = int(state["step"])

    def take(self, weights: Mapping[str, Tensor]) -> None:
        own = self._trainable()
        with torch.no_grad():
            for name, value in weights.items():
                own[name].copy_(value)
        # The average of what was never updated is what it started as.
        self.average.load(own)

    def _trainable(self) -> dict[str, Tensor]:
        return {n: p for n, p in self.module.named_parameters() if p.requires_grad}


def fit(
    config: TrainingConfig,
    objective: Objective,
    run_dir: Path,
    fingerprint: str,
    *,
    start: Start | None = None,
    callbacks: Sequence[Callback] = (),
) -> FitResult:
    """Train the parameters of `objective.module` that require gradients.

    Args:
        config: Optimisation settings.
        objective: Loss and validation.
        run_dir: Checkpoints and ``metrics.jsonl`` go here.
        fingerprint: Hash of all that decides the outcome; guards `run_dir` against mixing runs.
        start: Where the run starts when `run_dir` holds no checkpoint; None = the module as it is.
        callbacks: Listeners (progress, tracking).

    Returns:
        The averaged weights and the history.

    Raises:
        ConfigurationError: `run_dir` belongs to another run or is in use, `start` does not fit, or
            memory ran out.
        TrainingDivergedError: The run has diverged, and `config.max_restarts` restarts were of no
            help.
    """
    run = _Run(config, objective)
    start = start or Start()
    check_start(start, run.module, config.steps, objective.section)
    folder = CheckpointFolder(
        run_dir, fingerprint, {"identity": start.identity, "source": start.path}
    )
    with folder.locked():
        begin_run(run, folder, start)
        return _fit(run, folder, callbacks)


def _fit(run: _Run, folder: CheckpointFolder, callbacks: Sequence[Callback]) -> FitResult:
    """Go on from where the run is to the last step, going back where it diverges."""
    if run.config.max_restarts and not folder.path_of(run.step).exists():
        run.save(folder)  # something to go back to, however early it diverges
    resumed_from, started = run.step, time.perf_counter()
    while True:
        try:
            history = _advance(run, folder, callbacks)
            break
        except TrainingDivergedError as error:
            _go_back(run, folder, error)
    seen = run.updates * run.config.batch_size
    rate = seen / (time.perf_counter() - started) if seen else None
    return FitResult(dict(run.average.values), history, resumed_from, rate)


def _go_back(run: _Run, folder: CheckpointFolder, error: TrainingDivergedError) -> None:
    """Put the run back to its newest checkpoint, or the one before where the newest was tried last."""
    tried = run.restarts
    if not run.config.max_restarts:
        raise error
    if len(tried) >= run.config.max_restarts:
        steps = ", ".join(map(str, tried))
        raise TrainingDivergedError(f"{error} (it was restarted from steps {steps})") from error
    diverged_at, state = run.step, folder.load_latest()
    if state is not None and tried and state["step"] == tried[-1]:
        state = folder.load_latest(before=tried[-1]) or state
    if state is None:
        raise error
    run.load(state)
    run.restarts = [*tried, run.step]
    run.guard.start_again()
    run.save(folder)
    log.warning(
        "%s diverged at step %d (%s): restart %d of %d, from step %d at %g times the learning rate",
        *(run.name, diverged_at, error, len(run.restarts), run.config.max_restarts, run.step),
        RESTART_FACTOR ** len(run.restarts),
    )


def _advance(
    run: _Run, folder: CheckpointFolder, callbacks: Sequence[Callback]
) -> list[dict[str, float]]:
    """Train to the last step and return the history."""
    config, objective = run.config, run.objective
    history = _History(folder.folder / "metrics.jsonl", run.step)
    is_due = False
    for callback in callbacks:
        callback.on_start(objective.name, run.step, config.steps, config.batch_size)
    try:
        with explain_out_of_memory(f"{objective.section}.batch_size", config.batch_size):
            while run.step < config.steps:
                metrics = run.update()
                last = run.step == config.steps
                for callback in callbacks:
                    callback.on_step(run.step)
                validate = last or (
                    config.validate_every > 0 and run.step % config.validate_every == 0
                )
                if validate or run.step % config.log_every == 0:
                    _record(run, metrics, history, callbacks, validate=validate)
                is_due = is_due or run.step % config.checkpoint_every == 0
                if last or (is_due and run.guard.is_calm):
                    run.save(folder)
                    is_due = False
    finally:
        for callback in callbacks:
            callback.on_end()
    return history.records


def _record(
    run: _Run,
    metrics: Mapping[str, Tensor | float],
    history: _History,
    callbacks: Sequence[Callback],
    *,
    validate: bool,
) -> None:
    """Write one history record and tell the callbacks."""
    values = {f"train/{name}": float(value) for name, value in metrics.items()}
    if validate:
        with run.average.applied(), torch.no_grad():
            scores = run.objective.validate()
        values.update({f"validation/{name}": float(value) for name, value in scores.items()})
    values = {name: value for name, value in values.items() if math.isfinite(value)}
    history.append({"step": run.step, "images_seen": run.step * run.config.batch_size, **values})
    for callback in callbacks:
        callback.on_metrics(run.step, values)
