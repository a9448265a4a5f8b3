"""The bottom-up network: one activation map per resolution."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condvae.vdvae.architecture import Architecture
from condvae.vdvae.blocks import LEAK, Block, convolution, scale_weight

__all__ = ["Encoder", "LinkedEncoder", "new_encoder"]


class Encoder(nn.Module):
    """Bottom-up network of VDVAE; with other `inputs` also IPA's partial encoder.

    Args:
        architecture: Gives the blocks and widths.
        inputs: Channels of the input image.
    """

    def __init__(self, architecture: Architecture, inputs: int) -> None:
        super().__init__()
        self.architecture = architecture
        kernel_size = 1 if architecture.is_efficient else 3
        width = architecture.width_at(architecture.image_size)
        self.in_conv = convolution(inputs, width, kernel_size)
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
                # The other family pools by a convolution of its own.
                down_rate=None if architecture.is_efficient else spec.down_rate,
                activation=architecture.activation,
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


class LinkedEncoder(Encoder):
    """Bottom-up network of Efficient-VDVAE: links from single blocks, learned pooling.

    Args:
        architecture: Of the family ``efficient_vdvae``.
        inputs: Channels of the input image.
    """

    def __init__(self, architecture: Architecture, inputs: int) -> None:
        super().__init__(architecture, inputs)
        self.links, self.pools = nn.ModuleDict(), nn.ModuleDict()
        for index, spec in enumerate(architecture.encoder_blocks):
            width = architecture.width_at(spec.resolution)
            if spec.linked:
                self.links[str(index)] = convolution(width, width, 1)
            if spec.down_rate is not None:
                below = architecture.width_at(spec.resolution_after)
                rate = spec.down_rate
                self.pools[str(index)] = nn.Conv2d(width, below, kernel_size=rate, stride=rate)

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        """(B, inputs, H, W) -> {R: (B, links at R times width at R, R, R)}.

        What the linked blocks of a resolution give, side by side and bottom-up;
        `Architecture.linked_channels` says which of it a group sees.
        """
        h: Tensor = self.in_conv(x)
        linked: dict[int, list[Tensor]] = {}
        for index, block in enumerate(self.enc_blocks):
            h = block(h)
            if str(index) in self.links:
                linked.setdefault(h.shape[2], []).append(self.links[str(index)](h))
            if str(index) in self.pools:
                h = F.leaky_relu(self.pools[str(index)](h), LEAK)
        return {size: torch.cat(tensors, dim=1) for size, tensors in linked.items()}


def new_encoder(architecture: Architecture, inputs: int) -> Encoder:
    """The bottom-up network of an architecture's family, randomly initialised.

    Args:
        architecture: Gives the blocks and widths.
        inputs: Channels of the input image.
    """
    return (LinkedEncoder if architecture.is_efficient else Encoder)(architecture, inputs)
