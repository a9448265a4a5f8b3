"""Labels: the class of an image, or attributes of it, are known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from condvae.ground.configuration import ConfigurationError, check_positive
from condvae.ground.images import DataContract
from condvae.tasks.subject import SideInformation, Subject
from condvae.tasks.task import Task

__all__ = ["Attributes", "ClassLabel"]


@dataclass(frozen=True)
class ClassLabel(Task):
    """y = one constant plane per class, 1 for the known one, and a plane that is 1 where none is known.

    Attributes:
        classes: Number of classes.
        hidden: Share of images whose class training hides, so that "unknown" is learned.
    """

    classes: int
    hidden: float = 0.0

    name = "class_label"
    needs = ("labels",)

    def __post_init__(self) -> None:
        check_positive("classes", self.classes)
        _check_share(self.hidden)

    def hide(self, subject: Subject, rng: np.random.Generator) -> Subject:
        """Some classes become unknown."""
        return replace(subject, labels=_hide(subject.labels, self.hidden, rng))

    def condition_channels(self, contract: DataContract) -> int:
        """Classes and "unknown"."""
        del contract
        return self.classes + 1

    def condition(self, subject: Subject, contract: DataContract) -> Tensor:
        """Planes: float32 (B,classes+1,H,W)."""
        return _spread(self.signature(subject, contract), contract)

    def signature(self, subject: Subject, contract: DataContract) -> Tensor:
        """One value of each plane: float32 (B,classes+1)."""
        del contract
        labels = subject.labels
        assert labels is not None
        wrong = labels[(labels < -1) | (labels >= self.classes)].tolist()
        if wrong:
            raise ValueError(
                f"labels with values {wrong[:5]}: expected 0 to {self.classes - 1}, or -1 for unknown"
            )
        unknown = torch.where(labels < 0, self.classes, labels).long()
        return one_hot(unknown, self.classes + 1).float()

    def check_data(self, side_information: SideInformation, contract: DataContract) -> None:
        """Refuse a data set without labels or with more classes."""
        super().check_data(side_information, contract)
        labels = side_information.labels
        if labels is not None and len(labels) and labels.max() >= self.classes:
            raise ConfigurationError(
                f"classes = {self.classes!r}: the data set has the label {labels.max()}"
            )


@dataclass(frozen=True)
class Attributes(Task):
    """y = two constant planes per attribute: its value (0 where unknown), and whether it is known.

    Attributes:
        count: A, number of attributes of the data set.
        chosen: Numbers of those that y says; () for all.
        hidden: Share of values that training hides, so that "unknown" is learned.
    """

    count: int
    chosen: tuple[int, ...] = ()
    hidden: float = 0.0

    name = "attributes"
    needs = ("attributes",)

    def __post_init__(self) -> None:
        check_positive("count", self.count)
        if len(set(self.chosen)) < len(self.chosen) or not set(self.chosen) <= set(
            range(self.count)
        ):
            raise ConfigurationError(
                f"chosen = {self.chosen!r}: expected different numbers from 0 to {self.count - 1}"
            )
        _check_share(self.hidden)

    def hide(self, subject: Subject, rng: np.random.Generator) -> Subject:
        """Some values become unknown."""
        return replace(subject, attributes=_hide(subject.attributes, self.hidden, rng))

    def condition_channels(self, contract: DataContract) -> int:
        """Two per attribute."""
        del contract
        return 2 * len(self._columns())

    def condition(self, subject: Subject, contract: DataContract) -> Tensor:
        """Planes, all values before all known flags: float32 (B,2A,H,W)."""
        return _spread(self.signature(subject, contract), contract)

    def asked_attributes(self, subject: Subject) -> Tensor:
        """The chosen ones, -1 for all others: integers (B,A)."""
        attributes = subject.attributes
        assert attributes is not None
        asked, columns = torch.full_like(attributes, -1, dtype=torch.int64), self._columns()
        asked[:, columns] = attributes[:, columns].long()
        return asked

    def signature(self, subject: Subject, contract: DataContract) -> Tensor:
        """One value of each plane: float32 (B,2A)."""
        del contract
        attributes = subject.attributes
        assert attributes is not None
        if attributes.shape[1] != self.count:
            raise ValueError(f"{attributes.shape[1]} attributes: expected {self.count}")
        chosen = attributes[:, self._columns()]
        wrong = chosen[(chosen < -1) | (chosen > 1)].tolist()
        if wrong:
            raise ValueError(
                f"attributes with values {wrong[:5]}: expected 0, 1, or -1 for unknown"
            )
        return torch.cat([chosen == 1, chosen >= 0], dim=1).float()

    def check_data(self, side_information: SideInformation, contract: DataContract) -> None:
        """Refuse a data set without attributes or with another number of them."""
        super().check_data(side_information, contract)
        found = side_information.attributes
        if found is not None and found.shape[1] != self.count:
            raise ConfigurationError(
                f"count = {self.count!r}: the data set has {found.shape[1]} attributes"
            )

    def _columns(self) -> list[int]:
        return list(self.chosen or range(self.count))


def _spread(values: Tensor, contract: DataContract) -> Tensor:
    """(B,P) -> (B,P,H,W)."""
    return values[:, :, None, None].expand(-1, -1, contract.size, contract.size)


def _check_share(hidden: float) -> None:
    if not 0.0 <= hidden <= 1.0:
        raise ConfigurationError(f"hidden = {hidden!r}: expected in [0, 1]")


def _hide(values: Tensor | None, share: float, rng: np.random.Generator) -> Tensor | None:
    """Set a share of the values to -1."""
    if values is None or share == 0:
        return values
    drawn = torch.from_numpy(rng.random(tuple(values.shape)) < share)
    return values.masked_fill(drawn.to(values.device), -1)
