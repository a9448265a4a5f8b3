"""Opening the posterior that a node is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from condvae.configuration import ConfigurationError
from condvae.model_folder import load_posterior
from condvae.posterior import ImagePosterior
from condvae.tasks import Task, describe_task
from condvae.training.acceleration import resolve_device
from pipelines.provenance import warn_of_seen_images

__all__ = ["check_weights", "open_posterior"]


def check_weights(posterior: Mapping[str, Any], card: Mapping[str, Any]) -> None:
    """Refuse weights that another command has put into the folder of a posterior meanwhile.

    Args:
        posterior: Description of the posterior.
        card: That lies in its folder now.

    Raises:
        ConfigurationError: The card is of other weights.
    """
    found, expected = card["sha256"], posterior["sha256"]
    if found != expected:
        raise ConfigurationError(
            f"{posterior['folder']} holds weights with sha256 {found[:12]}..., this run's are "
            f"{expected[:12]}...: another run has replaced them meanwhile; give the command again"
        )


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
        ConfigurationError: The posterior is for another task, or its weights were replaced.
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
    return trained
