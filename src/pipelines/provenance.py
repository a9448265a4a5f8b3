"""Whether a model may have been trained on what are test images here."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from condvae.training.start import Start, trained_on

__all__ = ["warn_of_seen_images", "warn_of_seen_start"]

log = logging.getLogger(__name__)


def warn_of_seen_images(
    model: str, card: Mapping[str, Any], image_store: Mapping[str, Any]
) -> None:
    """Warn when a model was trained on this data set, but with another subset or split.

    Args:
        model: What is said of it, ``VAE digits``.
        card: Its card; `weights_source` holds the fingerprint of its data, and what it started from.
        image_store: Description of the prepared images.
    """
    _warn(model, trained_on(card), image_store)


def warn_of_seen_start(start: Start, image_store: Mapping[str, Any]) -> None:
    """The same for what a training run starts from, if there is anything."""
    seen = start.identity["start"].get("trained_on", [])
    _warn(f"model {start.path} (start.{start.rung})", seen, image_store)


def _warn(model: str, seen: Iterable[Mapping[str, Any]], image_store: Mapping[str, Any]) -> None:
    # A resumed run does not say what its data are called: they count as the same data set.
    if any(
        data["name"] in (None, image_store["name"])
        and data["fingerprint"] != image_store["fingerprint"]
        for data in seen
    ):
        log.warning(
            "the %s was trained on %s with another subset or split: it may have seen images that "
            "are test images here",
            model,
            image_store["name"],
        )
