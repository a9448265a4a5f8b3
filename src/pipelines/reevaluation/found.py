"""What a re-evaluation has found so far: a JSON file a step, in a folder named by what decides it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from condvae.evaluation.bins import POOLED
from condvae.ground.files import write_json

__all__ = ["REGISTERED", "VERDICT", "Found", "announce", "keep", "list_metrics"]

VERDICT = "verdict"
REGISTERED = "ipa"
"""Name of the registered model in tables of scores."""

log = logging.getLogger(__name__)

Found = dict[str, Any]


def keep(folder: str, name: str, find: Callable[[], Found]) -> Found:
    """What an earlier run with the same inputs has found, else what `find` finds."""
    path = Path(folder) / f"{name}.json"
    if not path.is_file():
        write_json(path, _strict(find()))
    found: Found = json.loads(path.read_text())
    return found


def announce(inputs: Mapping[str, Any]) -> None:
    """Say in the log what is re-evaluated, or that it has been before."""
    path = Path(inputs["folder"]) / f"{VERDICT}.json"
    champion = inputs["champion"]
    if path.is_file():
        found = json.loads(path.read_text())
        log.info(
            "%s version %s was re-evaluated with the same inputs on %s: the verdict stands",
            *(champion["name"], champion["version"], found["date"]),
        )
    else:
        log.info("re-evaluating %s version %s", champion["name"], champion["version"])


def list_metrics(scores: Found, arrivals: Found, drift: Found) -> dict[str, float]:
    """``reevaluate/...`` names and numbers for MLflow."""
    found = {
        f"reevaluate/{row['metric']}": row["value"]
        for row in scores["metrics"]
        if row["bin"] == POOLED and row["sampler"] == REGISTERED
    }
    for comparison in scores["comparisons"]:
        for change in comparison["scores"]:
            name = f"reevaluate/change/{comparison['sampler']}/{change['metric']}"
            found[name] = change["difference"]
    found["reevaluate/new_data/files"] = arrivals["files"]
    found["reevaluate/new_data/usable"] = len(arrivals["usable"])
    if drift["drift"] is not None:
        features, flags = drift["drift"]["features"], drift["drift"]["input_check"]
        found["reevaluate/new_data/kernel_distance"] = features["distance"]
        found["reevaluate/new_data/frechet_distance"] = features["frechet_distance"]
        if flags is not None:
            found["reevaluate/new_data/flagged_share"] = flags["share"]
    return {name: float(value) for name, value in found.items() if value is not None}


def _strict(value: Any) -> Any:
    """JSON has no nan and no tuples."""
    if isinstance(value, Mapping):
        return {str(key): _strict(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
