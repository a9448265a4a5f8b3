"""Conditional tasks: a task is a value that makes observations from images."""

from condvae.tasks.colourisation import Colourisation
from condvae.tasks.combination import Combination
from condvae.tasks.edges import Edges
from condvae.tasks.glimpses import Glimpses
from condvae.tasks.inpainting import Inpainting, Outpainting
from condvae.tasks.labels import Attributes, ClassLabel
from condvae.tasks.observation import Observation
from condvae.tasks.registry import TASKS, describe_task, register_task, task_named
from condvae.tasks.subject import SideInformation, Subject
from condvae.tasks.super_resolution import CustomDownsampling, Downsampling, SuperResolution
from condvae.tasks.task import Task

__all__ = [
    "TASKS",
    "Attributes",
    "ClassLabel",
    "Colourisation",
    "Combination",
    "CustomDownsampling",
    "Downsampling",
    "Edges",
    "Glimpses",
    "Inpainting",
    "Observation",
    "Outpainting",
    "SideInformation",
    "Subject",
    "SuperResolution",
    "Task",
    "describe_task",
    "register_task",
    "task_named",
]

for _task in (
    *(Inpainting, Outpainting, SuperResolution, Colourisation, Edges),
    *(ClassLabel, Attributes, Glimpses, Combination),
):
    register_task(_task)
