"""Training c(z | y), and the VAE with it where that is wanted: objectives of the loop."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from condvae.ground.configuration import ConfigurationError
from condvae.ground.devices import autocast, warn_of_slow_precision
from condvae.ground.pixels import load_pixels
from condvae.ipa.heads import FLOWS, MIXTURE, parse_flows
from condvae.ipa.model import ConditionalModel, run_trunk
from condvae.ipa.objective import forward_kl
from condvae.ipa.partial_encoder import PartialEncoder
from condvae.tasks.observation import Observation
from condvae.tasks.subject import SideInformation
from condvae.tasks.task import Task
from condvae.training.config import ObjectiveConfig, TrainingConfig
from condvae.training.randomness import image_noise, latent_noise, rows_of_step, step_rng
from condvae.vdvae.model import VDVAE, Noise

__all__ = [
    "ConditionalElbo",
    "ConditionalObjective",
    "ForwardKL",
    "ReverseKL",
    "check_objective",
    "objective_class",
]

# Far below any log-std of a trained VDVAE's posterior; see `forward_kl`.
LOG_STD_FLOOR = -8.0


class ConditionalObjective(ABC):
    """Objective of conditional training: a sum of named terms, in nats per dimension of x.

    Args:
        vae: Its parameters stop requiring gradients, but for those that `objective` has trained.
        partial: Trained in place.
        task: Makes y from images and masks.
        images: uint8 (N,H,W,C), possibly memory-mapped.
        training_rows: Rows to train on.
        validation_rows: Rows to score.
        training_masks: bool (M,H,W), drawn from at every step; or a function that draws new ones,
            bool (count,H,W), of how many and a source of randomness.
        validation_masks: bool (len(validation_rows),H,W), fixed.
        config: Gives batch size and precision.
        seed: Of order, masks and noise.
        side_information: What is known of `images` besides pixels; a task may need it.
        objective: What is minimised; None = the defaults.

    Attributes:
        module: Its parameters that require gradients are trained: the partial encoder, or both
            networks under ``vae`` and ``partial``.

    Raises:
        ConfigurationError: An objective that the task does not allow.
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
        training_masks: NDArray[np.bool_] | Callable[[int, np.random.Generator], NDArray[np.bool_]],
        validation_masks: NDArray[np.bool_],
        config: TrainingConfig,
        seed: int,
        side_information: SideInformation | None = None,
        objective: ObjectiveConfig | None = None,
    ) -> None:
        self.objective = objective or ObjectiveConfig()
        check_objective(self.objective, task, partial.flow_kinds)
        self.vae = vae.requires_grad_(False).eval()
        self.partial = partial
        self.module: nn.Module = partial
        if self.objective.trained != "partial":
            part = vae if self.objective.trained == "all" else vae.decoder.out_net
            part.requires_grad_(True)
            self.module = nn.ModuleDict({"vae": vae, "partial": partial})
        self.task = task
        self.images = images
        self.training_rows = training_rows
        self.validation_rows = validation_rows
        self.training_masks = training_masks
        self.validation_masks = validation_masks
        self.config = config
        self.seed = seed
        self.side_information = side_information or SideInformation()
        warn_of_slow_precision(config.precision, vae.device, f"{self.section}.precision")

    @abstractmethod
    def terms(
        self, pixels: Tensor, observation: Observation, noise: Noise, log_std_floor: float | None
    ) -> dict[str, Tensor]:
        """Terms in nats per case.

        Args:
            pixels: uint8 (B,C,H,W), whole images.
            observation: k observations of each, those of the first kind for all images first.
            noise: Standard normal noise per group.
            log_std_floor: See `forward_kl`.

        Returns:
            Tensors (kB), or (B) where a term does not depend on the observation.
        """

    def term_weights(self, step: int) -> dict[str, float]:
        """Weights of terms in the loss of `step`; those that are not named count once."""
        del step
        return {}

    def loss(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean over one batch, nats per dimension of x, and the mean of every term in nats."""
        rows = rows_of_step(len(self.training_rows), self.config.batch_size, step, self.seed)
        count = self.objective.observations_per_image * len(rows)
        rng = step_rng(self.seed, step)
        if callable(self.training_masks):
            masks = self.training_masks(count, rng)
        else:
            masks = self.training_masks[rng.integers(len(self.training_masks), size=count)]
        noise = latent_noise(self.seed, step, self.vae.device, self.vae.dtype)
        terms = self._terms(self.training_rows[rows], masks, noise, LOG_STD_FLOOR, rng)
        means = {name: values.mean() for name, values in terms.items()}
        # After a restart `step` is beyond the last one; the weights go on as planned.
        weights = self.term_weights(step % self.config.steps)
        nats = torch.stack([weights.get(name, 1.0) * value for name, value in means.items()]).sum()
        metrics = {name: value.detach() for name, value in means.items()}
        return nats / self.vae.contract.dimensions, metrics

    def validate(self) -> dict[str, float]:
        """Means in nats per image over the validation images with their fixed masks.

        Every term, and with several of them their sum with weights of 1, ``bound_nats``; from two
        images on their standard errors too.
        """
        batch, parts = self.config.batch_size, []
        for start in range(0, len(self.validation_rows), batch):
            rows = self.validation_rows[start : start + batch]
            noise = image_noise(self.seed, rows, self.vae.device, self.vae.dtype)
            terms = self._terms(rows, self.validation_masks[start : start + batch], noise)
            parts.append({name: values.double().cpu() for name, values in terms.items()})
        if not parts:
            return {}
        found = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        if len(found) > 1:
            found["bound_nats"] = torch.stack(list(found.values())).sum(dim=0)
        scores = {}
        for name, values in found.items():
            scores[name] = float(values.mean())
            if len(values) > 1:
                scores[f"{name}_standard_error"] = float(values.std() / math.sqrt(len(values)))
        return scores

    def _terms(
        self,
        rows: NDArray[np.int64],
        masks: NDArray[np.bool_],
        noise: Noise,
        log_std_floor: float | None = None,
        rng: np.random.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Terms for rows of the data set behind masks bool (kB,H,W); `rng` is that of training."""
        device = self.vae.device
        pixels = load_pixels(self.images, rows, device)
        mask = torch.from_numpy(masks).unsqueeze(1).to(device)
        times = len(masks) // len(rows)
        needs = self.task.needs
        subject = self.side_information.subject(
            pixels.repeat(times, 1, 1, 1), mask, np.tile(rows, times), needs
        )
        if rng is not None:
            subject = self.task.hide(subject, rng)
        observation = self.task.observe(subject, self.vae.contract).to(device, self.vae.dtype)
        with autocast(self.config.precision, device):
            return self.terms(pixels, observation, noise, log_std_floor)


class ForwardKL(ConditionalObjective):
    """IPA: mean KL(q(z | x) || c(z | y)), the VAE frozen.

    The pass of the VAE over an image serves all its observations, and ends with the last group that
    is conditioned.
    """

    def terms(
        self, pixels: Tensor, observation: Observation, noise: Noise, log_std_floor: float | None
    ) -> dict[str, Tensor]:
        """``kl_nats``, the sum over the conditioned groups."""
        partial = self.partial
        trunk = run_trunk(
            self.vae,
            pixels,
            noise,
            priors=partial.needs_prior,
            groups=partial.first_groups,
        ).repeat(len(observation) // len(pixels))
        rates = forward_kl(trunk, partial, observation.condition, log_std_floor=log_std_floor)
        return {"kl_nats": rates.sum(dim=1)}


class ConditionalElbo(ConditionalObjective):
    """-O_for with weights of the VAE trained too: KL(q || c) and -log p(x~ | z).

    Groups that are not conditioned count with KL(q || p); otherwise nothing trains the prior.
    """

    def terms(
        self, pixels: Tensor, observation: Observation, noise: Noise, log_std_floor: float | None
    ) -> dict[str, Tensor]:
        """``kl_nats`` over all groups and ``distortion_nats``, -log p(x~ | z)."""
        partial = self.partial
        times = len(observation) // len(pixels)
        trunk = run_trunk(
            self.vae,
            pixels,
            noise,
            output=True,
            priors=partial.needs_prior or partial.first_groups is not None,
            gradients=self.objective.trained == "all",
        )
        rates = forward_kl(
            trunk.repeat(times), partial, observation.condition, log_std_floor=log_std_floor
        )
        nats = self.vae.pixel_nats(trunk.output, pixels)
        if self.objective.predicted == "unobserved":
            nats = torch.where(observation.mask[:, 0], 0.0, nats.repeat(times, 1, 1))
        return {"kl_nats": rates.sum(dim=1), "distortion_nats": nats.sum(dim=(1, 2))}


class ReverseKL(ConditionalObjective):
    """IPA-R: -O_rev = KL(c(z | y) || p(z)) and -log p(y | z), z drawn from c, the VAE frozen.

    Gradients go through the decoder. Needs y alone: neither the encoder nor posterior heads are run.
    """

    def terms(
        self, pixels: Tensor, observation: Observation, noise: Noise, log_std_floor: float | None
    ) -> dict[str, Tensor]:
        """``reverse_kl_nats`` and ``observed_nats``, -log p(y | z)."""
        del pixels, log_std_floor
        rates, nats = ConditionalModel(self.vae, self.partial).reverse_terms(
            self.partial.encode(observation.condition),
            observation.pixels,
            observation.mask,
            noise,
        )
        return {"reverse_kl_nats": rates.sum(dim=1), "observed_nats": nats}

    def term_weights(self, step: int) -> dict[str, float]:
        """The annealed weight of the likelihood."""
        return {"observed_nats": self.objective.likelihood_weight(step)}


def objective_class(config: ObjectiveConfig) -> Callable[..., ConditionalObjective]:
    """The class that minimises what `config` asks for."""
    if config.name == "ipa_r":
        return ReverseKL
    return ForwardKL if config.trained == "partial" else ConditionalElbo


def check_objective(config: ObjectiveConfig, task: Task, flows: str = "") -> None:
    """Refuse an objective that makes no sense for a task, or for the flows of a partial encoder.

    Args:
        config: The objective.
        task: What is observed.
        flows: See `parse_flows`.

    Raises:
        ConfigurationError: ``ipa_r`` where y is not exactly known pixels and nothing else, or with a
            mixture; or several observations per image where an image has one.
    """
    if config.name == "ipa_r" and MIXTURE in parse_flows(flows).values():
        raise ConfigurationError(
            f"flows = {flows!r}: objective.name = 'ipa_r' needs gradients through draws, which the "
            f"choice of a component has not: expected {', '.join(FLOWS)}, or ipa or joint"
        )
    if config.name == "ipa_r" and not (task.uses_mask and task.is_exact):
        raise ConfigurationError(
            f"objective.name = 'ipa_r' needs p(y | z), which the VAE gives for pixels behind a mask; "
            f"task {task.name!r} shows something else: expected ipa or joint"
        )
    if config.observations_per_image > 1 and not task.uses_mask:
        raise ConfigurationError(
            f"objective.observations_per_image = {config.observations_per_image!r}: task {task.name!r} "
            "makes one observation of an image; expected 1"
        )
