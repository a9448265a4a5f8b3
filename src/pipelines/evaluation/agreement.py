"""Whether stored scores are of the models and cases at hand: skipped nodes leave older ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from condvae.ground.configuration import ConfigurationError

__all__ = ["check_scores_are_of"]


def check_scores_are_of(
    facts: Mapping[str, Any],
    posterior: Mapping[str, Any],
    manifest: Mapping[str, Any] | None = None,
) -> None:
    """Refuse scores of other weights or other cases.

    Args:
        facts: What the evaluation says of itself.
        posterior: Description of the posterior that the scores are put down to.
        manifest: The same of the cases; None = not looked at.

    Raises:
        ConfigurationError: They are of others.
    """
    said = [("posterior", facts.get("posterior_sha256"), posterior.get("sha256"))]
    if manifest is not None:
        said.append(("manifest", facts.get("manifest"), manifest["sha256"]))
    for what, scored, given in said:
        if scored is not None and scored != given:
            raise ConfigurationError(
                f"the scores are of the {what} {scored[:12]}..., but the {what} here is "
                f"{str(given)[:12]}...: nodes were skipped since it changed; run from "
                "evaluate_samplers_node on, or everything"
            )
