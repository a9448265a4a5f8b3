"""From a VAE and prepared images to a posterior's folder: what one conditional training run is."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from condvae.data.store import PreparedImages
from condvae.ground.configuration import ConfigurationError
from condvae.ground.devices import explain_out_of_memory, place
from condvae.ground.state_dicts import refuse_differences
from condvae.ipa import ConditionalModel, PartialEncoder, heads_for, initialise
from condvae.masks.sampling import MaskConfig, draw_masks
from condvae.models.folder import posterior_source, save_posterior, sha256_of_vae
from condvae.posterior.image_posterior import ImagePosterior
from condvae.posterior.input_check import input_reference, most_observations
from condvae.tasks import Task, describe_task
from condvae.training import FitResult, ObjectiveConfig, TrainingConfig, fit
from condvae.training.callbacks import Callback
from condvae.training.objectives import check_objective, objective_class
from condvae.training.start import Source, StartConfig, find_start
from condvae.vdvae.model import VDVAE

__all__ = ["ConditionalRun", "ConditionalSettings", "Progress"]


class Progress(Protocol):
    """Shows how much is done."""

    def update(self, n: int) -> object:
        """`n` more."""
        ...


@dataclass(frozen=True)
class ConditionalSettings:
    """What decides the outcome of a run besides VAE, images and start.

    Attributes:
        task: Makes y.
        training: Optimisation.
        masks: Of training and validation; a task may choose others.
        objective: What is minimised, and which weights are trained.
        initialisation: How the partial encoder starts.
        flows: See `PartialEncoder`.
        flow_layers: See `PartialEncoder`.
        first_groups: See `PartialEncoder`.
        seed: Of initial weights, order, masks and noise.
    """

    task: Task
    training: TrainingConfig = field(default_factory=TrainingConfig)
    masks: MaskConfig = field(default_factory=MaskConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    initialisation: str = "copy"
    flows: str = ""
    flow_layers: int = 2
    first_groups: int | None = None
    seed: int = 0


class ConditionalRun:
    """One training run, possibly one that has begun before.

    Args:
        settings: What is trained and how.
        vae: The unconditional model; changed where the objective trains it.
        vae_sha256: Of its folder.
        images: Prepared images.
        folder: Runs go to ``training/``, the result to ``posterior/`` in it.
        start: Where the run starts that has no checkpoint.

    Attributes:
        start: What the run starts from, and so which run it is.

    Raises:
        ConfigurationError: Settings, task, images, VAE or start that do not go together.
    """

    def __init__(
        self,
        settings: ConditionalSettings,
        vae: VDVAE,
        vae_sha256: str,
        images: PreparedImages,
        folder: Path,
        start: StartConfig,
    ) -> None:
        task = settings.task
        task.check_data(images.side_information, vae.contract)
        check_objective(settings.objective, task, settings.flows)
        self.settings = settings
        self.vae = vae
        self.images = images
        self.folder = folder
        self.masks = task.choose_masks(settings.masks)
        self.partial = PartialEncoder(
            vae,
            task.condition_channels(vae.contract),
            heads_for(settings.initialisation),
            settings.flows,
            settings.flow_layers,
            settings.first_groups,
        )
        shape = self._shape()
        self.start = find_start(
            start,
            {
                "training": settings.training.facts(),
                "masks": asdict(self.masks),
                "initialisation": settings.initialisation,
                "vae": vae_sha256,
                "data": images.fingerprint,
                "seed": settings.seed,
                **shape,
                **({"objective": settings.objective.choices} if settings.objective.choices else {}),
            },
            folder / "training",
            self._open_posterior,
            shared=("vae", *shape),
        )
        self._history: list[dict[str, float]] = []

    def train(self, callbacks: Sequence[Callback] = ()) -> FitResult:
        """Train, or go on; afterwards the networks hold the averaged weights."""
        settings, vae, partial = self.settings, self.vae, self.partial
        initialise(partial, vae, settings.initialisation, settings.seed)
        place(partial, vae.device)
        validation = self.images.indices("validation")
        size = vae.contract.size
        objective = objective_class(settings.objective)(
            vae,
            partial,
            settings.task,
            self.images.pixels,
            self.images.indices("train"),
            validation,
            functools.partial(draw_masks, self.masks, size)
            if self.masks.pool is None
            else draw_masks(self.masks, size, self.masks.pool, settings.seed),
            draw_masks(self.masks, size, len(validation), settings.seed + 1),
            settings.training,
            settings.seed,
            self.images.side_information,
            settings.objective,
        )
        run = self.start.fingerprint
        result = fit(
            settings.training,
            objective,
            self.folder / "training" / run[:12],
            run,
            start=self.start,
            callbacks=callbacks,
        )
        own = dict(self._trained_weights())
        refuse_differences(own, result.weights, "averaged weights")
        with torch.no_grad():
            for name, value in result.weights.items():
                own[name].copy_(value)
        self._history = result.history
        return result

    def save(
        self,
        facts: Mapping[str, Any],
        source: Mapping[str, Any],
        progress: Callable[[str, int], AbstractContextManager[Progress]],
    ) -> dict[str, Any]:
        """Write the posterior's folder; return its card.

        Args:
            facts: For the card.
            source: For its ``weights_source``, beside the run's identity.
            progress: Opens a display of a named piece of work of so many parts.
        """
        settings = self.settings
        model = ConditionalModel(self.vae.eval(), self.partial.eval())
        posterior = ImagePosterior(model, settings.task)
        # What came to the card after the weights holds as long as they are the same.
        known = self._known_card()
        card = {
            **facts,
            **{name: known[name] for name in ("scores", "licence") if name in known},
            "weights_source": {
                **source,
                "run": self.start.fingerprint,
                **self.start.identity,
            },
            "data": self.images.describe(),
            "validation": {
                k: v
                for record in self._history[-1:]
                for k, v in record.items()
                if "validation" in k
            },
        }
        trained = settings.objective.trained
        if trained != "partial":
            card |= {"vae_changed": True, "vae_sha256": sha256_of_vae(self.vae)}
        # With all weights trained nothing has fitted the prior, which the scores go by.
        if settings.task.uses_mask and trained != "all":
            card["input_reference"] = known.get("input_reference") or self._score_validation_images(
                posterior, progress
            )
        return save_posterior(self.folder / "posterior", posterior, card)

    def _shape(self) -> dict[str, Any]:
        """What a run that is resumed must agree in; choices at their default are not stated."""
        partial = self.partial
        shape = {"heads": partial.head_kind, **describe_task(self.settings.task)}
        if partial.flow_kinds:
            shape |= {"flows": partial.flow_kinds, "flow_layers": partial.flow_layers}
        if partial.first_groups is not None:
            shape["first_groups"] = partial.first_groups
        return shape

    def _open_posterior(self, name: str) -> Source:
        """A posterior as a source of what is trained here."""
        partial, task = self.partial, describe_task(self.settings.task)
        return posterior_source(
            name,
            self.vae,
            task["task"],
            partial.head_kind,
            partial.flow_kinds,
            partial.flow_layers,
            task_options=task.get("task_options"),
            first_groups=partial.first_groups,
            trained=self.settings.objective.trained,
        )

    def _trained_weights(self) -> dict[str, Tensor]:
        """Trained weights of both networks, named as in checkpoints."""
        own = {n: p for n, p in self.partial.named_parameters() if p.requires_grad}
        if self.settings.objective.trained == "partial":
            return dict(own)
        changed = {f"vae.{n}": p for n, p in self.vae.named_parameters() if p.requires_grad}
        return {**changed, **{f"partial.{n}": p for n, p in own.items()}}

    def _known_card(self) -> Mapping[str, Any]:
        """The card that this run has written before, empty unless it is of these very weights."""
        try:
            written = self._open_posterior(str(self.folder / "posterior"))
        except ConfigurationError:
            return {}
        own = self._trained_weights()
        if written.made_by != self.start.fingerprint or written.differences:
            return {}
        if own.keys() != written.weights.keys():
            return {}
        if any(not torch.equal(value.cpu(), written.weights[n]) for n, value in own.items()):
            return {}
        return written.card

    def _score_validation_images(
        self,
        posterior: ImagePosterior,
        progress: Callable[[str, int], AbstractContextManager[Progress]],
    ) -> dict[str, Any]:
        rows = self.images.indices("validation")
        batch_size = self.settings.training.batch_size
        with (
            progress("scoring observations", most_observations(len(rows))) as bar,
            explain_out_of_memory("training.batch_size", batch_size),
        ):
            return input_reference(
                posterior,
                self.images.pixels,
                rows,
                self.masks,
                side_information=self.images.side_information,
                seed=self.settings.seed,
                batch_size=batch_size,
                progress=bar.update,
            )
