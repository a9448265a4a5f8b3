"""What the stages of training a flat conditional VAE minimise, and the images they do it on."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from condvae.cvae.conditions import drop
from condvae.cvae.model import FlatVAE
from condvae.ground.attributes import AttributeTable
from condvae.ground.configuration import ConfigurationError
from condvae.ground.devices import autocast
from condvae.ground.files import open_atomic
from condvae.ground.gaussian_pixels import GaussianPixels
from condvae.ground.noise import case_generator
from condvae.ground.pixels import load_pixels
from condvae.training.config import TrainingConfig
from condvae.training.randomness import rows_of_step

__all__ = ["CvaeObjective", "PriorObjective", "TrainingImages"]

# The std of scores and the prior's standardisation are taken from so many training images at most.
MOMENT_IMAGES = 2048


@dataclass(frozen=True)
class TrainingImages:
    """Images with their attributes.

    Attributes:
        pixels: uint8 (N,H,W,C), possibly memory-mapped.
        table: One condition per image.
        training_rows: int64, what is trained on, combinations held out excluded.
        validation_rows: int64, what is validated on; may be empty.
        fingerprint: Of the pixels, for the run's identity.
    """

    pixels: NDArray[np.uint8]
    table: AttributeTable
    training_rows: NDArray[np.int64]
    validation_rows: NDArray[np.int64]
    fingerprint: str

    def __post_init__(self) -> None:
        if len(self.pixels) != len(self.table):
            raise ConfigurationError(
                f"{len(self.pixels)} images, {len(self.table)} rows of attributes: expected as many"
            )
        if not len(self.training_rows):
            raise ConfigurationError("no training images")

    def batch(self, rows: NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor]:
        """Pixels uint8 (B,C,H,W) and conditions (B,A) of some rows."""
        return load_pixels(self.pixels, rows, device), self.table.rows(rows).to(device)

    def moment_rows(self) -> NDArray[np.int64]:
        """Training rows that moments are taken from, evenly spread."""
        count = min(len(self.training_rows), MOMENT_IMAGES)
        spread = np.linspace(0, len(self.training_rows) - 1, count).astype(np.int64)
        return np.asarray(self.training_rows[spread])

    def identity(self) -> dict[str, Any]:
        """All that decides what a run sees, for its fingerprint."""
        digest = hashlib.sha256(self.table.values.numpy().tobytes())
        for rows in (self.training_rows, self.validation_rows):
            digest.update(np.ascontiguousarray(rows, np.int64).tobytes() + b";")
        attributes = [dataclasses.asdict(attribute) for attribute in self.table.attributes]
        return {"data": self.fingerprint, "rows": digest.hexdigest(), "attributes": attributes}


class CvaeObjective:
    """Negative ELBO, summed over pixels and latents, for all weights or the VAE's.

    Both terms are divided by the number of dimensions, which leaves their balance as it is: a mean
    over pixels against a sum over latents would collapse q to the prior.

    Args:
        model: Trained in place.
        images: What on.
        config: Gives batch size and precision.
        seed: Of order, noise and dropped values.
        best: File for the averaged weights of the best validation; None = keep none.
    """

    name = "cvae"
    section = "cvae_training"

    def __init__(
        self,
        model: FlatVAE,
        images: TrainingImages,
        config: TrainingConfig,
        seed: int,
        best: Path | None = None,
    ) -> None:
        self.module = model
        self.images = images
        self.config = config
        self.seed = seed
        self.best = best
        self.standard_prior = model.config.training == "two_stage"
        model.requires_grad_(True)
        if self.standard_prior:
            for part in _prior_parts(model):
                part.requires_grad_(False)

    @property
    def trained(self) -> dict[str, Tensor]:
        """The weights that are trained, by name."""
        return {n: p for n, p in self.module.named_parameters() if p.requires_grad}

    def loss(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean over one batch of distortion + beta * rate, nats per dimension."""
        model = self.module
        pixels, y, noise, uniform = self._batch(step)
        with autocast(self.config.precision, model.device):
            terms = model.elbo(
                *(pixels, y, noise, uniform),
                standard_prior=self.standard_prior,
                fit_variance=True,
            )
        rate, distortion = terms.rate_nats.mean(), terms.distortion_nats.mean()
        bits = model.bits_per_dim(-(rate + distortion).detach())
        loss = (distortion + model.config.beta * rate) / model.contract.dimensions
        return loss, {
            "bits_per_dim": bits,
            "kl_nats": rate.detach(),
            "distortion_nats": distortion.detach(),
        }

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Bits per dimension of the validation images; the best weights so far are put aside."""
        self.measure()
        if not len(self.images.validation_rows):
            return {}
        model, values = self.module, []
        for rows in self._parts(self.images.validation_rows):
            pixels, y = self.images.batch(rows, model.device)
            noise, uniform = self._image_noise(rows)
            terms = model.elbo(*(pixels, y, noise, uniform), standard_prior=self.standard_prior)
            values.append(torch.stack([terms.rate_nats, terms.distortion_nats]).double().cpu())
        rate, distortion = torch.cat(values, dim=1)
        bits = model.bits_per_dim(-rate - distortion)
        error = bits.std() / math.sqrt(len(bits)) if len(bits) > 1 else math.nan
        scores = {
            "bits_per_dim": float(bits.mean()),
            "bits_per_dim_standard_error": float(error),
            "kl_nats": float(rate.mean()),
            "distortion_nats": float(distortion.mean()),
        }
        self._keep_best(scores["bits_per_dim"])
        return scores

    @torch.no_grad()
    def measure(self) -> None:
        """Keep the std that fits training images, with the weights as they are, for scoring.

        A running mean over the steps would be that of other weights than the averaged ones, and
        would have to be in the checkpoints.
        """
        model, total, count = self.module, 0.0, 0
        likelihood = model.likelihood
        if not isinstance(likelihood, GaussianPixels) or likelihood.variance != "optimal":
            return
        for rows in self._parts(self.images.moment_rows()):
            pixels, y = self.images.batch(rows, model.device)
            noise, uniform = self._image_noise(rows)
            mean = model.decode(model.encode(pixels, y).sample(noise), y)
            target = likelihood.target(pixels, mean.dtype, uniform)
            total += float((mean - target).square().sum(dtype=torch.float64))
            count += mean.numel()
        likelihood.keep_std(total / count)

    def load_best(self) -> Mapping[str, Tensor] | None:
        """Averaged weights of the best validation, None where there was none."""
        if self.best is None or not self.best.exists():
            return None
        weights: dict[str, Tensor] = self._read_best()["weights"]
        return weights

    def _keep_best(self, bits: float) -> None:
        """Write the weights, which validation has averaged, where they are the best so far.

        A run that goes on from an earlier checkpoint comes by the same values again, so that the file
        ends up as if it had never stopped.
        """
        if self.best is None or not math.isfinite(bits):
            return
        if self.best.exists() and self._read_best()["bits_per_dim"] <= bits:
            return
        weights = {name: value.detach() for name, value in self.trained.items()}
        with open_atomic(self.best) as file:
            torch.save({"bits_per_dim": bits, "weights": weights}, file)

    def _read_best(self) -> dict[str, Any]:
        assert self.best is not None
        found: dict[str, Any] = torch.load(self.best, map_location="cpu", weights_only=True)
        return found

    def _batch(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Pixels, conditions with some values dropped, and noise of one step."""
        model, rows = self.module, self.images.training_rows
        chosen = rows_of_step(len(rows), self.config.batch_size, step, self.seed)
        pixels, y = self.images.batch(rows[chosen], model.device)
        generator = case_generator(self.seed, f"step {step}", "training")
        noise = torch.randn(len(y), model.config.latents, generator=generator)
        y = drop(y, model.config.drop_share, generator)
        uniform = torch.rand(pixels.shape, generator=generator) if model.needs_uniform else None
        return pixels, y, *self._to_device(noise, uniform)

    def _image_noise(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor | None]:
        """Noise that belongs to images: scores do not depend on how they are batched."""
        contract = self.module.contract
        shape = contract.channels, contract.size, contract.size
        generators = [case_generator(self.seed, str(row), "validation") for row in rows]
        latents = self.module.config.latents
        noise = torch.stack([torch.randn(latents, generator=g) for g in generators])
        uniform = None
        if self.module.needs_uniform:
            uniform = torch.stack([torch.rand(shape, generator=g) for g in generators])
        return self._to_device(noise, uniform)

    def _to_device(self, noise: Tensor, uniform: Tensor | None) -> tuple[Tensor, Tensor | None]:
        place_of = self.module.device, self.module.dtype
        return noise.to(*place_of), None if uniform is None else uniform.to(*place_of)

    def _parts(self, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        size = self.config.batch_size
        return [rows[start : start + size] for start in range(0, len(rows), size)]


class PriorObjective(CvaeObjective):
    """Maximum likelihood of p(z | y) on draws from q, new ones at every step; the VAE stays frozen.

    The draws are samples: a density fitted to the means of q would be too narrow. Values of y that
    are dropped are dropped for q too, so that p(z | y) is the aggregate of what the decoder knows.
    The prior's standardisation is set here, from moments of draws for training images whose y is
    known.

    Args:
        model: Trained in place.
        images: What on.
        config: Gives batch size and precision.
        seed: Of order, noise and dropped values.
        best: File for the averaged weights of the best validation; None = keep none.
    """

    name = "prior"
    section = "prior_training"

    def __init__(
        self,
        model: FlatVAE,
        images: TrainingImages,
        config: TrainingConfig,
        seed: int,
        best: Path | None = None,
    ) -> None:
        super().__init__(model, images, config, seed, best)
        self.standard_prior = False
        model.requires_grad_(False)
        for part in _prior_parts(model):
            part.requires_grad_(True)
        self._standardise()

    def loss(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean of -log p(z | y) over one batch, nats."""
        model = self.module
        pixels, y, noise, _ = self._batch(step)
        with autocast(self.config.precision, model.device):
            with torch.no_grad():
                z = model.encode(pixels, y).sample(noise)
            loss = -model.prior.log_prob(z, model.prior_context(y)).mean()
        return loss, {"prior_nats": loss.detach()}

    def measure(self) -> None:
        """Nothing: the std belongs to the VAE, which is frozen."""

    @torch.no_grad()
    def _standardise(self) -> None:
        model, draws = self.module, []
        for rows in self._parts(self.images.moment_rows()):
            pixels, y = self.images.batch(rows, model.device)
            draws.append(model.encode(pixels, y).sample(self._image_noise(rows)[0]).double())
        z = torch.cat(draws)
        std = z.std(dim=0, correction=0).clamp(min=1e-6)
        model.prior.standardise(z.mean(dim=0).to(model.dtype), std.to(model.dtype))


def _prior_parts(model: FlatVAE) -> list[torch.nn.Module]:
    return [part for part in (model.prior, model.prior_conditions) if part is not None]
