"""Conditional tasks: a task is a value that makes observations from images."""

from condvae.configuration import check_choice
from condvae.tasks.inpainting import Inpainting
from condvae.tasks.observation import Observation, Task

__all__ = ["TASKS", "Inpainting", "Observation", "Task", "task_named"]

TASKS: dict[str, type[Inpainting]] = {"inpainting": Inpainting}


def task_named(name: str) -> Task:
    """Return a registered task.

    Raises:
        ConfigurationError: The name is not registered; the message lists those that are.
    """
    check_choice("task", name, TASKS)
    return TASKS[name]()
