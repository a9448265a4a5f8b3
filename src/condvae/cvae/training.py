"""Training of a flat conditional VAE: in two stages, or jointly.

Images are not augmented. The result are the averaged weights of the best validation; the test split has
no part in any choice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from condvae.cvae.config import CvaeConfig
from condvae.cvae.model import FlatVAE, new_cvae
from condvae.cvae.objectives import CvaeObjective, PriorObjective, TrainingImages
from condvae.ground.devices import place
from condvae.ground.files import fingerprint
from condvae.ground.images import DataContract
from condvae.ground.state_dicts import refuse_differences
from condvae.training.callbacks import Callback
from condvae.training.config import TrainingConfig
from condvae.training.loop import FitResult, fit
from condvae.training.start import Start

__all__ = ["CvaeObjective", "CvaeRun", "PriorObjective", "TrainingImages", "train_cvae"]

BEST = "best.pt"


@dataclass(frozen=True)
class CvaeRun:
    """What `train_cvae` gave.

    Attributes:
        model: With the best averaged weights, frozen, in evaluation mode.
        stages: Result of each stage by name (``cvae``, ``prior``); `weights` are the last averaged
            ones, those of `model` may be from an earlier validation.
        fingerprint: Of all that decides the outcome.
    """

    model: FlatVAE
    stages: dict[str, FitResult]
    fingerprint: str


def train_cvae(
    config: CvaeConfig,
    contract: DataContract,
    images: TrainingImages,
    training: TrainingConfig,
    prior_training: TrainingConfig,
    folder: Path,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    callbacks: Sequence[Callback] = (),
) -> CvaeRun:
    """Train a model, or go on; finished, it only opens the result.

    Every stage has a folder of its own, named by all that decides its outcome. Priors that are fitted
    to the same VAE share its folder, and so its training.

    Args:
        config: The model, and whether it is trained in two stages.
        contract: Of the images.
        images: What to train on.
        training: Of the VAE, and of everything where training is joint.
        prior_training: Of the prior in the second stage.
        folder: Stages go to folders in it.
        seed: Of initial weights, order, noise and dropped values.
        device: Where to train.
        callbacks: Listeners (progress, tracking).

    Raises:
        ConfigurationError: A folder is in use, or memory ran out.
        TrainingDivergedError: See `fit`.
    """
    model = place(new_cvae(config, images.table.attributes, contract, seed), device)
    shared = model, images
    identity: dict[str, Any] = {
        "model": config.vae_facts,
        "contract": dataclasses.asdict(contract),
        "training": training.facts(),
        "seed": seed,
        **images.identity(),
    }
    stages = {"cvae": _run(CvaeObjective(*shared, training, seed), folder, identity, callbacks)}
    if config.training == "two_stage" and model.prior_conditions is not None:
        facts = dataclasses.asdict(config)
        identity = {
            "vae": fingerprint(identity),
            "prior": {name: facts[name] for name in facts if name.startswith("prior")},
            "prior_training": prior_training.facts(),
        }
        objective = PriorObjective(*shared, prior_training, seed)
        stages["prior"] = _run(objective, folder, identity, callbacks)
    return CvaeRun(model.eval().requires_grad_(False), stages, fingerprint(identity))


def _run(
    objective: CvaeObjective,
    folder: Path,
    identity: Mapping[str, Any],
    callbacks: Sequence[Callback],
) -> FitResult:
    """Do one stage and put the weights that were best into the model."""
    run = fingerprint(dict(identity))
    where = folder / f"{objective.name}-{run[:12]}"
    objective.best = where / BEST
    result = fit(
        *(objective.config, objective, where, run),
        start=Start(identity=identity),
        callbacks=callbacks,
    )
    own = objective.trained
    weights = objective.load_best() or result.weights
    refuse_differences(own, weights, "averaged weights")
    with torch.no_grad():
        for name, value in weights.items():
            own[name].copy_(value)
    objective.measure()
    return result
