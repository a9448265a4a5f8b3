"""Several tasks at once: what each of them sees is seen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from condvae.ground.configuration import ConfigurationError
from condvae.ground.images import DataContract
from condvae.masks.sampling import MaskConfig
from condvae.tasks.registry import task_named
from condvae.tasks.subject import SideInformation, Subject
from condvae.tasks.task import Task

__all__ = ["Combination"]


@dataclass(frozen=True)
class Combination(Task):
    """y = the y of several tasks, their channels one after another.

    Tasks that look at the image come first, since a copied start reads an image in the first channels;
    otherwise in the order of their names. The order given means nothing, so that equal parameters are
    equal models.

    Attributes:
        parts: Name of each task -> its options, such as
            ``{"inpainting": {}, "class_label": {"classes": 10}}``.
    """

    parts: dict[str, dict[str, Any]]

    name = "combination"

    def __post_init__(self) -> None:
        if len(self.parts) < 2:
            raise ConfigurationError(f"parts = {self.parts!r}: expected two tasks or more")
        _ = self.tasks

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks, in the order of their channels."""
        tasks = [
            task_named(name, options, f"parts.{name}")
            for name, options in sorted(self.parts.items())
        ]
        return tuple(sorted(tasks, key=lambda task: "pixels" not in task.needs))

    @property
    def needs(self) -> tuple[str, ...]:
        """What any of them needs."""
        return tuple(dict.fromkeys(name for task in self.tasks for name in task.needs))

    @property
    def is_exact(self) -> bool:
        """Whether all of them are."""
        return all(task.is_exact for task in self.tasks)

    def condition_channels(self, contract: DataContract) -> int:
        """Those of all tasks."""
        return sum(task.condition_channels(contract) for task in self.tasks)

    def condition(self, subject: Subject, contract: DataContract) -> Tensor:
        """What all tasks show: float32 (B,Cy,H,W)."""
        return torch.cat([task.condition(subject, contract) for task in self.tasks], dim=1)

    def hide(self, subject: Subject, rng: np.random.Generator) -> Subject:
        """What each of the tasks hides."""
        for task in self.tasks:
            subject = task.hide(subject, rng)
        return subject

    def measure(self, pixels: Tensor, mask: Tensor) -> Tensor | None:
        """The measurements of all tasks that have one, float (B,D)."""
        found = [task.measure(pixels, mask) for task in self.tasks]
        values = [value for value in found if value is not None]
        return torch.cat(values, dim=1) if values else None

    def asked_attributes(self, subject: Subject) -> Tensor | None:
        """Those of the first task that says any."""
        found = (task.asked_attributes(subject) for task in self.tasks)
        return next((asked for asked in found if asked is not None), None)

    def signature(self, subject: Subject, contract: DataContract) -> Tensor:
        """The vectors of all tasks, one after another."""
        return torch.cat([task.signature(subject, contract) for task in self.tasks], dim=1)

    def picture(self, subject: Subject, contract: DataContract) -> Tensor | None:
        """That of the first task which has one."""
        found = (task.picture(subject, contract) for task in self.tasks)
        return next((image for image in found if image is not None), None)

    def choose_masks(self, config: MaskConfig) -> MaskConfig:
        """The masks of the last task that chooses any; without masks, hidden images."""
        if not self.uses_mask:
            return super().choose_masks(config)
        for task in self.tasks:
            config = task.choose_masks(config) if task.uses_mask else config
        return config

    def check_data(self, side_information: SideInformation, contract: DataContract) -> None:
        """Refuse a data set that lacks what one of them needs."""
        for task in self.tasks:
            task.check_data(side_information, contract)
