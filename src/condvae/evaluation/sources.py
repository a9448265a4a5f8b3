"""Where completions come from: the contract of a source, and a posterior as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from condvae.evaluation.cases import EvaluationCase
from condvae.ground.files import fingerprint
from condvae.posterior.bounds import BoundTerms
from condvae.posterior.image_posterior import ImagePosterior
from condvae.posterior.importance import ImportanceBound, importance_bound
from condvae.tasks.observation import Observation
from condvae.tasks.subject import SideInformation

__all__ = ["CompletionSource", "PosteriorSource"]


class CompletionSource(Protocol):
    """Gives the completions of the cases of one manifest, a few cases at a time."""

    @property
    def completions(self) -> int:
        """S, completions of every case."""
        ...

    @property
    def identity(self) -> str:
        """Hash of everything that decides the completions."""
        ...

    def draw(self, start: int, stop: int) -> Tensor:
        """uint8 (S,B,C,H,W) of the cases start .. stop-1; observed pixels as the system left them."""
        ...

    def bound(self, start: int, stop: int) -> tuple[BoundTerms, ImportanceBound | None] | None:
        """Bounds on log p(x~ | y) of these cases; None when the system has no likelihood."""
        ...


@dataclass(frozen=True)
class PosteriorSource:
    """Completions drawn from a posterior.

    Attributes:
        posterior: The model.
        cases: N cases; the noise of an observation follows case id and case seed.
        truths: uint8 (N,C,H,W). Cases are observed when they are drawn: conditions of all of them
            would take 1 MB for each of 256 x 256 pixels.
        completions: S.
        temperature: Of the latents.
        seed: Of all draws, with the case's own.
        batch_size: Images per pass.
        bound_draws: Numbers of draws of the importance-weighted bound; () for none, None for no
            likelihood scores at all.
        model: Hash of the weights, or any text that no other model has.
        side_information: What is known of the image set besides pixels, by `image_id`.
    """

    posterior: ImagePosterior
    cases: Sequence[EvaluationCase]
    truths: Tensor
    completions: int
    temperature: float
    seed: int
    batch_size: int
    bound_draws: tuple[int, ...] | None
    model: str
    side_information: SideInformation = field(default_factory=SideInformation)

    @property
    def identity(self) -> str:
        """Hash of model and settings; `batch_size` decides nothing."""
        return fingerprint(
            {
                "model": self.model,
                "completions": self.completions,
                "temperature": self.temperature,
                "seed": self.seed,
                "bound_draws": self.bound_draws,
            }
        )

    def observe(self, start: int, stop: int) -> Observation:
        """The observations of the cases start .. stop-1."""
        part = self.cases[start:stop]
        masks = torch.from_numpy(np.stack([case.mask for case in part])).unsqueeze(1)
        names = tuple(f"{case.case_id}/{case.seed}" for case in part)
        rows = np.array([case.image_id for case in part])
        task = self.posterior.task
        subject = self.side_information.subject(self.truths[start:stop], masks, rows, task.needs)
        return task.observe(subject, self.posterior.contract, names)

    def draw(self, start: int, stop: int) -> Tensor:
        """Raw completions."""
        return self.posterior.sample(
            self.observe(start, stop),
            self.completions,
            temperature=self.temperature,
            seed=self.seed,
            paste_observed=False,
            batch_size=self.batch_size,
        )

    def bound(self, start: int, stop: int) -> tuple[BoundTerms, ImportanceBound | None] | None:
        """Both bounds; the temperature does not enter them."""
        if self.bound_draws is None:
            return None
        part, pixels = self.observe(start, stop), self.truths[start:stop]
        settings = {"seed": self.seed, "batch_size": self.batch_size}
        one = self.posterior.bound(pixels, part, **settings)
        if not self.bound_draws:
            return one, None
        return one, importance_bound(self.posterior, pixels, part, self.bound_draws, **settings)
