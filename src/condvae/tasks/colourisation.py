"""Colourisation: the brightness of a colour image is seen."""

from __future__ import annotations

import torch
from torch import Tensor

from condvae.ground.configuration import ConfigurationError
from condvae.ground.images import DataContract
from condvae.tasks.subject import Subject
from condvae.tasks.task import Task, normalise

__all__ = ["Colourisation", "luma"]

# ITU-R BT.601, as where stored images are made grey.
_WEIGHTS = (0.299, 0.587, 0.114)


def luma(pixels: Tensor) -> Tensor:
    """Brightness in grey levels, not rounded: uint8 (B,C,H,W) -> float32 (B,1,H,W).

    0.299 R + 0.587 G + 0.114 B (ITU-R BT.601); a grey image as it is.
    """
    levels = pixels.float()
    if levels.shape[1] == 1:
        return levels
    weights = torch.tensor(_WEIGHTS, device=pixels.device, dtype=torch.float32).reshape(3, 1, 1)
    return (levels * weights).sum(dim=1, keepdim=True)


class Colourisation(Task):
    """y = the normalised brightness, in every colour channel."""

    name = "colourisation"

    def condition_channels(self, contract: DataContract) -> int:
        """Those of the image.

        Raises:
            ConfigurationError: The images are grey.
        """
        if contract.channels != 3:
            raise ConfigurationError(
                f"task 'colourisation' needs images of 3 channels, found {contract.channels}"
            )
        return contract.channels

    def condition(self, subject: Subject, contract: DataContract) -> Tensor:
        """Brightness as a grey image: float32 (B,3,H,W)."""
        self.condition_channels(contract)
        assert subject.pixels is not None
        return normalise(luma(subject.pixels), contract)

    def measure(self, pixels: Tensor, mask: Tensor) -> Tensor:
        """Brightness: float32 (B,H*W)."""
        del mask
        return luma(pixels).flatten(1)

    def signature(self, subject: Subject, contract: DataContract) -> Tensor:
        """Brightness."""
        del contract
        assert subject.pixels is not None
        return luma(subject.pixels).flatten(1)

    def picture(self, subject: Subject, contract: DataContract) -> Tensor:
        """Brightness as a grey image."""
        assert subject.pixels is not None
        levels = luma(subject.pixels).round().to(torch.uint8)
        return levels.expand(-1, contract.channels, -1, -1)
