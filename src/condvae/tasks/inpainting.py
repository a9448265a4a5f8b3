"""Inpainting and outpainting: some pixels are seen, the rest are to be predicted."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from condvae.ground.images import DataContract, encoder_input
from condvae.masks.sampling import MaskConfig
from condvae.tasks.subject import Subject
from condvae.tasks.task import Task

__all__ = ["Inpainting", "Outpainting"]


class Inpainting(Task):
    """y = (normalised pixels where observed and 0 elsewhere, mask).

    The zero fill comes after normalisation, so that it means the data set's average grey, and all
    colours of a pixel share one mask channel (Harvey et al. 2022).
    """

    name = "inpainting"
    needs = ("pixels", "mask")
    is_exact = True

    def condition_channels(self, contract: DataContract) -> int:
        """Image channels and the mask."""
        return contract.channels + 1

    def condition(self, subject: Subject, contract: DataContract) -> Tensor:
        """Visible pixels and the mask: float32 (B,C+1,H,W)."""
        pixels, mask = subject.pixels, subject.mask
        assert pixels is not None
        assert mask is not None
        visible = encoder_input(pixels, contract) * mask
        return torch.cat([visible, mask.to(visible.dtype)], dim=1)


class Outpainting(Inpainting):
    """Inpainting whose masks show a window in the centre: what lies around it is to be predicted."""

    name = "outpainting"

    def choose_masks(self, config: MaskConfig) -> MaskConfig:
        """Centred windows of all sizes."""
        return dataclasses.replace(config, kinds={"centre_window": 1.0})
