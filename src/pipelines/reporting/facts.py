"""Facts about the run: which must be there, and how they are listed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from condvae.ground.configuration import ConfigurationError

__all__ = ["check_facts", "list_facts"]

# Shown in places of their own.
_NOT_LISTED = ("command", "sampler_definitions", "is_exact", "warnings")
# What these hold is keyed by names of samplers and extractors, which are written as they are.
_BY_NAME = ("resizers", "extractor_hashes", "samplers", "seconds_per_case")


def check_facts(run_facts: Mapping[str, Any]) -> None:
    """Refuse facts without what the page cannot do without.

    Args:
        run_facts: `task` and `command` (the command that makes these numbers again) are required.
            Known besides: `is_exact` (see `condvae.tasks.Task`), `data`, `classifier_accuracy`,
            `loss_unit`, `manifest`, `extractor` (`name, sha256, resizer`) and `sampler_definitions`
            (name -> text). Everything else is listed as it is; mappings become groups.

    Raises:
        ConfigurationError: A required fact is missing.
    """
    for key in ("task", "command"):
        if not run_facts.get(key):
            raise ConfigurationError(
                f"run_facts lack {key!r}: expected in every report; found {', '.join(run_facts)}"
            )


def list_facts(run_facts: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Group facts for the page: heading and lines of name and text, nested mappings as groups."""
    groups: dict[str, list[tuple[str, str]]] = {"Run": []}
    for key, value in run_facts.items():
        if key in _NOT_LISTED:
            continue
        if isinstance(value, Mapping):
            lines = groups.setdefault(_words(key).capitalize(), [])
            lines.extend(_flatten(value, by_name=key in _BY_NAME))
        else:
            groups["Run"].append((_words(key), _text(value)))
    return [(heading, lines) for heading, lines in groups.items() if lines]


def _flatten(
    values: Mapping[str, Any], prefix: str = "", by_name: bool = False
) -> list[tuple[str, str]]:
    lines = []
    for key, value in values.items():
        name = prefix + (str(key) if by_name else _words(str(key)))
        if isinstance(value, Mapping):
            lines.extend(_flatten(value, f"{name} · ", key in _BY_NAME))
        else:
            lines.append((name, _text(value)))
    return lines


def _words(key: str) -> str:
    return key.replace("_", " ")


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(item) for item in value) or "–"
    return str(value)
