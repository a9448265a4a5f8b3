"""A VAE before its first update."""

from __future__ import annotations

import torch

from condvae.ground.images import DataContract
from condvae.vdvae.architecture import Architecture
from condvae.vdvae.model import VDVAE

__all__ = ["new_vae"]


def new_vae(architecture: Architecture, mean: float, std: float, seed: int, bits: int = 8) -> VDVAE:
    """Build a randomly initialised VAE; the global generator is left as it was.

    Args:
        architecture: Shapes.
        mean: Subtracted from pixels on the 0-255 scale before the encoder.
        std: Divides afterwards, same scale.
        seed: Of the initial weights.
        bits: Bits per channel of the likelihood, 8 or 5.
    """
    contract = DataContract(architecture.channels, architecture.image_size, mean, std, bits)
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would also reseed every GPU.
        torch.default_generator.manual_seed(seed)
        return VDVAE(architecture, contract)
