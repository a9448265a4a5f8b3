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

__all__ = ["image_noise", "latent_noise", "rows_of_step", "step_rng"]

# Streams keep the uses of one (seed, step) independent of each other.
_ORDER, _STEP, _NOISE, _IMAGE = 0, 1, 2, 3


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
    """Standard normal noise for the groups of one training pass, in the order they are visited."""
    generator = torch.Generator(device).manual_seed(_torch_seed(_NOISE, seed, step))

    def noise(group: LatentGroup) -> Tensor:
        return torch.randn(group.latent_shape, generator=generator, device=device, dtype=dtype)

    return noise


def image_noise(
    seed: int, rows: NDArray[np.int64], device: torch.device, dtype: torch.dtype
) -> Noise:
    """Standard normal noise that belongs to images: scores do not depend on how they are batched.

    Drawn in float32 on the CPU, so that every device sees the same noise.

    Args:
        seed: Of the scores.
        rows: (B,) rows of the batch in the data set.
        device: Where the noise is wanted.
        dtype: Floating type wanted.
    """
    generators = [torch.Generator().manual_seed(_torch_seed(_IMAGE, seed, int(r))) for r in rows]

    def noise(group: LatentGroup) -> Tensor:
        draws = [
            torch.randn(group.latent_shape[1:], generator=g, dtype=torch.float32)
            for g in generators
        ]
        return torch.stack(draws).to(device, dtype)

    return noise


def _torch_seed(*entropy: int) -> int:
    """A well-mixed seed for a torch generator (63 bits, which every backend takes)."""
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))
