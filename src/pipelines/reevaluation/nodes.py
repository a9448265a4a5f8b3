"""Nodes that re-evaluate the registered champion.

Every step keeps what it has found in a folder named after everything that decides it. The same command
after a kill goes on where it was; with the same inputs it finds what is there.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from condvae.data.store import open_images
from condvae.evaluation.monitoring import NOTED, Finding, reach_verdict
from condvae.ground.configuration import read_config
from condvae.ground.devices import resolve_device
from condvae.ground.files import fingerprint
from condvae.masks.sampling import MaskConfig
from pipelines.evaluation.judging import Bench, open_bench
from pipelines.parameters import EvaluationConfig, ReevaluationConfig, SamplingConfig
from pipelines.reevaluation.arrivals import (
    describe_files,
    list_arrivals,
    quarantine,
    read_arrivals,
)
from pipelines.reevaluation.champion import (
    check_environment,
    check_manifest,
    check_weights,
    describe_manifest,
    environment,
)
from pipelines.reevaluation.drift import judge_arrivals
from pipelines.reevaluation.found import VERDICT, Found, announce, keep, list_metrics
from pipelines.reevaluation.judging import judge_again
from pipelines.runs import tracking
from pipelines.runs.registry import open_registered, registered_name

log = logging.getLogger(__name__)
VERSION = 1  # raise it when verdicts change their meaning


def open_champion(
    image_store: dict[str, Any],
    reevaluate: dict[str, Any],
    data: dict[str, Any],
    task: dict[str, Any],
    masks: dict[str, Any],
    sampling: dict[str, Any],
    evaluation: dict[str, Any],
    folders: dict[str, str],
    device: str,
) -> Found:
    """Find the champion, check it, and put together everything that the verdict depends on."""
    config = read_config(ReevaluationConfig, reevaluate, "reevaluate")
    name = registered_name(task["name"], data["name"], task.get("options"))
    registered = open_registered(name)
    images = open_images(Path(image_store["folder"]))
    card, findings = check_weights(registered)
    findings += check_manifest(registered, images)
    usable = not findings
    manifest = None
    if usable:
        own = {"name": card["task"], "options": card.get("task_options", {})}
        manifest = describe_manifest(
            registered, config, image_store, evaluation, masks, own, folders
        )
        task = own
    new = {} if config.new_data is None else list_arrivals(Path(config.new_data))
    decides = {
        "version": VERSION,
        "champion": [registered.name, registered.version, registered.posterior_sha256],
        "served": [registered.temperature, registered.guidance],
        "problems": [finding.message for finding in findings],
        "manifest": manifest and manifest["sha256"],
        "data": image_store["fingerprint"],
        "parameters": [
            *(asdict(replace(config, new_data=None, folder="", wait_seconds=0.0)), evaluation),
            *(masks, {**sampling, "batch_size": 0}, task),
        ],
        "environment": {**environment(), "device": resolve_device(device).type},
    }
    # Scores of the frozen cases do not depend on what has arrived.
    scores_key = fingerprint(decides)
    key = fingerprint({"scores": scores_key, "new_data": config.new_data and new})
    results = Path(config.folder) / "results"
    findings += check_environment(registered)
    inputs = {
        "key": key,
        "folder": (results / key[:16]).as_posix(),
        "scores_folder": (results / scores_key[:16]).as_posix(),
        "usable": usable,
        "champion": {
            "name": registered.name,
            "version": registered.version,
            "reason": registered.reason,
            "sha256": registered.posterior_sha256,
            "temperature": registered.temperature,
            "guidance": registered.guidance,
            "environment": registered.environment,
            "k": registered.facts.get("k"),
        },
        "posterior": {"folder": str(registered.folder), "sha256": registered.posterior_sha256},
        "task": task,
        "manifest": manifest,
        "data": {key: image_store[key] for key in ("name", "fingerprint", "count")},
        "new_data": config.new_data,
        "arrived": list(new),
        "arrived_sha256": fingerprint(new),
        "environment": decides["environment"],
        "findings": [asdict(finding) for finding in findings],
    }
    announce(inputs)
    return inputs


def evaluate_champion(
    reevaluation_inputs: Found,
    image_store: dict[str, Any],
    feature_network: dict[str, Any],
    reevaluate: dict[str, Any],
    sampling: dict[str, Any],
    evaluation: dict[str, Any],
    folders: dict[str, str],
    device: str,
) -> Found:
    """Score the champion on its frozen cases and compare with its scores at registration."""

    def find() -> Found:
        if not reevaluation_inputs["usable"]:
            return {"comparisons": [], "metrics": [], "calibration": None, "findings": []}
        config = read_config(ReevaluationConfig, reevaluate, "reevaluate")
        how = read_config(SamplingConfig, sampling, "sampling")
        bench = _open_bench(
            reevaluation_inputs, image_store, feature_network, evaluation, folders, device
        )
        return judge_again(bench, reevaluation_inputs, config, how, device)

    return keep(reevaluation_inputs["scores_folder"], "evaluation", find)


def inspect_arrivals(
    reevaluation_inputs: Found, image_store: dict[str, Any], reevaluate: dict[str, Any]
) -> Found:
    """Check every picture that has arrived; copy those that cannot be used into the quarantine."""

    def find() -> Found:
        config = read_config(ReevaluationConfig, reevaluate, "reevaluate")
        names, folder = reevaluation_inputs["arrived"], Path(config.new_data or "")
        if config.new_data is None:
            return {"files": 0, "usable": [], "rejected": {}, "findings": []}
        found = read_arrivals(folder, names, open_images(Path(image_store["folder"])))
        place = Path(config.folder) / "quarantine" / reevaluation_inputs["key"][:16]
        if found.rejected:
            quarantine(folder, found.rejected, place)
        return {
            "files": len(names),
            "usable": list(found.names),
            "rejected": found.rejected,
            "quarantine": place.as_posix() if found.rejected else None,
            "findings": [
                asdict(finding)
                for finding in describe_files(
                    folder, len(names), len(found.names), found.known, config
                )
            ],
        }

    return keep(reevaluation_inputs["folder"], "arrivals", find)


def measure_arrivals(
    reevaluation_inputs: Found,
    reevaluation_arrivals: Found,
    image_store: dict[str, Any],
    feature_network: dict[str, Any],
    reevaluate: dict[str, Any],
    masks: dict[str, Any],
    sampling: dict[str, Any],
    evaluation: dict[str, Any],
    folders: dict[str, str],
    device: str,
) -> Found:
    """Test new pictures for drift, and score the champion on them."""

    def find() -> Found:
        config = read_config(ReevaluationConfig, reevaluate, "reevaluate")
        names = reevaluation_arrivals["usable"]
        if not reevaluation_inputs["usable"] or len(names) < config.least_images:
            return {"drift": None, "scores": None, "findings": []}
        bench = _open_bench(
            reevaluation_inputs, image_store, feature_network, evaluation, folders, device
        )
        how = read_config(SamplingConfig, sampling, "sampling")
        mask_config = bench.task.choose_masks(read_config(MaskConfig, masks, "masks"))
        return judge_arrivals(bench, reevaluation_inputs, names, config, mask_config, how, device)

    return keep(reevaluation_inputs["folder"], "drift", find)


def conclude(
    reevaluation_inputs: Found,
    reevaluation_scores: Found,
    reevaluation_arrivals: Found,
    reevaluation_drift: Found,
) -> Found:
    """Reach the verdict, with reasons."""

    def find() -> Found:
        parts = (
            *(reevaluation_inputs, reevaluation_scores),
            *(reevaluation_arrivals, reevaluation_drift),
        )
        findings = [Finding(**finding) for part in parts for finding in part["findings"]]
        verdict, reasons = reach_verdict(findings)
        return {
            "verdict": verdict,
            "reasons": [asdict(finding) for finding in reasons],
            "notes": [asdict(finding) for finding in findings if finding.weight == NOTED],
            "champion": reevaluation_inputs["champion"],
            "manifest": reevaluation_inputs["manifest"],
            "data": reevaluation_inputs["data"],
            "new_data": reevaluation_inputs["new_data"],
            "environment": reevaluation_inputs["environment"],
            "key": reevaluation_inputs["key"],
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    verdict = keep(reevaluation_inputs["folder"], VERDICT, find)
    first = next((reason["message"] for reason in verdict["reasons"]), "nothing has changed")
    log.info("re-evaluation: %s: %s", verdict["verdict"], first)
    tracking.log_metrics(
        list_metrics(reevaluation_scores, reevaluation_arrivals, reevaluation_drift)
    )
    return verdict


def _open_bench(
    inputs: Found,
    image_store: dict[str, Any],
    feature_network: dict[str, Any],
    evaluation: dict[str, Any],
    folders: dict[str, str],
    device: str,
) -> Bench:
    """The bench, with scores of its own: those of other evaluations say nothing about today."""
    settings = read_config(EvaluationConfig, evaluation, "evaluation")
    bench = open_bench(
        *(image_store, inputs["manifest"], feature_network, settings),
        *(inputs["task"], folders, device),
    )
    return replace(bench, folder=Path(inputs["scores_folder"]) / "scores")
