"""Glimpses: sharp in a few places, coarse around them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d

from condvae.ground.configuration import ConfigurationError, check_positive
from condvae.ground.images import DataContract, encoder_input
from condvae.masks.sampling import MaskConfig
from condvae.tasks.inpainting import Inpainting
from condvae.tasks.subject import Subject
from condvae.tasks.task import Task

__all__ = ["Glimpses"]


@dataclass(frozen=True)
class Glimpses(Task):
    """y = the pixels under a mask, and averages of the blocks of pixels around it.

    Attributes:
        factor: Side of the blocks in pixels; divides the image side.
        reach: A block is seen when one of its pixels is at most so many pixels, along rows and
            columns, from the mask.
    """

    factor: int = 4
    reach: int = 4

    name = "glimpses"
    needs = ("pixels", "mask")

    def __post_init__(self) -> None:
        if self.factor < 2:
            raise ConfigurationError(f"factor = {self.factor!r}: expected 2 or more")
        check_positive("reach", self.reach, zero=True)

    def condition_channels(self, contract: DataContract) -> int:
        """Sharp pixels and mask, averages and where they are seen.

        Raises:
            ConfigurationError: The factor does not divide the side.
        """
        if contract.size % self.factor:
            raise ConfigurationError(
                f"factor = {self.factor!r}: expected a divisor of the image side {contract.size}"
            )
        return 2 * (contract.channels + 1)

    def condition(self, subject: Subject, contract: DataContract) -> Tensor:
        """Sharp pixels, mask, averages, where they are seen: float32 (B,2C+2,H,W)."""
        pixels, mask = subject.pixels, subject.mask
        assert pixels is not None
        assert mask is not None
        averages, seen = self._coarse(pixels, mask)
        visible = encoder_input(averages, contract) * seen
        coarse = torch.cat([visible, seen.float()], dim=1)
        coarse = interpolate(coarse, scale_factor=float(self.factor), mode="nearest")
        return torch.cat([Inpainting().condition(subject, contract), coarse], dim=1)

    def measure(self, pixels: Tensor, mask: Tensor) -> Tensor:
        """Averages, nan where they are not seen: float32 (B,C*(H/factor)*(W/factor))."""
        averages, seen = self._coarse(pixels, mask)
        return averages.masked_fill(~seen, torch.nan).flatten(1)

    def picture(self, subject: Subject, contract: DataContract) -> Tensor:
        """Sharp pixels over blocks, black where nothing is seen."""
        del contract
        pixels, mask = subject.pixels, subject.mask
        assert pixels is not None
        assert mask is not None
        averages, seen = self._coarse(pixels, mask)
        blocks = interpolate((averages * seen).round(), size=pixels.shape[2:], mode="nearest")
        return torch.where(mask, pixels, blocks.to(torch.uint8))

    def choose_masks(self, config: MaskConfig) -> MaskConfig:
        """Up to five squares."""
        return MaskConfig(kinds={"patches": 1.0}, stratified=False, pool=config.pool)

    def _coarse(self, pixels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Averages (B,C,h,w) in grey levels, and bool (B,1,h,w) which of them are seen."""
        near = max_pool2d(mask.float(), 2 * self.reach + 1, stride=1, padding=self.reach)
        seen = max_pool2d(near, self.factor).bool()
        return avg_pool2d(pixels.float(), self.factor), seen
