"""Runs of `central_claim.py`: training with a look at the bound, and seconds per step."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from central_claim_bench import ARMS, BATCH, Arm, Bench
from condvae.evaluation.learning_curves import LearningCurve, keep_result, spaced_steps
from condvae.ground.files import fingerprint
from condvae.ipa import ConditionalModel
from condvae.training import TrainingConfig, TrainingDivergedError, fit
from condvae.training.ema import WeightAverage
from condvae.training.objectives import ConditionalObjective

__all__ = ["Job", "find_costs", "on_grid"]

GRID = 16  # all steps at which a run may be looked at are multiples
FIRST = 32
GAIN = 0.005  # from scratch: over the last fifth
CALM = 2  # lengths in a row that must have levelled: single looks at the bound are noisy
ROUNDS, UPDATES = 30, 4  # of the measurement of seconds per step


class Watched:
    """An objective whose validation is the bound, at chosen steps only."""

    section = "training"

    def __init__(
        self, bench: Bench, objective: ConditionalObjective, model: ConditionalModel, name: str
    ) -> None:
        self.bench, self.objective, self.model, self.name = bench, objective, model, name
        self.points: set[int] = set()
        self.done = 0

    @property
    def module(self) -> nn.Module:
        """What is trained."""
        return self.objective.module

    def loss(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective's own."""
        self.done = step + 1
        return self.objective.loss(step)

    def validate(self) -> dict[str, float]:
        """The bound, and what `ipa_r` minimises itself; nothing between the chosen steps."""
        if self.done not in self.points:
            return {}
        bound = float(self.bench.score(self.model, self.bench.even)[1].mean())
        if self.objective.objective.name != "ipa_r":
            return {"bound": bound}
        return {"bound": bound, "own": self.objective.validate()["bound_nats"]}


class Bar:
    """Shows a run's progress."""

    def on_start(self, name: str, step: int, steps: int, batch_size: int) -> None:
        """Open the bar."""
        del batch_size
        self.bar = tqdm(
            total=steps, initial=step, desc=name, unit="step", mininterval=2, leave=False
        )

    def on_step(self, step: int) -> None:
        """One more."""
        del step
        self.bar.update()

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Show the last bound."""
        del step
        if "validation/bound" in metrics:
            self.bar.set_postfix(bound=f"{metrics['validation/bound']:.4f}")

    def on_end(self) -> None:
        """Close the bar."""
        self.bar.close()


@dataclass(frozen=True)
class Job:
    """A run of one arm: a trial of its rate, or to the end.

    Attributes:
        arm: Key of `ARMS`.
        rate: Learning rate.
        seed: Of initial weights, order, masks and noise.
        steps: At which it ends; the baseline from scratch may go on.
        longest: Most steps of that baseline; None = a trial.
    """

    arm: str
    rate: float
    seed: int
    steps: int
    longest: int | None = None

    @property
    def name(self) -> str:
        """Of files; a trial and the run that goes on from it share their checkpoints."""
        return f"{self.arm}-{self.rate:g}-{self.seed}"

    def run(self, bench: Bench) -> dict[str, Any]:
        """The result, from the folder if it is there."""
        kind = "trials" if self.longest is None else "ends"
        path = bench.setting.folder / kind / f"{self.name}.json"
        identity = {**bench.identity, "manifest": bench.manifest, "job": asdict(self)}
        identity |= {"arm": asdict(ARMS[self.arm]), "extractor": bench.extractor.name}
        result: dict[str, Any] = keep_result(path, identity, lambda: self._train(bench))
        return result

    def _train(self, bench: Bench) -> dict[str, Any]:
        arm = ARMS[self.arm]
        model = bench.new_model(arm, self.seed)
        steps, calm = self.steps, 0
        while True:
            config = train_settings(steps, self.rate)
            watched = Watched(
                bench, bench.objective(arm, model, config, self.seed), model, self.name
            )
            watched.points = {*spaced_steps(FIRST, steps), on_grid(0.8 * steps)}
            # Without `steps`: rates are constant, so that a longer run begins like a shorter one.
            settings = {**asdict(config), "steps": None}
            key = {**bench.identity, "arm": asdict(arm), "seed": self.seed, "training": settings}
            folder = bench.setting.folder / "training" / self.name
            try:
                result = fit(config, watched, folder, fingerprint(key), callbacks=[Bar()])
            except TrainingDivergedError:
                if self.longest is None:
                    return {"curve": [], "score": None}
                raise
            looks = [r for r in result.history if "validation/bound" in r and r["step"] <= steps]
            found = [(int(record["step"]), record["validation/bound"]) for record in looks]
            if self.longest is None:
                whole = bool(found) and found[-1][0] == steps
                score = looks[-1].get("validation/own", found[-1][1]) if whole else None
                return {"curve": found, "score": score}
            curve = LearningCurve(*zip(*found, strict=True))
            calm = calm + 1 if curve.has_levelled(GAIN) else 0
            levelled = arm.objective.name != "joint" or calm >= CALM
            if levelled or steps >= self.longest:
                if result.resumed_from > steps:
                    raise SystemExit(
                        f"{folder} holds {result.resumed_from} steps: remove it, or give more"
                    )
                break
            # The last fifth of the longer run is what is added.
            steps = min(self.longest, on_grid(1.25 * steps))
        with torch.no_grad():
            own = dict(watched.module.named_parameters())
            for name, value in result.weights.items():
                own[name].copy_(value)
        rates, bounds = bench.score(model, bench.even)
        return {
            "curve": found,
            "levelled": levelled,
            "bound": float(bounds.mean()),
            "bound_published_masks": float(bench.score(model, bench.as_published)[1].mean()),
            "rates": rates.round(4).tolist(),
            "frechet": bench.frechet(model),
        }


def on_grid(steps: float) -> int:
    """The nearest number of steps at which a run may be looked at."""
    return max(GRID, GRID * round(steps / GRID))


def train_settings(steps: int, rate: float) -> TrainingConfig:
    """Optimisation, the same for all arms but for the rate."""
    return TrainingConfig(
        steps=steps,
        batch_size=BATCH,
        learning_rate=rate,
        ema_decay=0.999,
        checkpoint_every=10 * GRID,
        log_every=10 * GRID,
        validate_every=GRID,
    )


def take_updates(bench: Bench, arm: Arm) -> Iterator[None]:
    """Train for ever, one step at a time."""
    config = train_settings(1, arm.rates[0])
    objective = bench.objective(arm, bench.new_model(arm, 0), config, 0)
    parameters = [p for p in objective.module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=arm.rates[0], betas=config.betas)
    average = WeightAverage(objective.module, config.ema_decay, warmup=True)
    for step in itertools.count():
        loss, _ = objective.loss(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm)
        optimizer.step()
        average.update(step)
        yield


def measure_costs(bench: Bench, arms: Sequence[str]) -> dict[str, dict[str, float]]:
    """Seconds per step of every arm, and their ratio to those of the first: medians over rounds."""
    updates = {name: take_updates(bench, ARMS[name]) for name in arms}
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    gpu = bench.device.type == "cuda"
    # Of the processor: what else runs takes less away from it than from the clock.
    clock = time.perf_counter if gpu else time.process_time
    for turn in tqdm(range(ROUNDS + 1), desc="seconds per step", leave=False):
        for name, update in updates.items():
            start = clock()
            for _ in range(UPDATES):
                next(update)
            if gpu:
                torch.cuda.synchronize(bench.device)
            if turn:  # the first is a warm-up
                seconds[name].append((clock() - start) / UPDATES)
    first = seconds[arms[0]]
    return {
        name: {
            "seconds": statistics.median(values),
            "ratio": statistics.median(a / b for a, b in zip(values, first, strict=True)),
        }
        for name, values in seconds.items()
    }


def find_costs(bench: Bench) -> dict[str, dict[str, float]]:
    """Costs of all arms, whichever are to be trained, measured once: they decide on steps."""
    parts = {name: asdict(arm) for name, arm in ARMS.items()}
    costs: dict[str, dict[str, float]] = keep_result(
        bench.setting.folder / "costs.json",
        {**bench.identity, "arms": parts},
        lambda: measure_costs(bench, list(ARMS)),
    )
    return costs
