"""Whether a model is the one that is meant, and what it has been trained on."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from condvae.ground.configuration import ConfigurationError
from condvae.training.start import Start, trained_on

__all__ = ["check_weights", "warn_of_seen_images", "warn_of_seen_start"]

log = logging.getLogger(__name__)


def check_weights(described: Mapping[str, Any], card: Mapping[str, Any]) -> None:
    """Refuse a folder whose weights were replaced after an earlier node has described them.

    Args:
        described: ``folder`` and ``sha256``, as the node returned them.
        card: Of the folder as it is now.

    Raises:
        ConfigurationError: They are other weights.
    """
    if described["sha256"] != card["sha256"]:
        raise ConfigurationError(
            f"{described['folder']} holds weights with sha256 {card['sha256'][:12]}..., not "
            f"{described['sha256'][:12]}... as when they were chosen: another run has replaced them; "
            "run again without skipping nodes"
        )


def warn_of_seen_images(
    model: str, card: Mapping[str, Any], image_store: Mapping[str, Any]
) -> None:
    """Warn when a model was trained on this data set, but with other images or another split.

    Args:
        model: What is said of it, ``VAE digits``.
        card: Its card; `weights_source` holds the fingerprint of its data, and what it started from.
        image_store: Description of the prepared images.
    """
    data = card.get("data") or {}
    own = data.get("fingerprint") != image_store["fingerprint"]
    trained = data.get("images_sha256") if own else None  # not what it has seen before
    _warn(model, trained_on(card), image_store, trained)


def warn_of_seen_start(start: Start, image_store: Mapping[str, Any]) -> None:
    """The same for what a training run starts from, if there is anything."""
    seen = start.identity["start"].get("trained_on", [])
    _warn(f"model {start.path} (start.{start.rung})", seen, image_store)


def _warn(
    model: str,
    seen: Iterable[Mapping[str, Any]],
    image_store: Mapping[str, Any],
    trained: str | None = None,
) -> None:
    # A resumed run does not say what its data are called: they count as the same data set.
    other = [
        data["fingerprint"]
        for data in seen
        if data["name"] in (None, image_store["name"])
        and data["fingerprint"] != image_store["fingerprint"]
    ]
    if not other:
        return
    if trained is None or len(other) > 1:
        what = "other images, or on the same ones split in another way,"
    elif trained == image_store.get("images_sha256"):
        what = "these very images, split or labelled in another way,"
    else:
        what = "other images than these"
    log.warning(
        "the %s was trained on %s under the name %s: it may have seen images that are test images here",
        *(model, what, image_store["name"]),
    )
