"""Score the frozen VAE on test images and compare with its card."""

from __future__ import annotations

import logging
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from condvae.data.store import open_images
from condvae.ground.configuration import ConfigurationError, read_config
from condvae.ground.devices import explain_out_of_memory, resolve_device
from condvae.models import ScoreMismatchError, check_score, stated_score
from condvae.models.folder import load_vae
from condvae.training.pretraining import bits_per_dim
from pipelines.parameters import VerifyConfig
from pipelines.runs.provenance import check_weights
from pipelines.runs.tracking import log_metrics, progress_bar

log = logging.getLogger(__name__)


def verify_score(
    image_store: dict[str, Any],
    pretrained_vae: dict[str, Any],
    verify: dict[str, Any],
    device: str,
    seed: int,
) -> dict[str, Any]:
    """Measure bits per dimension on random test images; return the verdict."""
    config = read_config(VerifyConfig, verify, "verify")
    vae, card = load_vae(pretrained_vae["folder"], resolve_device(device))
    check_weights(pretrained_vae, card)
    expected, expected_error = stated_score(Path(pretrained_vae["folder"]), card)
    images = open_images(Path(image_store["folder"]))
    test = images.indices("test")
    if len(test) < 2:
        raise ConfigurationError(f"{len(test)} test images: verify needs at least 2")
    # Random, not the first ones: files often come sorted by class.
    count = min(config.images, len(test))
    rows = np.sort(np.random.default_rng(seed).choice(test, count, replace=False))
    with (
        progress_bar(f"scoring {pretrained_vae['name']}", count, unit="img") as bar,
        explain_out_of_memory("verify.batch_size", config.batch_size),
    ):
        bits, error = bits_per_dim(vae, images.pixels, rows, config.batch_size, seed, bar.update)
    finite = math.isfinite(bits)
    verdict = check_score(bits, error if finite else 0.0, count, expected, expected_error)
    log_metrics(
        {
            "verify/bits_per_dim": bits,
            "verify/expected": verdict.expected,
            "verify/passed": float(verdict.passed),
        }
    )
    log.log(logging.INFO if verdict.passed else logging.ERROR, "verify: %s", verdict.message)
    return {
        "vae": pretrained_vae["name"],
        "sha256": pretrained_vae["sha256"],
        **asdict(verdict),
        "bits_per_dim": bits if finite else None,
        "standard_error": error if finite else None,
        "expected_standard_error": expected_error,
        "data": image_store["name"],
        "data_fingerprint": image_store["fingerprint"],
        "seed": seed,
    }


def refuse_failed_score(verification: dict[str, Any]) -> None:
    """End the command with an error after a FAIL; the result is written by then."""
    if not verification["passed"]:
        raise ScoreMismatchError(f"{verification['vae']}: {verification['message']}")
