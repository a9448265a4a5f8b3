"""Pixel-wise statistics of completions from counts of grey levels: exact, and of constant size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["COUNTED_VALUES", "GreyLevelCounts", "PosteriorSummary", "quantile_rank"]

# Values whose counts are held at a time: 256 counts of 4 bytes each, 64 MiB together.
COUNTED_VALUES = 2**16


@dataclass(frozen=True)
class PosteriorSummary:
    """Pixel-wise statistics over completions.

    Attributes:
        mean: float32 (B,C,H,W) in grey levels, 0-255.
        standard_deviation: float32 (B,C,H,W) in grey levels (divisor S - 1).
        quantiles: {level: uint8 (B,C,H,W)}, the smallest value with at least that share below or at.
        n: S, completions per case.
    """

    mean: Tensor
    standard_deviation: Tensor
    quantiles: dict[float, Tensor]
    n: int

    @classmethod
    def joined(cls, parts: Sequence[PosteriorSummary]) -> PosteriorSummary:
        """Put summaries of successive cases, with the same n and levels, into one."""
        return cls(
            torch.cat([part.mean for part in parts]),
            torch.cat([part.standard_deviation for part in parts]),
            {q: torch.cat([part.quantiles[q] for part in parts]) for q in parts[0].quantiles},
            parts[0].n,
        )


def quantile_rank(level: float, n: int) -> int:
    """The smallest k >= 1 with k / n >= level."""
    k = max(1, math.ceil(level * n))
    # The product may have been rounded up: 0.07 * 100 > 7, although 7 / 100 >= 0.07.
    return k - 1 if k > 1 and (k - 1) / n >= level else k


class GreyLevelCounts:
    """How often each grey level came up in every value of some images, and their exact moments.

    Args:
        shape: (B,C,H,W).
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.counts = np.zeros((*shape, 256), dtype=np.uint32)
        self.sums = np.zeros(shape, dtype=np.int64)
        self.squares = np.zeros(shape, dtype=np.int64)
        self._index = np.indices(shape[1:])

    def add(self, cases: NDArray[np.int64], pixels: NDArray[np.uint8]) -> None:
        """Count uint8 images (P,C,H,W) of the cases (P)."""
        for case, image in zip(cases.tolist(), pixels, strict=True):
            self.counts[(case, *self._index, image)] += 1
            wide = image.astype(np.int64)
            self.sums[case] += wide
            self.squares[case] += wide * wide

    def summarise(self, n: int, quantiles: Sequence[float]) -> PosteriorSummary:
        """Statistics of n images per case."""
        mean = self.sums / n
        variance = np.maximum(self.squares / n - mean**2, 0.0) * n / (n - 1)
        cumulative = self.counts.cumsum(axis=-1, dtype=np.uint32)
        maps = {
            level: torch.from_numpy(
                (cumulative >= quantile_rank(level, n)).argmax(axis=-1).astype(np.uint8)
            )
            for level in quantiles
        }
        return PosteriorSummary(
            torch.from_numpy(mean.astype(np.float32)),
            torch.from_numpy(np.sqrt(variance).astype(np.float32)),
            maps,
            n,
        )
