"""What has been seen of an image, ready for the partial encoder."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Observation"]


@dataclass(frozen=True)
class Observation:
    """An immutable batch of observations y.

    Attributes:
        condition: (B,Cy,H,W) float, what the partial encoder takes; of inpainting: normalised,
            zero-filled, mask appended.
        pixels: uint8 (B,C,H,W), values that y gives exactly, 0 elsewhere.
        mask: bool (B,1,H,W), true = pixel known exactly; all others are to be predicted, so none is
            true for a task that shows no pixels themselves.
        case_ids: B names. The noise of a completion depends on its case's name, not on the batch.
    """

    condition: Tensor
    pixels: Tensor
    mask: Tensor
    case_ids: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.case_ids) != self.condition.shape[0]:
            raise ValueError(
                f"{len(self.case_ids)} case ids for {self.condition.shape[0]} observations"
            )

    def __len__(self) -> int:
        return self.condition.shape[0]

    @property
    def predicted_dimensions(self) -> Tensor:
        """(B), number of values to be predicted in each image."""
        unobserved = (~self.mask).expand_as(self.pixels)
        return unobserved.flatten(1).sum(dim=1)

    def part(self, start: int, stop: int) -> Observation:
        """The cases start .. stop-1."""
        return Observation(
            self.condition[start:stop],
            self.pixels[start:stop],
            self.mask[start:stop],
            self.case_ids[start:stop],
        )

    def to(self, device: torch.device, dtype: torch.dtype) -> Observation:
        """Move to a device and a floating type."""
        return Observation(
            self.condition.to(device, dtype),
            self.pixels.to(device),
            self.mask.to(device),
            self.case_ids,
        )
