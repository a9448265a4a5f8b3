"""Nodes that train, judge and compare the rungs of the ladder."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from condvae.cvae.evaluation import EvaluationSettings, evaluate
from condvae.cvae.generation import sample
from condvae.cvae.training import TrainingImages, train_cvae
from condvae.evaluation.learning_curves import keep_result
from condvae.ground.configuration import read_config
from condvae.ground.devices import resolve_device
from condvae.ground.images import DataContract
from condvae.scores.attribute_classifier import AttributeNetwork, load_attribute_classifier
from condvae.training import TrainingConfig
from pipelines.attributes.nodes import (
    StageMetrics,
    contract_of,
    metric_names,
    open_attributed,
)
from pipelines.attributes.tables import AttributedImages
from pipelines.attributes_ladder.tables import tabulate_contributions, tabulate_rungs
from pipelines.parameters import LadderConfig, Rung
from pipelines.runs import tracking

__all__ = ["compare_rungs", "run_ladder"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Bench:
    """What all rungs have in common."""

    known: AttributedImages
    images: TrainingImages
    contract: DataContract
    judge: AttributeNetwork
    judge_sha256: str
    extractor: str
    evaluation: EvaluationSettings
    shown: int
    device: torch.device
    folder: Path


def run_ladder(
    image_store: dict[str, Any],
    attribute_table: pd.DataFrame,
    attribute_facts: dict[str, Any],
    attribute_classifier: dict[str, Any],
    cvae: dict[str, Any],
    cvae_training: dict[str, Any],
    prior_training: dict[str, Any],
    ladder: dict[str, Any],
    folders: dict[str, str],
    device: str,
    seed: int,
) -> tuple[pd.DataFrame, dict[str, NDArray[np.uint8]]]:
    """Train and judge every rung with every seed, those that are done already excepted.

    Each run has a file of its own, so that a ladder that was stopped goes on where it was.

    Returns:
        The rows of every run, and samples of each rung of the first seed.
    """
    config = read_config(LadderConfig, ladder, "ladder")
    known = open_attributed(image_store, attribute_table, attribute_facts)
    place = resolve_device(device)
    network, card = load_attribute_classifier(attribute_classifier["folder"], place)
    bench = _Bench(
        known,
        known.training_images(),
        contract_of(image_store),
        network,
        card.sha256,
        card.extractor,
        config.evaluation,
        config.shown,
        place,
        Path(folders["ladder"]),
    )
    stages = (
        read_config(TrainingConfig, cvae_training, "cvae_training"),
        read_config(TrainingConfig, prior_training, "prior_training"),
    )
    rungs = config.list_rungs(cvae)
    tables, samples = [], {}
    # Seed by seed, so that a ladder that is stopped early has compared all rungs.
    for number in range(seed, seed + config.seeds):
        for rung in rungs:
            own = config.split_steps(rung, *stages)
            facts = {"rung": rung.name, "training": rung.stage, "seed": number}
            with tracking.nested_run(f"{rung.label} {number}", facts):
                found = _run_rung(bench, rung, *own, number)
                tracking.log_metrics(metric_names(found["rows"]))
            rows = pd.DataFrame.from_records(found["rows"])
            tables.append(rows.assign(rung=rung.name, stage=rung.stage, seed=number))
            if number == seed:
                samples[rung.label.replace("/", " ")] = np.array(found["samples"], np.uint8)
            log.info("%s, seed %d: done", rung.label, number)
    return pd.concat(tables, ignore_index=True), samples


def compare_rungs(
    ladder_results: pd.DataFrame, ladder: dict[str, Any]
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Tabulate means over seeds, twice, and what each ingredient contributes; log the means."""
    config = read_config(LadderConfig, ladder, "ladder")
    table = tabulate_rungs(ladder_results)
    tracking.log_metrics(
        {f"ladder/{r.rung}/{r.stage}/{r.metric}": float(str(r.value)) for r in table.itertuples()}
    )
    return table, table, tabulate_contributions(ladder_results, config.contributions)


def _run_rung(
    bench: _Bench, rung: Rung, training: TrainingConfig, prior_training: TrainingConfig, seed: int
) -> dict[str, Any]:
    """The result of one run, from its file if it is there: `rows` and `samples` (K,H,W,C)."""
    identity = {
        "model": dataclasses.asdict(rung.config),
        "contract": dataclasses.asdict(bench.contract),
        "training": [training.facts(), prior_training.facts()],
        "judge": bench.judge_sha256,
        "evaluation": dataclasses.asdict(bench.evaluation),
        "shown": bench.shown,
        "seed": seed,
        **bench.images.identity(),
    }

    def work() -> dict[str, Any]:
        run = train_cvae(
            rung.config,
            bench.contract,
            bench.images,
            training,
            prior_training,
            bench.folder / "training",
            seed=seed,
            device=bench.device,
            callbacks=(tracking.ProgressBar(), StageMetrics()),
        )
        return _judge(bench, run.model)

    path = bench.folder / "results" / f"{rung.name}-{rung.stage}-{seed}.json"
    found: dict[str, Any] = keep_result(path, identity, work)
    return found


def _judge(bench: _Bench, model: Any) -> dict[str, Any]:
    known, settings = bench.known, bench.evaluation
    rows = known.rows("test")
    y = known.table.rows(rows).to(bench.device)
    held = known.held_out[rows]
    found = evaluate(
        model,
        known.pixels(rows).to(bench.device),
        y,
        bench.judge,
        extractor=bench.extractor,
        sample=sample,
        held_out=held if held.any() else None,
        settings=settings,
    )
    drawn = sample(model, y[: bench.shown], 1, settings.seed, temperature=settings.temperature)[0]
    return {
        "rows": [_as_json(row) for row in found],
        "samples": drawn.movedim(1, -1).tolist(),
    }


def _as_json(row: Mapping[str, Any]) -> dict[str, Any]:
    """Without nan, which JSON does not have."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }
