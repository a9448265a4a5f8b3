"""Opening the posterior that a node is given."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from condvae.ground.configuration import ConfigurationError
from condvae.ground.devices import resolve_device
from condvae.models.folder import load_posterior
from condvae.posterior.image_posterior import ImagePosterior
from condvae.tasks import Task, describe_task
from pipelines.runs.provenance import check_weights, warn_of_seen_images

__all__ = ["open_posterior"]

log = logging.getLogger(__name__)


def open_posterior(
    posterior: Mapping[str, Any], task: Task, image_store: Mapping[str, Any], device: str
) -> ImagePosterior:
    """Open a posterior for a task; warn where it may have seen the test images.

    Args:
        posterior: Description of the posterior.
        task: By the parameters.
        image_store: Description of the prepared images.
        device: Where to compute.

    Raises:
        ConfigurationError: The posterior is for another task, or was replaced since it was described.
    """
    folder = posterior["folder"]
    trained = load_posterior(folder, resolve_device(device))
    check_weights(posterior, trained.card)
    if describe_task(trained.task) != describe_task(task):
        raise ConfigurationError(
            f"{folder} is for {describe_task(trained.task)}: the parameters `task` say "
            f"{describe_task(task)}"
        )
    warn_of_seen_images(f"posterior {folder}", trained.card, image_store)
    known = trained.card.get("name")
    if known not in (None, image_store["name"]):
        log.warning(
            "posterior %s was trained on %s and is judged on %s", folder, known, image_store["name"]
        )
    return trained
