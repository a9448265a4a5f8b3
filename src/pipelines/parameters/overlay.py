"""Parameters put over others: what a pipeline sets of its own, and what the command line says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["TASK_PIPELINES", "leaves", "name_of_task", "override", "override_sections"]

# Pipelines with the nodes of `inpaint` and parameters of their own, see the section `tasks`.
TASK_PIPELINES = ("super_resolve", "colorize", "edges_to_photo", "label_to_image")


def override(values: Mapping[str, Any], by: Mapping[str, Any]) -> dict[str, Any]:
    """Copy of nested `values` with those of `by` in their places."""
    result = dict(values)
    for name, value in by.items():
        here = result.get(name)
        if isinstance(here, Mapping) and isinstance(value, Mapping):
            result[name] = override(here, value)
        else:
            result[name] = value
    return result


def override_sections(parameters: Mapping[str, Any], by: Mapping[str, Any]) -> dict[str, Any]:
    """The same for whole parameters: the options of another task do not outlive a change of `task`."""
    result = override(parameters, by)
    before, after = (name_of_task(values) for values in (parameters, by))
    if after is not None and after != before:
        result["task"] = dict(by["task"])
    return result


def name_of_task(parameters: Mapping[str, Any]) -> Any:
    """What `task.name` is in parameters that are not checked; None where there is none."""
    task = parameters.get("task")
    return task.get("name") if isinstance(task, Mapping) else None


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of a nested mapping; an empty one counts as a value."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
