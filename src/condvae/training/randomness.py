"""Randomness of a training step, a pure function of (seed, step): nothing to save, nothing to lose.

A resumed run draws the same rows, masks and noise as one that was never interrupted.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from condvae.vdvae.decoder import LatentGroup
from condvae.vdvae.model import Noise

__all__ = ["latent_noise", "rows_of_step", "step_rng"]

# Streams keep the uses of one (seed, step) independent of each other.
_ORDER, _STEP, _NOISE = 0, 1, 2


def rows_of_step(n_rows: int, batch_size: int, step: int, seed: int) -> NDArray[np.int64]:
    """Rows of one batch: epoch after epoch of random permutations, batches may span two.

    Args:
        n_rows: Size of the data set.
        batch_size: Rows to return.
        step: 0-based step.
        seed: Of the run.
    """
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs = positions // n_rows
    rows = np.empty(batch_size, dtype=np.int64)
    for epoch in np.unique(epochs):
        order = np.random.default_rng([_ORDER, seed, int(epoch)]).permutation(n_rows)
        here = epochs == epoch
        rows[here] = order[positions[here] % n_rows]
    return rows


def step_rng(seed: int, step: int) -> np.random.Generator:
    """NumPy generator of one step (masks and other choices)."""
    return np.random.default_rng([_STEP, seed, step])


def latent_noise(seed: int, step: int, device: torch.device, dtype: torch.dtype) -> Noise:
    """Standard normal noise for the groups of one pass, in the order they are visited."""
    state = np.random.SeedSequence([_NOISE, seed, step]).generate_state(1, np.uint64)
    generator = torch.Generator(device).manual_seed(int(state[0] >> 1))

    def noise(group: LatentGroup) -> Tensor:
        return torch.randn(group.latent_shape, generator=generator, device=device, dtype=dtype)

    return noise
