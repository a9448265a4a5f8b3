"""Scores of one source of completions, case by case; completions of only a few cases are held."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from condvae.calibration import LEVELS
from condvae.calibration.classes import scores_by_class
from condvae.evaluation.calibrator import Calibrator
from condvae.evaluation.cases import EvaluationCase
from condvae.evaluation.chunks import ChunkFolder
from condvae.evaluation.sources import CompletionSource
from condvae.ground.configuration import ConfigurationError
from condvae.ground.images import composite
from condvae.scores.agreement import attribute_agreement, label_agreement, predicted_labels
from condvae.scores.attribute_classifier import AttributeNetwork, predict_attributes
from condvae.scores.definitions import coverage_metric
from condvae.scores.extraction import extract_features
from condvae.scores.extractors import Extractor
from condvae.scores.feature_network import FeatureNetwork
from condvae.scores.perceptual import (
    best_of_k,
    embedding_distances,
    faithfulness_weighted_variance,
    mean_pairwise_distance,
)
from condvae.scores.proper import (
    crps_sums,
    energy_score,
    posterior_mean_errors,
    sliced_energy_score,
)
from condvae.tasks.task import Task

__all__ = ["CaseScores", "Examples", "Extractors", "draw_examples", "score_cases"]

# Bandwidth of the faithfulness-weighted variance, inside the published range of 0.01 to 1.
FWV_SIGMA = 0.3
# Values of completions at a time, 256 KiB, but whole cases; layer maps are a few hundred times larger.
VALUES_AT_ONCE = 2**18
# Directions of the sliced energy score: the same in every run, so that runs compare.
DIRECTIONS_SEED = 0

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Extractors:
    """What gives features to the scores.

    Attributes:
        network: Small network of the image set: classes, and features of calibration tests.
        fidelity: Features of the scores of sets and of the energy score.
        perceptual: Perceptual distances.
        attributes: Reads attributes with the values no and yes off images; None where no attributes
            are asked for.
    """

    network: FeatureNetwork
    fidelity: Extractor
    perceptual: Extractor
    attributes: AttributeNetwork | None = None


@dataclass(frozen=True)
class CaseScores:
    """Scores of N cases under one source.

    Attributes:
        values: Metric -> (N,) float64; for ratios the numerators.
        weights: Metric -> (N,) float64, denominators of the metrics that are ratios of sums.
        features: (N,D) of the first completion of every case, by `Extractors.fidelity`.
        truth_features: (N,D) of the truths.
        predictions: (N,S), classes given to the completions; (N,0) without known classes.
        ranks: Test statistic -> (N,) ranks of the truths among their completions, see
            `condvae.evaluation.calibrator`.
        gaps: (N,2), see `condvae.calibration.reference_gaps`.
    """

    values: dict[str, NDArray[np.float64]]
    weights: dict[str, NDArray[np.float64]]
    features: NDArray[np.float32]
    truth_features: NDArray[np.float32]
    predictions: NDArray[np.int64]
    ranks: dict[str, NDArray[np.int64]]
    gaps: NDArray[np.float64]

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> CaseScores:
        """Take apart what `arrays` put together."""

        def part(prefix: str) -> dict[str, NDArray[Any]]:
            return {
                name.removeprefix(prefix): array
                for name, array in arrays.items()
                if name.startswith(prefix)
            }

        return cls(
            part("values/"),
            part("weights/"),
            arrays["features"],
            arrays["truth_features"],
            arrays["predictions"],
            part("ranks/"),
            arrays["gaps"],
        )

    def arrays(self) -> Arrays:
        """Everything under one name each, the case number as first axis."""
        return {
            **{f"values/{name}": array for name, array in self.values.items()},
            **{f"weights/{name}": array for name, array in self.weights.items()},
            **{f"ranks/{name}": array for name, array in self.ranks.items()},
            "features": self.features,
            "truth_features": self.truth_features,
            "predictions": self.predictions,
            "gaps": self.gaps,
        }


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


def score_cases(
    source: CompletionSource,
    cases: Sequence[EvaluationCase],
    truths: Tensor,
    labels: NDArray[np.int64] | None,
    extractors: Extractors,
    *,
    calibrator: Calibrator,
    task: Task | None = None,
    attributes: NDArray[np.int64] | None = None,
    folder: ChunkFolder | None = None,
    progress: Callable[[int], object] | None = None,
) -> CaseScores:
    """Draw completions of every case and score them, a few cases at a time.

    Observed pixels are pasted in before anything but the error on them is computed. The completions
    of one case are held whole, with their perceptual embeddings. Of 100 completions of 256 x 256
    pixels these take 0.2 GB with AlexNet and 3.3 GB with VGG; distances need a few copies of the
    embedding of one completion beside them.

    Args:
        source: What is judged.
        cases: N cases.
        truths: uint8 (N,C,H,W).
        labels: (N,) true classes where they are known and the network tells classes apart.
        extractors: Give features, distances and classes.
        calibrator: Ranks truths among completions.
        task: Says what y measures of an image; None for nothing but pixels.
        attributes: (N,A) of 1, 0 and -1 = none, what y asks for; scored where there is a network that
            reads them.
        folder: Where finished chunks are kept and taken from; its name must follow from
            everything that decides the scores.
        progress: Called with the number of cases done since the last call.

    Returns:
        Scores in the order of `cases`.

    Raises:
        ConfigurationError: No cases, or another number of truths.
    """
    if not 0 < len(cases) == len(truths):
        raise ConfigurationError(
            f"{len(truths)} truths for {len(cases)} cases: expected as many, at least one"
        )
    folder = folder or ChunkFolder(None)
    step = max(1, VALUES_AT_ONCE // (source.completions * truths[0].numel()))
    parts = []
    for start in range(0, len(cases), step):
        stop = min(start + step, len(cases))
        arrays = folder.load(start, stop)
        if arrays is None:
            scores = _score_chunk(
                source,
                cases[start:stop],
                truths[start:stop],
                None if labels is None else labels[start:stop],
                extractors,
                calibrator,
                task,
                None if attributes is None else attributes[start:stop],
                start,
            )
            arrays = scores.arrays()
            folder.save(start, stop, arrays)
        parts.append(arrays)
        if progress is not None:
            progress(stop - start)
    return CaseScores.from_arrays(
        {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
    )


def _score_chunk(
    source: CompletionSource,
    cases: Sequence[EvaluationCase],
    truths: Tensor,
    labels: NDArray[np.int64] | None,
    extractors: Extractors,
    calibrator: Calibrator,
    task: Task | None,
    attributes: NDArray[np.int64] | None,
    start: int,
) -> CaseScores:
    """Scores of B cases, the first of which is number `start`."""
    raw = source.draw(start, start + len(cases))
    s, b = raw.shape[:2]
    mask = torch.from_numpy(np.stack([case.mask for case in cases])).unsqueeze(1)
    drawn = composite(raw, truths, mask)
    unobserved = (~mask).expand_as(truths).flatten(1).numpy()
    values, weights = _bounds(source, start, start + b)
    pixels, true_pixels = drawn.flatten(2).numpy(), truths.flatten(1).numpy()
    error = (raw.flatten(2).float() - truths.flatten(1).float()).abs().sum(dim=0).double().numpy()
    values["observed_error"] = (error * ~unobserved).sum(axis=1) / s
    weights["observed_error"] = (~unobserved).sum(axis=1).astype(np.float64)
    values["energy_score_pixels"] = energy_score(pixels, true_pixels, unobserved)
    values["sliced_energy_score_pixels"] = sliced_energy_score(
        pixels, true_pixels, unobserved, seed=DIRECTIONS_SEED
    )
    sums, counts = crps_sums(pixels, true_pixels, unobserved)
    values["crps_per_unobserved_dim"], weights["crps_per_unobserved_dim"] = sums, counts
    errors = posterior_mean_errors(pixels, true_pixels, unobserved)
    values["posterior_mean_rmse"], weights["posterior_mean_rmse"] = errors.of_mean, counts
    values["sample_rmse"], weights["sample_rmse"] = errors.of_samples, counts
    if task is not None and (found := _consistency(task, drawn, truths, mask)) is not None:
        values["consistency_rmse"], weights["consistency_rmse"] = found
    flat = drawn.flatten(0, 1)
    if attributes is not None and extractors.attributes is not None:
        read = predict_attributes(extractors.attributes, flat, _batch(flat)).values.astype(np.int64)
        shown, asked = attribute_agreement(read.reshape(s, b, -1), attributes)
        values["attribute_agreement"], weights["attribute_agreement"] = shown, asked
    embedded = _embed(extractors.perceptual, flat).reshape(s, b, -1)
    true_embedded = _embed(extractors.perceptual, truths)
    values["perceptual_best_of_k"] = best_of_k(embedded, true_embedded)
    values["perceptual_diversity"] = mean_pairwise_distance(embedded)
    mean_image = drawn.double().mean(dim=0).round().to(torch.uint8)
    values["faithfulness_weighted_variance"] = faithfulness_weighted_variance(
        embedding_distances(embedded, true_embedded),
        embedding_distances(embedded, _embed(extractors.perceptual, mean_image)),
        FWV_SIGMA,
    )
    features = extractors.fidelity.features(flat).reshape(s, b, -1)
    true_features = extractors.fidelity.features(truths)
    values["energy_score_features"] = energy_score(features, true_features)
    small, logits = (found.reshape(s, b, -1) for found in _classify(extractors.network, flat))
    true_small, true_logits = _classify(extractors.network, truths)
    predictions, classes = np.empty((0, b), np.int64), None
    if labels is not None:
        predictions, classes = predicted_labels(logits), (logits, true_logits)
        values["class_agreement"] = label_agreement(predictions, labels)
        values |= _class_scores(predictions, labels, logits.shape[2])
    ranks, covered, gaps = calibrator.rank(start, pixels, small, true_small, classes)
    for level, count in zip(LEVELS, covered.T, strict=True):
        name = coverage_metric(level)
        values[name], weights[name] = count, counts
    return CaseScores(values, weights, features[0], true_features, predictions.T, ranks, gaps)


def _consistency(
    task: Task, drawn: Tensor, truths: Tensor, mask: Tensor
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Sums (B,) of squared differences in what y says, mean over completions, and their numbers."""
    true = task.measure(truths, mask)
    if true is None:
        return None
    total = torch.zeros(len(truths), dtype=torch.float64)
    for images in drawn:
        found = task.measure(images, mask)
        assert found is not None
        total += (found - true).double().square().nansum(dim=1)
    counts = true.isfinite().sum(dim=1)
    return (total / len(drawn)).numpy(), counts.double().numpy()


def _embed(extractor: Extractor, images: Tensor) -> NDArray[np.float32]:
    """(N,E); layer maps are never held for all completions of a large image."""
    return extractor.embed(images, _batch(images))


def _batch(images: Tensor) -> int:
    return max(1, VALUES_AT_ONCE // images[0].numel())


def _classify(
    network: FeatureNetwork, images: Tensor
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Features (N,F) and logits (N,classes) of uint8 (N,C,H,W)."""
    found = extract_features(network, images, _batch(images), layers=("features", "logits"))
    return found["features"], found["logits"]


def _class_scores(
    predictions: NDArray[np.int64], labels: NDArray[np.int64], classes: int
) -> dict[str, NDArray[np.float64]]:
    """Scores of the shares of the classes, as `condvae.calibration.assess_classes` averages them."""
    every = np.concatenate([predictions, labels[None]])
    totals = np.stack([(every == c).sum(axis=0) for c in range(classes)], axis=1)
    nll, brier = scores_by_class(totals, len(predictions))
    cases = np.arange(len(labels))
    return {"class_nll": nll[cases, labels], "class_brier": brier[cases, labels]}


def _bounds(
    source: CompletionSource, start: int, stop: int
) -> tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]]:
    """Likelihood scores and their weights, where the source has a likelihood."""
    found = source.bound(start, stop)
    if found is None:
        return {}, {}
    one, many = found
    values = {
        "bound_bits_per_unobserved_dim": one.bound_bits.numpy(),
        "negative_elbo_nats_per_dim": one.negative_elbo_nats_per_dim.numpy(),
    }
    dimensions = one.predicted_dimensions.double().numpy()
    weights = {"bound_bits_per_unobserved_dim": dimensions}
    if many is not None:
        for draws, bits in many.bound_bits.items():
            name = f"bound_{draws}_bits_per_unobserved_dim"
            values[name], weights[name] = bits.numpy(), dimensions
    return values, weights


def draw_examples(
    source: CompletionSource,
    cases: Sequence[EvaluationCase],
    truths: Tensor,
    chosen: Sequence[int],
    kept: int = 8,
) -> Examples:
    """Draw chosen cases once more for pictures: the same completions, noise belongs to the case.

    Args:
        source: As in `score_cases`.
        cases: N cases.
        truths: uint8 (N,C,H,W).
        chosen: M numbers of cases.
        kept: Completions kept of each, at most; mean and deviation are over all.
    """
    shape = tuple(np.moveaxis(truths[:1].numpy(), 1, -1).shape[1:])
    kept = min(kept, source.completions)
    examples = Examples(
        np.empty((kept, len(chosen), *shape), np.uint8),
        np.empty((len(chosen), *shape), np.float32),
        np.empty((len(chosen), *shape), np.float32),
    )
    for index, number in enumerate(chosen):
        raw = source.draw(number, number + 1)[:, 0]
        pasted = composite(raw, truths[number], torch.tensor(cases[number].mask))
        drawn = np.moveaxis(pasted.numpy(), 1, -1)
        examples.completions[:, index] = drawn[:kept]
        examples.mean[index] = drawn.mean(axis=0, dtype=np.float64)
        examples.standard_deviation[index] = drawn.std(axis=0, dtype=np.float64, ddof=1)
    return examples
