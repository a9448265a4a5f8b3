"""What makes a model a trial: read from what its card says of its training, never from its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["VAE_SHORTCOMINGS", "list_shortcomings"]

# On the card of a posterior: those of the VAE it was trained with, where that was not trained along.
VAE_SHORTCOMINGS = "vae_shortcomings"


def list_shortcomings(card: Mapping[str, Any]) -> list[str]:
    """Say why a model is no more than a trial; empty for one that may stand for what it is called.

    A trial was never trained, or on fewer images than it had: an image that no step has shown it is
    nothing that it could have learned from. So is a posterior whose frozen VAE is one.

    Args:
        card: Of a VAE or a posterior. Cards from before there were counts of images say nothing of
            them, and are not doubted.
    """
    if "weights_source" in card and card["weights_source"] is None:
        return ["it was never trained"]
    source = card.get("weights_source")
    source = source if isinstance(source, Mapping) else {}
    found = []
    training, images = source.get("training"), (card.get("data") or {}).get("images") or {}
    if isinstance(training, Mapping) and images.get("train"):
        seen, count = training["steps"] * training["batch_size"], images["train"]
        if seen < count:
            found.append(
                f"its {training['steps']} steps of {training['batch_size']} images show it fewer than "
                f"the {count} it is trained on"
            )
    of_vae = card.get(VAE_SHORTCOMINGS)
    if of_vae is None and card.get("vae") == "random" and "objective" not in source:
        of_vae = ["it was never trained"]  # cards from before this was noted
    return found + [f"its VAE: {text}" for text in of_vae or ()]
