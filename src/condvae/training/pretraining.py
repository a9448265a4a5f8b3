"""Training the unconditional VAE: the negative ELBO in nats per dimension."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from condvae.ground.devices import autocast, warn_of_slow_precision
from condvae.ground.pixels import load_pixels
from condvae.training.config import TrainingConfig
from condvae.training.randomness import image_noise, latent_noise, rows_of_step
from condvae.vdvae.model import VDVAE

__all__ = ["NegativeElbo", "bits_per_dim"]


def bits_per_dim(
    vae: VDVAE,
    images: NDArray[np.uint8],
    rows: NDArray[np.int64],
    batch_size: int,
    seed: int,
    progress: Callable[[int], object] | None = None,
) -> tuple[float, float]:
    """Mean and standard error over images of the negative ELBO in bits per dimension.

    The standard error of a single image is nan.

    Args:
        vae: The model.
        images: uint8 (N,H,W,C), possibly memory-mapped.
        rows: Images to score.
        batch_size: Images per pass; the result does not depend on it beyond rounding.
        seed: With the row decides the draw from q, one per image.
        progress: Called with the number of images of every batch.
    """
    values = []
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        pixels = load_pixels(images, part, vae.device)
        noise = image_noise(seed, part, vae.device, vae.dtype)
        with torch.no_grad():
            values.append(vae.elbo(pixels, noise).negative_elbo_nats.double().cpu())
        if progress is not None:
            progress(len(part))
    bits = torch.cat(values) / (vae.contract.dimensions * math.log(2))
    error = float(bits.std() / math.sqrt(len(bits))) if len(bits) > 1 else math.nan
    return float(bits.mean()), error


class NegativeElbo:
    """Objective of `pretrain`.

    Args:
        vae: Trained in place.
        images: uint8 (N,H,W,C), possibly memory-mapped.
        training_rows: Rows to train on.
        validation_rows: Rows to score.
        config: Gives batch size and precision.
        seed: Of order and noise.
    """

    name = "pretrain"
    section = "pretraining"

    def __init__(
        self,
        vae: VDVAE,
        images: NDArray[np.uint8],
        training_rows: NDArray[np.int64],
        validation_rows: NDArray[np.int64],
        config: TrainingConfig,
        seed: int,
    ) -> None:
        self.module = vae
        self.images = images
        self.training_rows = training_rows
        self.validation_rows = validation_rows
        self.config = config
        self.seed = seed
        warn_of_slow_precision(config.precision, vae.device, f"{self.section}.precision")

    def loss(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean negative ELBO of one batch, nats per dimension."""
        vae = self.module
        rows = rows_of_step(len(self.training_rows), self.config.batch_size, step, self.seed)
        pixels = load_pixels(self.images, self.training_rows[rows], vae.device)
        noise = latent_noise(self.seed, step, vae.device, vae.dtype)
        with autocast(self.config.precision, vae.device):
            terms = vae.elbo(pixels, noise)
        dimensions = vae.contract.dimensions
        loss = terms.negative_elbo_nats.mean() / dimensions
        rate = terms.rate_nats.detach().sum(dim=1).mean()
        return loss, {
            "bits_per_dim": loss.detach() / math.log(2),
            "kl_nats": rate,
            "distortion_nats": loss.detach() * dimensions - rate,
        }

    def validate(self) -> dict[str, float]:
        """Bits per dimension of the validation images."""
        if not len(self.validation_rows):
            return {}
        value, error = bits_per_dim(
            self.module, self.images, self.validation_rows, self.config.batch_size, self.seed
        )
        return {"bits_per_dim": value, "bits_per_dim_standard_error": error}
