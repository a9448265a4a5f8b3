"""Training c(z | y) against a frozen VAE: IPA's forward KL as an objective of the loop."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from condvae.conditional.model import run_trunk
from condvae.conditional.objectives import forward_kl
from condvae.conditional.partial_encoder import PartialEncoder
from condvae.tasks.observation import Task
from condvae.training.acceleration import autocast
from condvae.training.config import TrainingConfig
from condvae.training.pixels import load_pixels
from condvae.training.randomness import image_noise, latent_noise, rows_of_step, step_rng
from condvae.vdvae.model import VDVAE, Noise

__all__ = ["ForwardKL"]

# Far below any log-std of a trained VDVAE's posterior; see `forward_kl`.
LOG_STD_FLOOR = -8.0


class ForwardKL:
    """Objective of conditional training: mean KL(q(z | x) || c(z | y)) in nats per dimension.

    Args:
        vae: Frozen here; its parameters stop requiring gradients.
        partial: Trained in place.
        task: Makes y from images and masks.
        images: uint8 (N,H,W,C), possibly memory-mapped.
        training_rows: Rows to train on.
        validation_rows: Rows to score.
        training_masks: bool (M,H,W), drawn from at every step.
        validation_masks: bool (len(validation_rows),H,W), fixed.
        config: Gives batch size and precision.
        seed: Of order, masks and noise.
    """

    name = "conditional"
    section = "training"

    def __init__(
        self,
        vae: VDVAE,
        partial: PartialEncoder,
        task: Task,
        images: NDArray[np.uint8],
        training_rows: NDArray[np.int64],
        validation_rows: NDArray[np.int64],
        training_masks: NDArray[np.bool_],
        validation_masks: NDArray[np.bool_],
        config: TrainingConfig,
        seed: int,
    ) -> None:
        self.vae = vae.requires_grad_(False).eval()
        self.module = partial
        self.task = task
        self.images = images
        self.training_rows = training_rows
        self.validation_rows = validation_rows
        self.training_masks = training_masks
        self.validation_masks = validation_masks
        self.config = config
        self.seed = seed

    def loss(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean KL of one batch, nats per dimension of x."""
        rows = rows_of_step(len(self.training_rows), self.config.batch_size, step, self.seed)
        chosen = step_rng(self.seed, step).integers(len(self.training_masks), size=len(rows))
        noise = latent_noise(self.seed, step, self.vae.device, self.vae.dtype)
        masks = self.training_masks[chosen]
        rates = self._rates(self.training_rows[rows], masks, noise, LOG_STD_FLOOR)
        kl_nats = rates.sum(dim=1).mean()
        dimensions = self.vae.contract.dimensions
        return kl_nats / dimensions, {"kl_nats": kl_nats.detach()}

    def validate(self) -> dict[str, float]:
        """KL in nats per image over the validation images with their fixed masks."""
        batch, values = self.config.batch_size, []
        for start in range(0, len(self.validation_rows), batch):
            rows = self.validation_rows[start : start + batch]
            noise = image_noise(self.seed, rows, self.vae.device, self.vae.dtype)
            rates = self._rates(rows, self.validation_masks[start : start + batch], noise)
            values.append(rates.sum(dim=1).double().cpu())
        if not values:
            return {}
        nats = torch.cat(values)
        return {
            "kl_nats": float(nats.mean()),
            "kl_nats_standard_error": float(nats.std() / math.sqrt(len(nats))),
        }

    def _rates(
        self,
        rows: NDArray[np.int64],
        masks: NDArray[np.bool_],
        noise: Noise,
        log_std_floor: float | None = None,
    ) -> Tensor:
        """(B,L) KL of every group."""
        device = self.vae.device
        pixels = load_pixels(self.images, rows, device)
        mask = torch.from_numpy(masks).unsqueeze(1).to(device)
        observation = self.task.observe(pixels, mask, self.vae.contract)
        with autocast(self.config.precision, device):
            trunk = run_trunk(self.vae, pixels, noise, priors=self.module.needs_prior)
            condition = observation.condition.to(self.vae.dtype)
            return forward_kl(trunk, self.module, condition, log_std_floor=log_std_floor)
