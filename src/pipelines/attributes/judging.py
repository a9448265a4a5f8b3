"""What is asked of a model beside the library's evaluation: p(value | x), and one value at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from condvae.cvae.classification import classify, value_shares
from condvae.cvae.evaluation import EvaluationSettings
from condvae.cvae.generation import sample
from condvae.cvae.model import FlatVAE
from condvae.cvae.sample_scores import Row, score_row
from condvae.ground.attributes import Attribute
from condvae.scores.attribute_classifier import AttributeNetwork, predict_attributes
from condvae.scores.attribute_scores import AttributeScore, relative_score, score_attributes

__all__ = ["ALONE", "BayesClassifier", "score_single_values"]

ALONE = "alone"
"""Group of scores of samples that were asked for one value, everything else being unknown."""


class BayesClassifier:
    """p(value | x) by Bayes' rule with nothing else known; keeps what it has said.

    Args:
        attributes: Of the model.
        training_y: (N,A), conditions of the training images: p(value) is how often it occurs there.
        batch_size: Pairs of image and draw decoded at a time.

    Attributes:
        found: Attribute -> probabilities (N,K).
    """

    def __init__(
        self, attributes: Sequence[Attribute], training_y: Tensor, batch_size: int
    ) -> None:
        self._attributes, self._training_y = tuple(attributes), training_y
        self._batch_size = batch_size
        self.found: dict[str, np.ndarray[Any, Any]] = {}

    def __call__(
        self, model: Any, pixels: Tensor, y: Tensor, name: str, draws: int, *, seed: int
    ) -> Tensor:
        """Probabilities (B,K); what `y` says of other attributes might give the value away."""
        shares = value_shares(self._attributes, self._training_y, name)
        unknown = torch.full_like(y, torch.nan)
        found = classify(
            *(model, pixels, unknown, name, draws),
            seed=seed,
            shares=shares,
            batch_size=self._batch_size,
        )
        self.found[name] = found.numpy()
        return found


def score_single_values(
    model: FlatVAE,
    judge: AttributeNetwork,
    pixels: Tensor,
    y: Tensor,
    extractor: str,
    settings: EvaluationSettings,
) -> list[Row]:
    """Score samples for each value of the test conditions, nothing else of them being known.

    Args:
        model: What is judged.
        judge: Reads attributes off images.
        pixels: uint8 (N,C,H,W), real images, for the ceiling.
        y: (N,A), their attributes.
        extractor: Name of the judge.
        settings: Samples of each condition, temperature, guidance, seed; decoder means are taken.

    Returns:
        Accuracy of each categorical attribute, absolute and of the ceiling, in the group `ALONE`.
    """
    rows, count = [], settings.samples
    real = predict_attributes(judge, pixels, settings.batch_size)
    ceilings = _accuracies(real.values, y, model.attributes, 1)
    for place, attribute in enumerate(model.attributes):
        alone = torch.full_like(y, torch.nan)
        alone[:, place] = y[:, place]
        if attribute.is_continuous or alone.isnan().all():
            continue
        drawn = sample(
            *(model, alone.to(model.device), count, settings.seed),
            temperature=settings.temperature,
            guidance=settings.guidance,
            batch_size=settings.batch_size,
        )
        found = predict_attributes(judge, drawn.flatten(0, 1), settings.batch_size)
        own = _accuracies(found.values, alone, model.attributes, count)[attribute.name].score
        ceiling = relative_score(own, ceilings[attribute.name].score)
        for metric, score in (
            ("attribute_accuracy", own),
            ("attribute_accuracy_of_ceiling", ceiling),
        ):
            row = score_row(
                *(metric, score),
                extractor=extractor,
                attribute=attribute.name,
                group=ALONE,
                k=count,
            )
            sampling = {"temperature": settings.temperature, "guidance": settings.guidance}
            rows.append(row | {"pixels": "mean"} | sampling)
    return rows


def _accuracies(
    predicted: np.ndarray[Any, Any], y: Tensor, attributes: Sequence[Attribute], count: int
) -> dict[str, AttributeScore]:
    """By attribute, of `count` images of each condition."""
    scores = score_attributes(
        predicted,
        np.tile(y.numpy(), (count, 1)),
        attributes,
        clusters=np.tile(np.arange(len(y)), count),
    )
    return {score.attribute: score for score in scores if score.metric == "accuracy"}
