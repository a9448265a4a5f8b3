"""The champion's scores on its frozen cases, now and when it was registered."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from condvae import evaluation as ev
from condvae.evaluation.bins import POOLED
from condvae.evaluation.monitoring import (
    DEGRADED,
    JUDGED,
    NOTED,
    CoverageChange,
    Finding,
    ScoreChange,
    compare_coverage,
    compare_scores,
    find_new_faults,
)
from condvae.ground.files import open_atomic, write_json
from condvae.models.folder import read_card
from condvae.scores.definitions import METRICS
from pipelines.evaluation.judging import Bench, Judgement, judge_samplers
from pipelines.parameters import ReevaluationConfig, SamplingConfig
from pipelines.reevaluation.found import REGISTERED
from pipelines.runs.registry import RegisteredPosterior, open_version, store_baseline

__all__ = ["assess", "compare_with_baseline", "compare_with_card", "judge_again", "own_sampling"]

PROJECT = "project"
SERVED = {
    REGISTERED: "the registered model",
    PROJECT: "the model under this project's parameters `sampling`",
}
"""Who draws: the model as it was registered; and as this project draws now, where that differs."""
SAME = 1e-6
"""Scores per case that differ by less, relative to the largest, are called equal."""

log = logging.getLogger(__name__)


def _judge_champion(
    bench: Bench,
    inputs: Mapping[str, Any],
    sampling: SamplingConfig,
    device: str,
) -> dict[str, Judgement]:
    """Score the model at the temperatures that it is used at.

    Args:
        bench: Its cases; intermediate scores are kept in its folder.
        inputs: Of the re-evaluation.
        sampling: Of the project.
        device: Where to compute.
    """
    own = own_sampling(inputs, sampling)
    judged = {}
    for name, how in ((REGISTERED, own), (PROJECT, sampling)):
        if name == REGISTERED or how != own:
            judged[name] = judge_samplers(
                bench,
                ("ipa",),
                inputs["posterior"],
                how,
                completions=inputs["manifest"]["completions"],
                bound_draws=(),
                device=device,
            )["ipa"]
    return judged


def own_sampling(inputs: Mapping[str, Any], sampling: SamplingConfig) -> SamplingConfig:
    """How the registered model draws."""
    champion = inputs["champion"]
    return replace(sampling, temperature=champion["temperature"], guidance=champion["guidance"])


def assess(bench: Bench, judgement: Judgement) -> dict[str, Any]:
    """Calibration of one source, see `condvae.evaluation.assess_calibration`."""
    return ev.assess_calibration(
        judgement.scores,
        bench.cases,
        bench.labels,
        completions=judgement.source.completions,
        classes=len(bench.image_store["class_names"]),
        seed=bench.settings.seed,
    )


def compare_with_baseline(
    name: str,
    table: Mapping[str, Any],
    calibration: Mapping[str, Any],
    baseline: Mapping[str, Any],
    calibration_before: Mapping[str, Any],
    config: ReevaluationConfig,
    seed: int,
) -> tuple[dict[str, Any], list[Finding]]:
    """Compare the scores and the calibration of one way of drawing with those at registration."""
    samplers = {"sampler_now": name, "sampler_before": REGISTERED}
    how: dict[str, Any] = {**samplers, "level": config.level, "seed": seed}
    scores = compare_scores(table, baseline, tolerance=config.tolerance, **how)
    coverage = compare_coverage(table, baseline, tolerance=config.coverage_tolerance, **how)
    verdicts = [found["verdicts"][POOLED] for found in (calibration, calibration_before)]
    faults = find_new_faults(*(verdict["words"] for verdict in verdicts))
    who = SERVED[name]
    findings = [
        Finding(DEGRADED, "scores", f"{who}: {change.message}") for change in scores if change.worse
    ]
    if coverage.worse:
        findings.append(Finding(DEGRADED, "calibration", f"{who}: {coverage.message}"))
    equal = _largest_difference(table, baseline, name) < SAME
    if faults and not equal:
        message = (
            f"{who}: completions are {', '.join(faults)} now, which they were not at registration. "
            f"Now: {verdicts[0]['summary']} Then: {verdicts[1]['summary']}"
        )
        findings.append(Finding(DEGRADED, "calibration", message))
    return _describe(name, scores, coverage, equal, verdicts), findings


def _describe(
    name: str,
    scores: list[ScoreChange],
    coverage: CoverageChange,
    equal: bool,
    verdicts: list[Mapping[str, Any]],
) -> dict[str, Any]:
    return {
        "sampler": name,
        "drawn_by": SERVED[name],
        "equal": equal,
        "scores": [asdict(change) for change in scores],
        "coverage": asdict(coverage),
        "calibration_now": verdicts[0]["summary"],
        "calibration_before": verdicts[1]["summary"],
    }


def _largest_difference(now: Mapping[str, Any], before: Mapping[str, Any], name: str) -> float:
    """Of any score of any case, relative to the metric's largest; inf for other cases or metrics."""
    tables = []
    for table, sampler in ((now, name), (before, REGISTERED)):
        frame = pd.DataFrame(dict(table))
        frame = frame[frame["sampler"] == sampler]
        tables.append(frame.set_index(["metric", "case_id"])["value"])
    first, second = tables
    both = first.index.intersection(second.index)
    if not len(both):
        return float("inf")
    scale = second.loc[both].abs().groupby("metric").transform("max").to_numpy()
    gap = np.abs(first.loc[both].to_numpy() - second.loc[both].to_numpy())
    return float((gap / np.where(scale > 0, scale, 1.0)).max())


def _keep_baseline(
    registered: RegisteredPosterior,
    bench: Bench,
    table: Mapping[str, Any],
    calibration: Mapping[str, Any],
    inputs: Mapping[str, Any],
) -> list[Finding]:
    """Give a champion that was registered without an evaluation this one; say what its card has."""
    folder = Path(inputs["scores_folder"]) / "baseline"
    columns = pd.DataFrame(dict(table))
    with open_atomic(folder / "cases.parquet") as file:
        file.write(columns[columns["sampler"] == REGISTERED].to_parquet(index=False))
    write_json(folder / "calibration.json", {REGISTERED: dict(calibration)})
    facts = {
        **bench.facts,
        "k": inputs["manifest"]["completions"],
        "temperature": inputs["champion"]["temperature"],
        "guidance": inputs["champion"]["guidance"],
    }
    registered = store_baseline(
        registered,
        cases=folder / "cases.parquet",
        calibration=folder / "calibration.json",
        manifest=Path(inputs["manifest"]["path"]),
        facts=facts,
    )
    message = (
        f"{registered.name} version {registered.version} was registered without an evaluation: this "
        f"one, on {len(bench.cases)} cases, is what later ones are compared with"
    )
    return [Finding(NOTED, "baseline", message)]


def compare_with_card(
    card: Mapping[str, Any], metrics: pd.DataFrame, manifest: Mapping[str, Any], tolerance: float
) -> list[Finding]:
    """Compare a first evaluation with what the model's card says of the same cases, if anything.

    Args:
        card: Of the posterior.
        metrics: Table of the evaluation.
        manifest: Description of the cases.
        tolerance: Smallest change that counts, as a share of the card's score.
    """
    stated = (card.get("scores") or {}).get(manifest["size"]) or {}
    if stated.get("manifest") != manifest["sha256"]:
        return [Finding(NOTED, "card", "the model's card has no scores on these cases")]
    pooled = metrics[(metrics["sampler"] == REGISTERED) & (metrics["bin"] == POOLED)]
    found = {str(row.metric): float(str(row.value)) for row in pooled.itertuples()}
    return [
        Finding(
            DEGRADED,
            "scores",
            f"{METRICS[name].title}: {found[name]:.4g} now, {value:.4g} on the model's card",
        )
        for entry in stated["metrics"]
        if (name := entry["metric"]) in JUDGED and name in found
        if found[name] - (value := entry["value"]) > tolerance * abs(value)
    ]


def _read_baseline(registered: RegisteredPosterior) -> tuple[dict[str, Any], dict[str, Any]]:
    """Columns of the table of cases at registration, and the calibration of the posterior."""
    if registered.cases is None or registered.calibration is None:
        raise ValueError(f"{registered.name} version {registered.version} has no evaluation")
    frame = pd.read_parquet(registered.cases)
    columns = {str(name): frame[name].to_numpy() for name in frame}
    calibration: dict[str, Any] = json.loads(registered.calibration.read_text())[REGISTERED]
    return columns, calibration


def judge_again(
    bench: Bench,
    inputs: dict[str, Any],
    config: ReevaluationConfig,
    how: SamplingConfig,
    device: str,
) -> dict[str, Any]:
    """Score the champion again and compare; a champion without an evaluation gets this one.

    Args:
        bench: Its frozen cases.
        inputs: Of the re-evaluation.
        config: What counts as a change.
        how: This project draws.
        device: Where to compute.

    Returns:
        ``comparisons`` by way of drawing, ``metrics``, ``calibration`` and ``findings``.
    """
    judged = _judge_champion(bench, inputs, how, device)
    scores = {name: judgement.scores for name, judgement in judged.items()}
    columns = ev.list_case_scores(scores, bench.cases)
    table = {name: np.array(column) for name, column in columns.items()}
    calibration = {name: assess(bench, judgement) for name, judgement in judged.items()}
    facts = {**bench.facts, "k": inputs["manifest"]["completions"], "temperature": None}
    metrics = pd.DataFrame.from_records(
        ev.tabulate(scores, bench.cases, facts, level=bench.settings.level)
    )
    findings: list[Finding] = []
    # Not whatever is the champion by now: a training may have registered another meanwhile.
    version = inputs["champion"]["name"], inputs["champion"]["version"]
    registered = open_version(*version)
    if registered.manifest is None:
        card = read_card(registered.folder, "posterior")
        findings += _keep_baseline(registered, bench, table, calibration[REGISTERED], inputs)
        findings += compare_with_card(card, metrics, inputs["manifest"], config.tolerance)
    registered = open_version(*version)
    baseline, calibration_before = _read_baseline(registered)
    comparisons = []
    for name in judged:
        found, more = compare_with_baseline(
            *(name, table, calibration[name], baseline, calibration_before, config),
            bench.settings.seed,
        )
        comparisons.append(found)
        findings += more
    findings += _explain_served(registered, how, [f for f in findings if f.weight != NOTED])
    keys = ["metric", "bin", "sampler", "value", "standard_error", "low", "high", "n"]
    return {
        "comparisons": comparisons,
        "metrics": metrics[keys].to_dict("records"),
        "calibration": calibration[REGISTERED],
        "findings": [asdict(finding) for finding in findings],
    }


def _explain_served(
    registered: RegisteredPosterior, how: SamplingConfig, worse: list[Finding]
) -> list[Finding]:
    """Name temperatures and guidances that are not those of the evaluation at registration."""
    found = []
    served = {"the registry": registered, "the parameters `sampling`": how}
    for key in ("temperature", "guidance"):
        then = registered.facts.get(key)
        for who, now in served.items():
            value = getattr(now, key)
            if then is not None and value != then:
                message = (
                    f"{who} say{'s' if now is registered else ''} {key} {value:g}, the evaluation at "
                    f"registration was at {then:g}"
                )
                weight = worse[0].weight if worse else NOTED
                found.append(Finding(weight, key, message))
    return found
