"""The registered champion: found, compared with what the registry says of it, put up for judgement."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import condvae
from condvae.data.store import PreparedImages
from condvae.evaluation.cases import read_cases
from condvae.evaluation.monitoring import INVALID, NOTED, Finding
from condvae.ground.configuration import ConfigurationError, read_config
from condvae.ground.files import sha256_of_file
from condvae.models.folder import CARD, WEIGHTS
from pipelines.evaluation.nodes import build_manifest
from pipelines.parameters import EvaluationConfig, ReevaluationConfig
from pipelines.runs.registry import RegisteredPosterior, current_environment

__all__ = [
    "check_environment",
    "check_manifest",
    "check_weights",
    "describe_manifest",
    "environment",
]

log = logging.getLogger(__name__)


@cache
def environment() -> dict[str, str]:
    """What decides scores besides model, cases and parameters; the library's code is hashed."""
    root = Path(condvae.__file__).parent
    code = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        code.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return {**current_environment(), "code": code.hexdigest()}


def check_weights(registered: RegisteredPosterior) -> tuple[dict[str, Any], list[Finding]]:
    """Compare the weights with the card beside them and with the registry.

    Returns:
        The card, empty where it cannot be read; and findings, none for weights as registered.
    """
    name = f"{registered.name} version {registered.version}"
    weights, place = registered.folder / WEIGHTS, registered.folder / CARD
    try:
        found = sha256_of_file(weights)
        card = json.loads(place.read_text())
        said = {"its card": card.get("sha256"), "the registry": registered.posterior_sha256}
    except (OSError, ValueError, AttributeError) as error:
        return {}, [Finding(INVALID, "weights", f"{name} cannot be read: {error}")]
    differing = [f"{who} says {sha256}" for who, sha256 in said.items() if sha256 != found]
    if not differing:
        return card, []
    message = f"{weights} of {name} has sha256 {found}, {' and '.join(differing)}"
    return card, [Finding(INVALID, "weights", message)]


def check_manifest(registered: RegisteredPosterior, images: PreparedImages) -> list[Finding]:
    """Compare the frozen cases with the registry, and with the images they are taken from."""
    expected, path = registered.manifest_sha256, registered.manifest
    if expected is None:
        return []
    name = f"{registered.name} version {registered.version}"
    missing = [
        what for what in ("cases", "calibration", "manifest") if getattr(registered, what) is None
    ]
    if missing or path is None:
        message = f"{name} has lost files of its evaluation: {', '.join(missing)}"
        return [Finding(INVALID, "manifest", message)]
    found = sha256_of_file(path)
    if found != expected:
        message = f"{path} of {name} has sha256 {found}, the registry says {expected}"
        return [Finding(INVALID, "manifest", message)]
    try:
        cases = read_cases(path, expected)
    except ConfigurationError as error:
        return [Finding(INVALID, "manifest", str(error))]
    other = [
        case.case_id
        for case in cases
        if case.image_id >= len(images.records)
        or images.records[case.image_id].sha256 != case.image_sha256
    ]
    if not other:
        return []
    message = (
        f"{len(other)} of {len(cases)} cases of {path} are of other images than {images.folder} has "
        f"now, the first is {other[0]}: the data were prepared with other parameters, or have changed"
    )
    return [Finding(INVALID, "images", message)]


def check_environment(registered: RegisteredPosterior) -> list[Finding]:
    """Note what was different when the model was registered: scores may differ by rounding."""
    now: Mapping[str, str] = current_environment()
    changed = [
        f"{name} {registered.environment[name]} then, {now[name]} now"
        for name in now
        if name in registered.environment and registered.environment[name] != now[name]
    ]
    if not changed:
        return []
    return [Finding(NOTED, "environment", f"registered with other versions: {'; '.join(changed)}")]


def describe_manifest(
    registered: RegisteredPosterior,
    config: ReevaluationConfig,
    image_store: dict[str, Any],
    evaluation: dict[str, Any],
    masks: dict[str, Any],
    task: dict[str, Any],
    folders: dict[str, str],
) -> dict[str, Any]:
    """The frozen cases; for a champion without any, those of the parameters."""
    if registered.manifest is None:
        place = {**folders, "evaluation": f"{config.folder}/manifest"}
        return build_manifest(image_store, evaluation, masks, task, place, config.size)
    cases = read_cases(registered.manifest, registered.manifest_sha256)
    prefix = cases[0].case_id.rpartition("-")[0]
    size = prefix if prefix in ("quick", "full") else config.size
    settings = read_config(EvaluationConfig, evaluation, "evaluation")
    return {
        "path": str(registered.manifest),
        "sha256": registered.manifest_sha256,
        "cases": len(cases),
        "completions": registered.facts.get("k") or getattr(settings, size).completions,
        "size": size,
    }
