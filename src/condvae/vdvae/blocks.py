"""The residual bottleneck block that every part of a VDVAE is made of."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["LEAK", "Block", "convolution", "scale_weight"]

# Slope of the leaky ReLU after learned pooling and enlarging (Hazami et al. 2022).
LEAK = 0.1


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


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "silu": F.silu}


class Block(nn.Module):
    """Activation and convolution four times: 1x1 down, two 3x3 (1x1 where R <= 2), 1x1 up.

    Args:
        inputs: Input channels.
        middle: Channels between the first and the last convolution.
        outputs: Output channels.
        resolution: Where the block works; at 1 and 2 every kernel is 1x1.
        residual: Add the input (then `inputs` must equal `outputs`).
        down_rate: Average-pool the output by this factor, None = keep.
        zero_last: Start with the last convolution at zero.
        activation: ``gelu`` (Child 2020) or ``silu`` (Hazami et al. 2022).
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
        activation: str = "gelu",
    ) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.residual = residual
        self.down_rate = down_rate
        kernel_size = 3 if resolution > 2 else 1
        self.c1 = convolution(inputs, middle, 1)
        self.c2 = convolution(middle, middle, kernel_size)
        self.c3 = convolution(middle, middle, kernel_size)
        self.c4 = convolution(middle, outputs, 1, zero=zero_last)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, R, R) -> (B, outputs, R / down_rate, R / down_rate)."""
        out: Tensor = self.c1(self.activation(x))
        out = self.c2(self.activation(out))
        out = self.c3(self.activation(out))
        out = self.c4(self.activation(out))
        if self.residual:
            out = x + out
        if self.down_rate is not None:
            out = F.avg_pool2d(out, kernel_size=self.down_rate, stride=self.down_rate)
        return out
