"""Put the scores of a posterior that was trained here on its card."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from condvae.evaluation.bins import POOLED
from condvae.models.card import record_scores
from pipelines.evaluation.agreement import check_scores_are_of

__all__ = ["record_scores_node"]

SAMPLER = "ipa"

log = logging.getLogger(__name__)


def record_scores_node(
    image_store: Mapping[str, Any],
    posterior: Mapping[str, Any],
    evaluation_manifest: Mapping[str, Any],
    metrics: pd.DataFrame,
    calibration: Mapping[str, Any],
    folders: Mapping[str, str],
    evaluation_facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the pooled scores of the trained posterior to its folder.

    Only this project's last posterior is written to: models of the package, of the hub or in folders
    of one's own stay as they are.

    Returns:
        `folder`, and `recorded`: whether anything was written.
    """
    check_scores_are_of(evaluation_facts, posterior, evaluation_manifest)
    folder = Path(posterior["folder"])
    own = folder.resolve() == (Path(folders["inpaint"]) / "posterior").resolve()
    rows = metrics[(metrics["sampler"] == SAMPLER) & (metrics["bin"] == POOLED)]
    recorded = own and len(rows) > 0
    if recorded:
        scores = _describe_scores(image_store, evaluation_manifest, rows, calibration)
        card = record_scores(folder, posterior["sha256"], evaluation_manifest["size"], scores)
        log.info("scores of %d cases written to %s", evaluation_manifest["cases"], card)
    return {"folder": str(folder), "recorded": recorded}


def _describe_scores(
    image_store: Mapping[str, Any],
    manifest: Mapping[str, Any],
    rows: pd.DataFrame,
    calibration: Mapping[str, Any],
) -> dict[str, Any]:
    first = rows.iloc[0]
    numbers = ("value", "low", "high", "standard_error")
    verdict = ((calibration.get(SAMPLER) or {}).get("verdicts") or {}).get(POOLED)
    return {
        "manifest": manifest["sha256"],
        "cases": manifest["cases"],
        "completions": manifest["completions"],
        "temperature": _finite(first["temperature"]),
        "seed": int(first["seed"]),
        "level": float(first["level"]),
        "data": {name: image_store[name] for name in ("name", "fingerprint")},
        "metrics": [
            {
                "metric": str(row["metric"]),
                **{name: _finite(row[name]) for name in numbers},
                "n": int(row["n"]),
                "extractor": str(row["extractor"]),
            }
            for _, row in rows.iterrows()
        ],
        "calibration": verdict and {name: verdict[name] for name in ("words", "summary", "n")},
    }


def _finite(value: Any) -> float | None:
    """A number as JSON has it."""
    return float(value) if value is not None and math.isfinite(value) else None
