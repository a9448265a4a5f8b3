"""What every conditional task is: a value that makes observations from images."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from condvae.ground.configuration import ConfigurationError
from condvae.ground.images import DataContract, encoder_input
from condvae.masks.sampling import MaskConfig
from condvae.tasks.observation import Observation
from condvae.tasks.subject import SideInformation, Subject

__all__ = ["Task", "checked_mask", "normalise"]


class Task(ABC):
    """A conditional task.

    A task of one's own gives `name`, `needs`, `condition_channels` and `condition`; all else has a
    sensible default. Its parameters are the fields of a frozen dataclass; they are stored with a
    model and read again by `condvae.tasks.task_named`.

    Attributes:
        name: Of the task, stored with a model.
        needs: What y is made from: names of fields of `Subject`.
        is_exact: Whether y consists of nothing but exactly known pixels, so that all that y says
            about the other pixels goes through z: I(x~; y | z) = 0. Then freezing the VAE loses
            nothing (Harvey et al. 2022, theorem 2). It is close to that for labels and drawings,
            and not so for an image of fewer pixels or colours.
    """

    name: ClassVar[str]

    @property
    def is_exact(self) -> bool:
        """Whether y is exactly known pixels and nothing else."""
        return False

    @property
    def needs(self) -> tuple[str, ...]:
        """What y is made from."""
        return ("pixels",)

    @property
    def uses_mask(self) -> bool:
        """Whether masks say which pixels are known."""
        return "mask" in self.needs

    @property
    def options(self) -> dict[str, Any]:
        """Parameters by name; {} for a task without."""
        return dataclasses.asdict(self) if dataclasses.is_dataclass(self) else {}

    @abstractmethod
    def condition_channels(self, contract: DataContract) -> int:
        """Cy for images of this contract.

        Raises:
            ConfigurationError: The task makes no sense for such images.
        """

    @abstractmethod
    def condition(self, subject: Subject, contract: DataContract) -> Tensor:
        """Make what the partial encoder takes.

        Args:
            subject: Has all that the task needs; its mask is bool (B,1,H,W).
            contract: Of the model that will take y.

        Returns:
            float32 (B,Cy,H,W).
        """

    def observe(
        self, subject: Subject, contract: DataContract, case_ids: tuple[str, ...] | None = None
    ) -> Observation:
        """Make y.

        Args:
            subject: What is known. Pixels may be left out where the task does not need them.
            contract: Of the model that will take y.
            case_ids: Names of the cases, "0", "1", ... by default.

        Raises:
            ConfigurationError: Images do not fit the contract; something that the task needs is
                missing, or something it cannot use was given.
            ValueError: A mask, labels or attributes that are not as expected.
        """
        self._check_given(subject)
        for name in ("pixels", "paired"):
            value = getattr(subject, name)
            if value is not None:
                contract.check(value)
        batch, c = len(subject), contract
        if subject.mask is not None and subject.pixels is not None:
            mask = checked_mask(subject.mask, subject.pixels)
            known = subject.pixels * mask
            subject = dataclasses.replace(subject, mask=mask)
        else:
            source = next(getattr(subject, name) for name in subject.given)
            mask = torch.zeros(batch, 1, c.size, c.size, dtype=torch.bool, device=source.device)
            known = mask.to(torch.uint8).expand(-1, c.channels, -1, -1)
        return Observation(
            condition=self.condition(subject, contract),
            pixels=known,
            mask=mask,
            case_ids=case_ids or tuple(str(i) for i in range(batch)),
        )

    def hide(self, subject: Subject, rng: np.random.Generator) -> Subject:
        """What a step of training sees of a subject; less than all where y may be partly unknown."""
        del rng
        return subject

    def measure(self, pixels: Tensor, mask: Tensor) -> Tensor | None:
        """What y says of images, to compare an image drawn for y with the one y was made from.

        Args:
            pixels: uint8 (B,C,H,W).
            mask: bool (B,1,H,W), the pixels known exactly.

        Returns:
            Float (B,D) in grey levels, 0 to 255; nan where y says nothing. None where the difference
            means nothing (labels) or is 0 by itself (pixels that are pasted).
        """
        del pixels, mask
        return None

    def asked_attributes(self, subject: Subject) -> Tensor | None:
        """Attributes that y says, to see whether images drawn for y show them.

        Returns:
            Integers (B,A), 1 and 0, -1 where y says nothing. None where y says no attributes.
        """
        del subject
        return None

    def signature(self, subject: Subject, contract: DataContract) -> Tensor:
        """Y as vectors: float (B,D); the nearer two of them, the more alike the observations are."""
        return self.condition(subject, contract).flatten(1)

    def picture(self, subject: Subject, contract: DataContract) -> Tensor | None:
        """Y as an image for people, uint8 (B,C,H,W).

        None where exactly known pixels are all there is to show.
        """
        del subject, contract
        return None

    def choose_masks(self, config: MaskConfig) -> MaskConfig:
        """The masks of this task in place of the configured ones: without masks, hidden images."""
        if self.uses_mask:
            return config
        return MaskConfig(kinds={"blank": 1.0}, stratified=False, pool=1)

    def check_data(self, side_information: SideInformation, contract: DataContract) -> None:
        """Refuse a data set that lacks what the task needs, or has it in another form.

        Raises:
            ConfigurationError: Names what is missing.
        """
        self.condition_channels(contract)
        for name in self.needs:
            if name not in ("pixels", "mask") and getattr(side_information, name) is None:
                raise ConfigurationError(f"task {self.name!r} needs {name}: the data set has none")

    def _check_given(self, subject: Subject) -> None:
        for name in self.needs:
            if name not in subject.given:
                raise ConfigurationError(f"{name} = None: task {self.name!r} needs {name}")
        for name in subject.given:
            if name != "pixels" and name not in self.needs:
                raise ConfigurationError(
                    f"{name} were given: task {self.name!r} is made from {', '.join(self.needs)}"
                )


def checked_mask(mask: Tensor, pixels: Tensor) -> Tensor:
    """Bring masks to bool (B,1,H,W) beside their images.

    Args:
        mask: (B,1,H,W) or (1,1,H,W), bool or 0/1 numbers, 1 = observed.
        pixels: (B,C,H,W).

    Raises:
        ValueError: The mask has another size or other values than 0 and 1.
    """
    batch, _, height, width = pixels.shape
    if mask.ndim != 4 or mask.shape[0] not in (1, batch) or mask.shape[1:] != (1, height, width):
        raise ValueError(
            f"mask of shape {tuple(mask.shape)}: expected ({batch} or 1, 1, {height}, {width})"
        )
    if mask.dtype != torch.bool:
        values = torch.unique(mask).tolist()
        if any(value not in (0, 1) for value in values):
            raise ValueError(f"mask with values {values[:5]}: expected 0 (hole) and 1 (observed)")
        mask = mask.bool()
    return mask.to(pixels.device).expand(batch, -1, -1, -1)


def normalise(levels: Tensor, contract: DataContract) -> Tensor:
    """Grey levels (B,1 or C,H,W) -> (B,C,H,W) as an image is shown to the encoder.

    Grey comes as equal colours, so that a partial encoder that starts as a copy of the VAE's encoder
    sees a grey image.
    """
    return encoder_input(levels, contract).expand(-1, contract.channels, -1, -1)
