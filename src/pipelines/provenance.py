"""Whether a model may have been trained on what are test images here."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from condvae.training.start import Start

__all__ = ["warn_of_seen_images", "warn_of_seen_start"]

log = logging.getLogger(__name__)


def warn_of_seen_images(
    model: str, card: Mapping[str, Any], image_store: Mapping[str, Any]
) -> None:
    """Warn when a model was trained on this data set, but with another subset or split.

    Args:
        model: What is said of it, ``VAE digits``.
        card: Its card; `weights_source` holds the fingerprint of its data.
        image_store: Description of the prepared images.
    """
    trained_on = (card.get("weights_source") or {}).get("data")
    if card.get("name") == image_store["name"] and trained_on != image_store["fingerprint"]:
        log.warning(
            "the %s was trained on %s with another subset or split: it may have seen images that "
            "are test images here",
            model,
            image_store["name"],
        )


def warn_of_seen_start(start: Start, image_store: Mapping[str, Any]) -> None:
    """The same for the model whose weights a training run starts from, if there is one."""
    if start.source is not None:
        warn_of_seen_images(
            f"model {start.path} (start.{start.rung})", start.source.card, image_store
        )
