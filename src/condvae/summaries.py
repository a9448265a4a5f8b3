"""Pixel-wise statistics of completions from counts of grey levels: exact, and of constant size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["PosteriorSummary", "summarise_counts"]


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


def _rank(level: float, n: int) -> int:
    """The smallest k >= 1 with k / n >= level."""
    k = max(1, math.ceil(level * n))
    # The product may have been rounded up: 0.07 * 100 > 7, although 7 / 100 >= 0.07.
    return k - 1 if k > 1 and (k - 1) / n >= level else k


def summarise_counts(
    counts: np.ndarray[Any, Any], n: int, quantiles: Sequence[float]
) -> PosteriorSummary:
    """Moments and quantiles of grey-level counts (B,C,H,W,256)."""
    levels = np.arange(256.0)
    mean = counts @ levels / n
    second = counts @ levels**2 / n
    variance = np.maximum(second - mean**2, 0.0) * n / (n - 1)
    cumulative = counts.cumsum(axis=-1, dtype=np.uint32)
    maps = {
        level: torch.from_numpy((cumulative >= _rank(level, n)).argmax(axis=-1).astype(np.uint8))
        for level in quantiles
    }
    return PosteriorSummary(
        torch.from_numpy(mean.astype(np.float32)),
        torch.from_numpy(np.sqrt(variance).astype(np.float32)),
        maps,
        n,
    )
