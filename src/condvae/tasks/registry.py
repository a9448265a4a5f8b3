"""Tasks by name: how a stored model or a parameter file says which task it means."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, TypeVar

from condvae.ground.configuration import ConfigurationError, check_choice, read_config
from condvae.tasks.task import Task

__all__ = ["TASKS", "describe_task", "register_task", "task_named"]

T = TypeVar("T", bound=type[Task])

TASKS: dict[str, type[Task]] = {}


def register_task(task: T) -> T:
    """Make a task known by its name; also a decorator.

    A class that is defined again, as a notebook does, takes the place of the one before.

    Args:
        task: A class whose parameters, if any, are the fields of a frozen dataclass.

    Raises:
        ConfigurationError: Another task has the name.
    """
    known = TASKS.get(task.name, task)
    if (known.__module__, known.__qualname__) != (task.__module__, task.__qualname__):
        raise ConfigurationError(
            f"task {task.name!r} is {known.__qualname__} already: expected another name"
        )
    TASKS[task.name] = task
    return task


def task_named(
    name: str, options: Mapping[str, Any] | None = None, where: str = "task.options"
) -> Task:
    """Return a registered task.

    Args:
        name: Its name.
        options: Its parameters; those left out have their defaults.
        where: What the parameters are called in messages.

    Raises:
        ConfigurationError: The name is not registered, which lists those that are; or a parameter is
            unknown, missing or wrong.
    """
    check_choice("task", name, TASKS)
    task = TASKS[name]
    if dataclasses.is_dataclass(task):
        return read_config(task, options, where)
    if options:
        raise ConfigurationError(f"{where} = {dict(options)!r}: task {name!r} has no options")
    return task()


def describe_task(task: Task) -> dict[str, Any]:
    """Name and parameters as JSON: ``task`` and ``task_options``, left out where there are none."""
    options = json.loads(json.dumps(task.options))
    return {"task": task.name} | ({"task_options": options} if options else {})
