"""Is a conditional image model any good? A tidy table of numbers from its test images.

Likelihood of real images and how much of it the condition explains; whether samples show what they
were asked for, look like real images and differ as much as real ones; whether p(y | x) is calibrated.
Sampling and Bayes' rule come in as functions, so that anything that can do both is judged alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from condvae.calibration.probabilities import assess_probabilities
from condvae.cvae.sample_scores import Row, SampleJudge, score_row
from condvae.ground.attributes import Attribute, check_conditions
from condvae.ground.configuration import (
    ConfigurationError,
    check_choice,
    check_positive,
    check_seed,
)
from condvae.scores.attribute_classifier import AttributeNetwork
from condvae.scores.attribute_scores import ALL
from condvae.scores.estimates import mean_score

__all__ = [
    "ConditionalModel",
    "EvaluationSettings",
    "ImageSampler",
    "ValueClassifier",
    "evaluate",
    "shuffle_conditions",
]


class ConditionalModel(Protocol):
    """What is judged."""

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """The A attributes of its conditions."""

    def log_prob(
        self, pixels: Tensor, y: Tensor, draws: int, *, seed: int, batch_size: int
    ) -> Tensor:
        """Estimate log p(x | y) of uint8 (B,C,H,W) in nats, (B,), from importance-weighted draws.

        The noise of an image depends on the seed and not on y.
        """


class ImageSampler(Protocol):
    """`condvae.cvae.generation.sample`: uint8 (S,B,C,H,W) for conditions (B,A)."""

    def __call__(
        self,
        model: Any,
        y: Tensor,
        n: int,
        seed: int,
        *,
        temperature: float,
        guidance: float,
        pixels: str,
    ) -> Tensor:
        """Draw n images of each condition."""


class ValueClassifier(Protocol):
    """`condvae.cvae.classification.classify`: probabilities (B,K) of the values of an attribute."""

    def __call__(
        self, model: Any, pixels: Tensor, y: Tensor, name: str, draws: int, *, seed: int
    ) -> Tensor:
        """Apply Bayes' rule to log p(x | y), the other attributes as in y."""


@dataclass(frozen=True)
class EvaluationSettings:
    """How a conditional image model is judged.

    Attributes:
        draws: K, importance-weighted draws of each log p(x | y).
        samples: S, images drawn of each test condition, at least 2.
        temperature: Of the prior when sampling.
        guidance: Strength of the condition when sampling, 1 = none.
        pixels: What is taken of the decoder: ``mean``, ``sample``, or both, judged apart.
        resamples: Bootstrap resamples for the standard errors of Frechet distances.
        batch_size: Images, or pairs of image and draw, seen by a network at a time.
        seed: Of everything random.
    """

    draws: int = 64
    samples: int = 4
    temperature: float = 1.0
    guidance: float = 1.0
    pixels: tuple[str, ...] = ("mean", "sample")
    resamples: int = 50
    batch_size: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("draws", "batch_size"):
            check_positive(name, getattr(self, name))
        for name in ("temperature", "guidance", "resamples"):
            check_positive(name, getattr(self, name), zero=True)
        check_seed("seed", self.seed)
        if self.samples < 2:
            raise ConfigurationError(f"samples = {self.samples!r}: expected at least 2")
        if not self.pixels:
            raise ConfigurationError("pixels = (): expected mean, sample or both")
        for kind in self.pixels:
            check_choice("pixels", kind, ("mean", "sample"))


def evaluate(
    model: ConditionalModel,
    images: Tensor,
    y: Tensor,
    classifier: AttributeNetwork,
    *,
    extractor: str,
    sample: ImageSampler,
    classify: ValueClassifier | None = None,
    held_out: ArrayLike | None = None,
    settings: EvaluationSettings | None = None,
) -> list[Row]:
    """Judge a conditional image model on test images.

    Args:
        model: What is judged.
        images: uint8 (N,C,H,W), real images the model was not trained on, in any order.
        y: float32 (N,A), their attributes, nan = unknown; on the model's device, as the images. Each
            row is also a condition to sample at.
        classifier: Trained on real training images, with the model's attributes.
        extractor: Name of the classifier, from its card.
        sample: Draws images.
        classify: p(value | x) by Bayes; `None` leaves calibration out.
        held_out: bool (N,), images whose combination of attributes training did not see. They are a
            group of their own.
        settings: See there.

    Returns:
        Rows with ``metric``; ``attribute`` (``all``, ``class``, ``class=3``); ``group`` (``all``,
        ``seen``, ``held_out``); ``pixels`` (``mean``, ``sample``, ``real``: scores of real images,
        which no model exceeds but by chance; None); ``value``, ``standard_error``, ``n``; ``k``, number
        of draws of each case; ``temperature``, ``guidance`` where images were sampled; ``extractor``.
        Log-densities are of the 8-bit image where the model's likelihood is discretised.

    Raises:
        ConfigurationError: Shapes or attributes that do not fit.
    """
    how = settings or EvaluationSettings()
    groups = _check(model, images, y, classifier, held_out)
    judge = SampleJudge(
        classifier,
        extractor,
        images.cpu(),
        y.cpu(),
        groups,
        resamples=how.resamples,
        batch_size=how.batch_size,
        seed=how.seed,
    )
    rows = _likelihood_rows(model, images, y, groups, how) + judge.real_rows()
    sampling = {"temperature": how.temperature, "guidance": how.guidance}
    for kind in how.pixels:
        drawn = sample(model, y, how.samples, how.seed, pixels=kind, **sampling)
        rows += [row | {"pixels": kind} | sampling for row in judge.sample_rows(drawn.cpu())]
    if classify is not None:
        rows += _calibration_rows(model, images, y, classify, how)
    return rows


def shuffle_conditions(n: int, seed: int) -> Tensor:
    """Rows (n,) that give every image the condition of another image; one image keeps its own."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    rows = torch.empty_like(order)
    rows[order] = order.roll(1)
    return rows


def _check(
    model: ConditionalModel,
    images: Tensor,
    y: Tensor,
    classifier: AttributeNetwork,
    held_out: ArrayLike | None,
) -> dict[str, NDArray[np.bool_]]:
    """Return the groups, name -> rows (N,)."""
    check_conditions(model.attributes, y)
    names = [tuple((a.name, a.values) for a in own.attributes) for own in (model, classifier)]
    if names[0] != names[1]:
        raise ConfigurationError(
            f"the classifier reads {names[1]}: expected the model's attributes, {names[0]}"
        )
    if images.dtype != torch.uint8 or images.ndim != 4 or len(images) != len(y) or len(y) < 2:
        raise ConfigurationError(
            f"images of type {images.dtype} and shape {tuple(images.shape)} with {len(y)} "
            "conditions: expected torch.uint8 and (N, C, H, W), N >= 2, one condition each"
        )
    groups = {ALL: np.ones(len(y), dtype=bool)}
    if held_out is not None:
        unseen = np.asarray(held_out)
        if unseen.shape != (len(y),) or unseen.dtype != bool:
            raise ConfigurationError(
                f"held_out of type {unseen.dtype} and shape {unseen.shape}: expected bool and "
                f"({len(y)},)"
            )
        groups |= {
            name: rows for name, rows in (("seen", ~unseen), ("held_out", unseen)) if rows.any()
        }
    return groups


def _likelihood_rows(
    model: ConditionalModel,
    images: Tensor,
    y: Tensor,
    groups: Mapping[str, NDArray[np.bool_]],
    how: EvaluationSettings,
) -> list[Row]:
    """Log p(x | y), and what is lost when every image gets another one's condition."""
    shuffled = y[shuffle_conditions(len(y), how.seed).to(y.device)]
    # Of one seed: an image has the same noise under both conditions, so the difference is paired.
    own, others = (
        model.log_prob(images, condition, how.draws, seed=how.seed, batch_size=how.batch_size)
        .double()
        .cpu()
        .numpy()
        for condition in (y, shuffled)
    )
    bits = -own / (images[0].numel() * math.log(2))
    rows = []
    for group, members in groups.items():
        for metric, values in (
            ("log_prob_nats", own),
            ("bits_per_dim", bits),
            ("information_used_nats", own - others),
        ):
            rows.append(score_row(metric, mean_score(values[members]), group=group, k=how.draws))
    return rows


def _calibration_rows(
    model: ConditionalModel,
    images: Tensor,
    y: Tensor,
    classify: ValueClassifier,
    how: EvaluationSettings,
) -> list[Row]:
    """Of p(value | x) for every categorical attribute, where the true value is known."""
    rows = []
    for place, attribute in enumerate(model.attributes):
        known = torch.nonzero(~y[:, place].isnan())[:, 0]
        if len(attribute.values) < 2 or len(known) == 0:
            continue
        probabilities = (
            classify(model, images[known], y[known], attribute.name, how.draws, seed=how.seed)
            .double()
            .cpu()
            .numpy()
        )
        labels = y[known, place].long().cpu().numpy()
        if probabilities.shape != (len(known), len(attribute.values)):
            raise ConfigurationError(
                f"probabilities of {attribute.name} of shape {probabilities.shape}: expected "
                f"{(len(known), len(attribute.values))}"
            )
        found = assess_probabilities(probabilities, labels, seed=how.seed)
        rows += [
            score_row(f"bayes_{metric}", score, attribute=attribute.name, k=how.draws)
            for metric, score in found.items()
        ]
    return rows
