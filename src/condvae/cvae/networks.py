"""Plain convolutional networks between images of any size and vectors, modulated by features of y.

Nothing is normalised over the batch: an image's output is the same alone and in any batch.

References:
    E. Perez, F. Strub, H. de Vries, V. Dumoulin, A. Courville. FiLM: visual reasoning with a general
    conditioning layer. AAAI 2018.
"""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from condvae.ground.configuration import ConfigurationError

__all__ = ["SMALLEST_SIZE", "ImageDecoder", "ImageEncoder", "scale_sizes"]

SMALLEST_SIZE = 8
# Convolutions halve the image until it is at most so large.
LAST_SIZE = 4
MOST_WIDTHS = 4


def scale_sizes(size: int) -> list[int]:
    """Heights of the scales from the image to the last one: 86 -> [86, 43, 22, 11, 6, 3].

    Raises:
        ConfigurationError: Smaller than 8.
    """
    if size < SMALLEST_SIZE:
        raise ConfigurationError(f"size = {size!r}: expected images of at least {SMALLEST_SIZE}")
    sizes = [size]
    while sizes[-1] > LAST_SIZE:
        sizes.append((sizes[-1] + 1) // 2)
    return sizes


class ImageEncoder(nn.Module):
    """From an image to a vector: convolutions of stride 2, then one linear layer.

    Args:
        channels: C.
        size: H = W, at least 8.
        width: Channels of the first scale.
        features: E, 0 where y is not looked at.
        outputs: Length of the vector.
    """

    def __init__(self, channels: int, size: int, width: int, features: int, outputs: int) -> None:
        super().__init__()
        sizes = scale_sizes(size)
        widths = _widths(width, len(sizes))
        self.stem = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.layers = nn.ModuleList(
            _Modulated(nn.Conv2d(before, after, 3, stride=2, padding=1), after, features)
            for before, after in pairwise(widths)
        )
        self.last = nn.Linear(widths[-1] * sizes[-1] ** 2, outputs)

    def forward(self, x: Tensor, features: Tensor | None) -> Tensor:
        """Return (B, outputs) of (B,C,H,W) and features (B,E), None where E is 0."""
        x = F.gelu(self.stem(x))
        for layer in self.layers:
            x = layer(x, features)
        vector: Tensor = self.last(x.flatten(1))
        return vector


class ImageDecoder(nn.Module):
    """From a vector to a map of the image's size: the encoder's scales in reverse.

    Between scales pixels are repeated, which fits every size and leaves no checkerboard.

    Args:
        inputs: Length of the vector.
        size: H = W, at least 8.
        width: Channels of the first scale.
        features: E, 0 where y is not looked at.
        outputs: Channels of the map.
    """

    def __init__(self, inputs: int, size: int, width: int, features: int, outputs: int) -> None:
        super().__init__()
        self.sizes = scale_sizes(size)[::-1]
        widths = _widths(width, len(self.sizes))[::-1]
        self.first = nn.Linear(inputs, widths[0] * self.sizes[0] ** 2)
        self.layers = nn.ModuleList(
            _Modulated(nn.Conv2d(before, after, 3, padding=1), after, features)
            for before, after in zip(widths[:1] + widths[:-1], widths, strict=True)
        )
        self.last = nn.Conv2d(widths[-1], outputs, 3, padding=1)

    def forward(self, z: Tensor, features: Tensor | None) -> Tensor:
        """Return (B, outputs, H, W) of (B, inputs) and features (B,E), None where E is 0."""
        x = self.first(z).unflatten(1, (-1, self.sizes[0], self.sizes[0]))
        for size, layer in zip(self.sizes, self.layers, strict=True):
            x = layer(F.interpolate(x, size=(size, size)), features)
        image: Tensor = self.last(x)
        return image


class _Modulated(nn.Module):
    """A convolution, scaled and shifted channel by channel by the features, and GELU."""

    def __init__(self, convolution: nn.Conv2d, channels: int, features: int) -> None:
        super().__init__()
        self.convolution = convolution
        self.film = nn.Linear(features, 2 * channels) if features else None

    def forward(self, x: Tensor, features: Tensor | None) -> Tensor:
        x = self.convolution(x)
        if self.film is not None:
            assert features is not None
            scale, shift = self.film(features)[:, :, None, None].chunk(2, dim=1)
            x = x * (1.0 + scale) + shift
        return F.gelu(x)


def _widths(width: int, scales: int) -> list[int]:
    """Channels of the image's own scale and of the smaller ones."""
    return [width] + [width * min(2**i, MOST_WIDTHS) for i in range(scales - 1)]
