"""Scores of one sampler, case by case; completions of only a few cases are held at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from condvae.metrics.agreement import label_agreement, predicted_labels
from condvae.metrics.cases import EvaluationCase
from condvae.metrics.extraction import extract_features
from condvae.metrics.feature_network import FeatureNetwork
from condvae.metrics.perceptual import best_of_k, mean_pairwise_distance, perceptual_embedding
from condvae.posterior import ImagePosterior
from condvae.tasks.observation import Observation

__all__ = ["CaseScores", "Examples", "score_sampler"]

MAPS = ("block1", "block2", "block3")
# Completions embedded at a time: their activations are a few hundred times larger than the images.
EMBEDDED_AT_ONCE = 1024


@dataclass(frozen=True)
class CaseScores:
    """Scores of N cases under one sampler.

    Attributes:
        values: Metric -> (N,) float64. ``bound_bits`` is per case, to be divided by
            `predicted_dimensions`.
        predicted_dimensions: (N,) number of unobserved values.
        features: (N,D) of the first completion of every case.
        truth_features: (N,D) of the truths.
    """

    values: dict[str, NDArray[np.float64]]
    predicted_dimensions: NDArray[np.float64]
    features: NDArray[np.float32]
    truth_features: NDArray[np.float32]


@dataclass(frozen=True)
class Examples:
    """Completions of chosen cases, for pictures.

    Attributes:
        completions: uint8 (K,M,H,W,C).
        mean: float32 (M,H,W,C) over all completions, grey levels.
        standard_deviation: float32 (M,H,W,C).
    """

    completions: NDArray[np.uint8]
    mean: NDArray[np.float32]
    standard_deviation: NDArray[np.float32]


def score_sampler(
    sampler: ImagePosterior,
    cases: Sequence[EvaluationCase],
    truths: Tensor,
    labels: NDArray[np.int64] | None,
    network: FeatureNetwork,
    *,
    completions: int,
    temperature: float,
    seed: int,
    batch_size: int,
    keep: Sequence[int] = (),
    kept_completions: int = 8,
    paste_observed: bool = True,
    progress: Callable[[int], object] | None = None,
) -> tuple[CaseScores, Examples]:
    """Draw completions of every case and score them.

    Args:
        sampler: What is judged.
        cases: N cases.
        truths: uint8 (N,C,H,W).
        labels: (N,) true classes where they are known and the network tells classes apart.
        network: Gives the features.
        completions: S, completions per case.
        temperature: Of the latents.
        seed: Of all draws, with the case's own seed.
        batch_size: Images per pass of the model.
        keep: Cases whose completions are returned for pictures.
        kept_completions: How many of each.
        paste_observed: Paste observed pixels, as a user gets them.
        progress: Called with the number of cases done since the last call.

    Returns:
        Scores in the order of `cases` and the kept completions in the order of `keep`.
    """
    masks = torch.from_numpy(np.stack([case.mask for case in cases])).unsqueeze(1)
    ids = tuple(f"{case.case_id}/{case.seed}" for case in cases)
    observation = sampler.observe(truths, masks, ids)
    bound = sampler.bound(truths, observation, seed=seed, batch_size=batch_size)
    parts: dict[str, list[NDArray[np.float64]]] = {}
    features, truth_features = [], []
    chunk = max(1, EMBEDDED_AT_ONCE // completions)
    for start in range(0, len(cases), chunk):
        part = slice(start, start + chunk)
        drawn = sampler.sample(
            observation.part(start, start + chunk),
            completions,
            temperature=temperature,
            seed=seed,
            paste_observed=paste_observed,
            batch_size=batch_size,
        )
        scores, first, true = _score_chunk(
            drawn, truths[part], None if labels is None else labels[part], network
        )
        for name, value in scores.items():
            parts.setdefault(name, []).append(value)
        features.append(first)
        truth_features.append(true)
        if progress is not None:
            progress(drawn.shape[1])
    values = {
        "negative_elbo_nats_per_dim": bound.negative_elbo_nats_per_dim.numpy(),
        "bound_bits": bound.bound_bits.numpy(),
        **{name: np.concatenate(value) for name, value in parts.items()},
    }
    scores_of_cases = CaseScores(
        values,
        bound.predicted_dimensions.double().numpy(),
        np.concatenate(features),
        np.concatenate(truth_features),
    )
    examples = _examples(
        sampler,
        observation,
        keep,
        completions,
        kept_completions,
        temperature=temperature,
        seed=seed,
        paste_observed=paste_observed,
        batch_size=batch_size,
    )
    return scores_of_cases, examples


def _score_chunk(
    drawn: Tensor, truths: Tensor, labels: NDArray[np.int64] | None, network: FeatureNetwork
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.float32], NDArray[np.float32]]:
    """Scores, features of first completions and of truths for uint8 completions (S,B,C,H,W)."""
    s, b = drawn.shape[:2]
    layers = (*MAPS, "features", "logits")
    sampled = extract_features(network, drawn.flatten(0, 1), layers=layers)
    true = extract_features(network, truths, layers=layers)
    embedded = perceptual_embedding({name: sampled[name] for name in MAPS}).reshape(s, b, -1)
    scores = {
        "perceptual_best_of_k": best_of_k(
            embedded, perceptual_embedding({name: true[name] for name in MAPS})
        ),
        "perceptual_diversity": mean_pairwise_distance(embedded),
    }
    if labels is not None:
        predictions = predicted_labels(sampled["logits"]).reshape(s, b)
        scores["class_agreement"] = label_agreement(predictions, labels)
    return scores, sampled["features"].reshape(s, b, -1)[0], true["features"]


def _examples(
    sampler: ImagePosterior,
    observation: Observation,
    keep: Sequence[int],
    completions: int,
    kept_completions: int,
    **settings: Any,
) -> Examples:
    """Draw the kept cases once more: the same completions, because noise belongs to the case."""
    c = sampler.contract
    shape = (len(keep), c.size, c.size, c.channels)
    kept = min(completions, kept_completions)
    examples = Examples(
        np.empty((kept, *shape), np.uint8),
        np.empty(shape, np.float32),
        np.empty(shape, np.float32),
    )
    for index, case in enumerate(keep):
        one = observation.part(case, case + 1)
        drawn = sampler.sample(one, kept, **settings)
        summary = sampler.summarise(one, completions, **settings)
        examples.completions[:, index] = np.moveaxis(drawn[:, 0].numpy(), 1, -1)
        examples.mean[index] = np.moveaxis(summary.mean[0].numpy(), 0, -1)
        examples.standard_deviation[index] = np.moveaxis(
            summary.standard_deviation[0].numpy(), 0, -1
        )
    return examples
