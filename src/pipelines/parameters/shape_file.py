"""Models that no preset has, in YAML files: a file's name in a parameter stands for what it holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from condvae.ground.configuration import ConfigurationError

__all__ = ["read_shape_files"]

# Layer strings have commas, which separate parameters on the command line.
_PLACES = (("model", "architecture"), ("weights", "preset"))


def read_shape_files(parameters: dict[str, Any], project: Path) -> dict[str, Any]:
    """Put the mapping of a YAML file wherever a model's shape is given as the name of one.

    Args:
        parameters: All of them, not checked.
        project: Folder that relative paths start at.

    Raises:
        ConfigurationError: The file is missing, damaged or holds no mapping.
    """
    for section, name in _PLACES:
        values = parameters.get(section)
        value = values.get(name) if isinstance(values, Mapping) else None
        if isinstance(value, str) and value.endswith((".yml", ".yaml")):
            parameters = {
                **parameters,
                section: {**parameters[section], name: _read(project / value, f"{section}.{name}")},
            }
    return parameters


def _read(path: Path, parameter: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        raise ConfigurationError(f"{parameter}: {path} cannot be read ({reason})") from None
    if not isinstance(content, dict):
        raise ConfigurationError(f"{parameter}: {path} holds {content!r}, expected a mapping")
    return content
