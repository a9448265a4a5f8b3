"""Register what a run has trained and evaluated."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd

from condvae.ground.configuration import read_config
from condvae.ground.files import write_json
from condvae.models.folder import read_card
from pipelines.evaluation.agreement import check_scores_are_of
from pipelines.parameters import RegistryConfig
from pipelines.runs.provenance import check_weights
from pipelines.runs.registry import register
from pipelines.runs.tracking import git_state

__all__ = ["register_posterior"]


def register_posterior(
    posterior: Mapping[str, Any],
    evaluation_manifest: Mapping[str, Any],
    cases: pd.DataFrame,
    calibration: Mapping[str, Any],
    evaluation_facts: Mapping[str, Any],
    model_card: Mapping[str, Any],
    report_files: Mapping[str, Any],
    registry: Mapping[str, Any],
) -> dict[str, Any]:
    """Register the posterior with its evaluation; describe the version.

    Returns:
        ``registered``: False where the parameters say so; else also ``name``, ``version``, ``alias``
        (``none`` where that of weights registered before has moved on) and ``reason``.
    """
    del (
        model_card,
        report_files,
    )  # they come first: the card holds scores, the report cannot be lost
    rule = read_config(RegistryConfig, registry, "registry")
    if not rule.register:
        return {"registered": False}
    check_scores_are_of(evaluation_facts, posterior, evaluation_manifest)
    card = read_card(posterior["folder"], "posterior")
    check_weights(posterior, card)
    run = mlflow.active_run()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        cases.to_parquet(folder / "cases.parquet", index=False)
        write_json(folder / "calibration.json", calibration)
        found = register(
            posterior["folder"],
            task=posterior["task"],
            data=card["name"],
            cases=folder / "cases.parquet",
            calibration=folder / "calibration.json",
            manifest=Path(evaluation_manifest["path"]),
            facts={**evaluation_facts, "size": evaluation_manifest["size"]},
            run_id=None if run is None else run.info.run_id,
            # As it was evaluated, and trained: nodes may have been skipped since parameters changed.
            temperature=evaluation_facts["temperature"],
            guidance=evaluation_facts.get("guidance", 1.0),
            tags={"recipe": str(card.get("recipe", "unknown")), **git_state()},
            rule=rule,
        )
    return {
        "registered": True,
        "name": found.name,
        "version": found.version,
        "alias": "+".join(found.aliases) or "none",
        "reason": found.reason,
    }
