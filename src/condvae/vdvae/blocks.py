"""The residual bottleneck block that every part of a VDVAE is made of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Block", "convolution", "scale_weight"]


def convolution(inputs: int, outputs: int, kernel_size: int, *, zero: bool = False) -> nn.Conv2d:
    """A size-preserving convolution with zero bias; `zero` makes its weights zero too."""
    layer = nn.Conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    if zero:
        nn.init.zeros_(layer.weight)
    return layer


def scale_weight(layer: nn.Conv2d, factor: float) -> None:
    """Multiply a layer's initial weights in place."""
    with torch.no_grad():
        layer.weight.mul_(factor)


class Block(nn.Module):
    """GELU and convolution four times: 1x1 down, two 3x3 (1x1 where R <= 2), 1x1 up (Child 2020).

    Args:
        inputs: Input channels.
        middle: Channels between the first and the last convolution.
        outputs: Output channels.
        resolution: Where the block works; at 1 and 2 every kernel is 1x1.
        residual: Add the input (then `inputs` must equal `outputs`).
        down_rate: Average-pool the output by this factor, None = keep.
        zero_last: Start with the last convolution at zero.
    """

    def __init__(
        self,
        inputs: int,
        middle: int,
        outputs: int,
        resolution: int,
        *,
        residual: bool = False,
        down_rate: int | None = None,
        zero_last: bool = False,
    ) -> None:
        super().__init__()
        self.residual = residual
        self.down_rate = down_rate
        kernel_size = 3 if resolution > 2 else 1
        self.c1 = convolution(inputs, middle, 1)
        self.c2 = convolution(middle, middle, kernel_size)
        self.c3 = convolution(middle, middle, kernel_size)
        self.c4 = convolution(middle, outputs, 1, zero=zero_last)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, R, R) -> (B, outputs, R / down_rate, R / down_rate)."""
        out: Tensor = self.c1(F.gelu(x))
        out = self.c2(F.gelu(out))
        out = self.c3(F.gelu(out))
        out = self.c4(F.gelu(out))
        if self.residual:
            out = x + out
        if self.down_rate is not None:
            out = F.avg_pool2d(out, kernel_size=self.down_rate, stride=self.down_rate)
        return out
