"""What is known of images: what a task may make its observation from."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["SIDE_INFORMATION", "SideInformation", "Subject"]

SIDE_INFORMATION = ("labels", "attributes", "paired")
"""What may be known of an image besides its pixels."""


@dataclass(frozen=True)
class Subject:
    """A batch of images and what is known of them; None for what is not.

    Attributes:
        pixels: uint8 (B,C,H,W).
        mask: (B,1,H,W) or (1,1,H,W), bool or 0/1 numbers, 1 = observed.
        labels: integers (B), classes; -1 = unknown.
        attributes: integers (B,A), 1 = present, 0 = absent, -1 = unknown.
        paired: uint8 (B,C,H,W), a second picture of the same thing (the drawing of a photo).
    """

    pixels: Tensor | None = None
    mask: Tensor | None = None
    labels: Tensor | None = None
    attributes: Tensor | None = None
    paired: Tensor | None = None

    def __post_init__(self) -> None:
        axes = {"labels": 1, "attributes": 2}
        for name, count in axes.items():
            value = getattr(self, name)
            if value is not None and (
                value.ndim != count or value.is_floating_point() or value.dtype == torch.bool
            ):
                raise ValueError(
                    f"{name} of type {value.dtype} and shape {tuple(value.shape)}: expected integers "
                    f"with {count} axes"
                )
        sizes = {name: len(getattr(self, name)) for name in self.given if name != "mask"}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"batches of different sizes: {sizes}")

    @property
    def given(self) -> tuple[str, ...]:
        """Names of what is there."""
        names = ("pixels", "mask", *SIDE_INFORMATION)
        return tuple(name for name in names if getattr(self, name) is not None)

    def __len__(self) -> int:
        """B; of a mask alone, the number of masks."""
        for name in ("pixels", *SIDE_INFORMATION, "mask"):
            value = getattr(self, name)
            if value is not None:
                return len(value)
        return 0


@dataclass(frozen=True)
class SideInformation:
    """What is known of the N images of a data set besides their pixels; None for what is not.

    Attributes:
        labels: int64 (N), classes; -1 = unknown.
        attributes: (N,A), 1 = present, 0 = absent, -1 = unknown; possibly memory-mapped.
        paired: uint8 (N,H,W,C), second pictures; possibly memory-mapped.
    """

    labels: NDArray[np.int64] | None = None
    attributes: NDArray[np.integer] | None = None
    paired: NDArray[np.uint8] | None = None

    def subject(
        self,
        pixels: Tensor,
        mask: Tensor,
        rows: NDArray[np.int64],
        needs: Collection[str],
    ) -> Subject:
        """Put together what a task needs of some images.

        Args:
            pixels: uint8 (B,C,H,W); everything else comes to their device.
            mask: (B,1,H,W), 1 = observed; left out where it is not needed.
            rows: (B,) numbers of these images in the data set.
            needs: `Task.needs`; what is needed and not known is left out too.
        """
        found: dict[str, Tensor] = {}
        for name in SIDE_INFORMATION:
            array = getattr(self, name)
            if name in needs and array is not None:
                part = np.ascontiguousarray(array[rows])
                found[name] = torch.from_numpy(
                    part.transpose(0, 3, 1, 2).copy() if name == "paired" else part.astype(np.int64)
                ).to(pixels.device)
        return Subject(pixels, mask if "mask" in needs else None, **found)
