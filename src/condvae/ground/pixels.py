"""From rows of a stored image array to a batch on the device."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from condvae.ground.images import to_nchw

__all__ = ["load_pixels"]


def load_pixels(images: NDArray[np.uint8], rows: NDArray[np.int64], device: torch.device) -> Tensor:
    """Copy rows of a (memory-mapped) uint8 (N,H,W,C) array to the device as uint8 (B,C,H,W)."""
    batch = torch.from_numpy(np.ascontiguousarray(images[rows]))
    return to_nchw(batch.to(device))
