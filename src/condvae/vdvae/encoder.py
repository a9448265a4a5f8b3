"""The bottom-up network: one activation map per resolution."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from condvae.vdvae.architecture import Architecture
from condvae.vdvae.blocks import Block, convolution, scale_weight

__all__ = ["Encoder"]


class Encoder(nn.Module):
    """Bottom-up network of VDVAE; with other `inputs` also IPA's partial encoder.

    Args:
        architecture: Gives the blocks and widths.
        inputs: Channels of the input image.
    """

    def __init__(self, architecture: Architecture, inputs: int) -> None:
        super().__init__()
        self.architecture = architecture
        self.in_conv = convolution(inputs, architecture.width_at(architecture.image_size), 3)
        specs = architecture.encoder_blocks
        self.enc_blocks = nn.ModuleList()
        for spec in specs:
            width = architecture.width_at(spec.resolution)
            block = Block(
                width,
                int(width * architecture.bottleneck),
                width,
                spec.resolution,
                residual=True,
                down_rate=spec.down_rate,
            )
            scale_weight(block.c4, math.sqrt(1.0 / len(specs)))
            self.enc_blocks.append(block)

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        """(B, inputs, H, W) -> {R: (B, width at R, R, R)}, the last activation at each resolution."""
        h: Tensor = self.in_conv(x)
        activations = {h.shape[2]: h}
        for block in self.enc_blocks:
            h = block(h)
            missing = self.architecture.width_at(h.shape[2]) - h.shape[1]
            if missing > 0:
                h = F.pad(h, (0, 0, 0, 0, 0, missing))
            activations[h.shape[2]] = h
        return activations
