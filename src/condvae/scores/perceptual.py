"""Perceptual distances as squared Euclidean distances between embeddings.

The distance of Zhang et al. 2018, The Unreasonable Effectiveness of Deep Features as a Perceptual
Metric, equation 1: in each named layer the feature vector of each position is scaled to length one,
squared differences are weighted and summed over channels, averaged over positions and summed over
layers. With a published network and its learned weights it is LPIPS; with anything else, or all
weights 1, it is LPIPS-like and must be named so. A number means something only beside the name of
its extractor.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from condvae.ground.configuration import ConfigurationError, check_positive

__all__ = [
    "best_of_k",
    "embedding_distances",
    "faithfulness_weighted_variance",
    "mean_pairwise_distance",
    "perceptual_embedding",
]

_SMALLEST_LENGTH = 1e-10


def perceptual_embedding(
    maps: Mapping[str, NDArray[np.float32]],
    weights: Mapping[str, NDArray[np.floating]] | None = None,
) -> NDArray[np.float32]:
    """Turn the layer maps of images into vectors whose squared distance is the perceptual one.

    Args:
        maps: Layer name -> features (N,C,H,W); channels and sizes may differ between layers. Two
            embeddings are comparable when their layers came in the same order.
        weights: Layer name -> weights (C,) >= 0 of its channels; `None` for 1.

    Returns:
        float32 (N,E), E the sum of C * H * W over the layers.

    Raises:
        ConfigurationError: No layers, layers that are not maps, or of several numbers of images;
            weights missing, of another shape or negative.
    """
    shapes = {name: values.shape for name, values in maps.items()}
    if not maps or any(len(shape) != 4 for shape in shapes.values()):
        raise ConfigurationError(f"layers {shapes}: expected at least one, each (N, C, H, W)")
    if len({shape[0] for shape in shapes.values()}) > 1:
        raise ConfigurationError(f"layers {shapes}: expected the same number of images in each")
    parts = []
    for name, values in maps.items():
        features = np.asarray(values, dtype=np.float32)
        lengths = np.sqrt(np.square(features).sum(axis=1, keepdims=True))
        positions = features.shape[2] * features.shape[3]
        scaled = features / ((lengths + _SMALLEST_LENGTH) * np.float32(np.sqrt(positions)))
        if weights is not None:
            scaled *= np.sqrt(_channel_weights(name, weights, features.shape[1]))[:, None, None]
        parts.append(scaled.reshape(len(features), -1))
    return np.concatenate(parts, axis=1, dtype=np.float32)


def best_of_k(samples: NDArray[np.floating], truths: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the distance between each truth and the nearest of its samples.

    With LPIPS embeddings and K = S this is the quantity that Harvey et al. 2022 average over test
    images and call LPIPS-GT; they take K = 100, and numbers compare only at equal K. It is not a
    proper score: it rewards samples that spread too little, the more the smaller K.

    Args:
        samples: (S,N,E) embeddings of S samples of each case.
        truths: (N,E) embeddings of the truths.

    Returns:
        (N,), least squared distance.

    Raises:
        ConfigurationError: Other shapes.
    """
    return np.asarray(embedding_distances(samples, truths).min(axis=0))


def embedding_distances(
    samples: NDArray[np.floating], references: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return the distance between each sample and the reference of its case.

    Args:
        samples: (S,N,E) embeddings of S samples of each case.
        references: (N,E) embeddings of one image per case.

    Returns:
        (S,N), squared distances.

    Raises:
        ConfigurationError: Other shapes.
    """
    _check_samples(samples, least=1)
    if samples.shape[1:] != references.shape:
        raise ConfigurationError(
            f"samples of shape {samples.shape}, references of shape {references.shape}: "
            "expected (S, N, E) and (N, E)"
        )
    # One sample at a time: no (S, N, E) of differences.
    return np.stack([_squared_lengths(sample - references) for sample in samples])


def faithfulness_weighted_variance(
    to_truth: NDArray[np.floating], to_mean: NDArray[np.floating], sigma: float
) -> NDArray[np.float64]:
    """Return how much the samples near the truth vary (FWV, Li et al. 2020).

    ``sum_k exp(-d(x_k, x) / (2 sigma^2)) d(x_k, mean of the x_k)`` with the perceptual distance d, as
    Harvey et al. 2022 use it: K = 100, sigma from 0.01 to 1, mean over cases. It is a sum over
    samples, so numbers compare only at equal K, sigma and extractor.

    Args:
        to_truth: (S,N) distances between samples and truth.
        to_mean: (S,N) distances between samples and the mean image of the case's S samples, rounded
            to a uint8 image.
        sigma: Bandwidth, > 0.

    Returns:
        (N,).

    Raises:
        ConfigurationError: Other shapes, or sigma out of range.
    """
    if to_truth.ndim != 2 or to_truth.shape != to_mean.shape or len(to_truth) == 0:
        raise ConfigurationError(
            f"distances of shapes {to_truth.shape} and {to_mean.shape}: expected (S, N) with S >= 1"
        )
    check_positive("sigma", sigma)
    near = np.exp(-np.asarray(to_truth, dtype=np.float64) / (2 * sigma**2))
    return np.asarray((near * to_mean).sum(axis=0))


def mean_pairwise_distance(samples: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return, for each case, the mean distance over all pairs of different samples.

    The mean squared distance of S vectors is twice the sum of their squared distances to their mean
    divided by S - 1, so no pair is ever formed.

    Args:
        samples: (S,N,E) embeddings, S >= 2.

    Returns:
        (N,), mean squared distance.

    Raises:
        ConfigurationError: Other shapes or fewer than two samples.
    """
    _check_samples(samples, least=2)
    centre = samples.mean(axis=0)
    total = np.zeros(samples.shape[1])
    for sample in samples:
        total += _squared_lengths(sample - centre)
    return 2 * total / (len(samples) - 1)


def _channel_weights(
    name: str, weights: Mapping[str, NDArray[np.floating]], channels: int
) -> NDArray[np.float32]:
    """Return the checked weights of one layer."""
    if name not in weights:
        raise ConfigurationError(f"weights of {', '.join(weights)}: expected those of {name} too")
    values = np.asarray(weights[name], dtype=np.float32)
    if values.shape != (channels,) or not (values >= 0).all():
        raise ConfigurationError(
            f"weights of layer {name} of shape {values.shape}: expected ({channels},), all >= 0"
        )
    return values


def _squared_lengths(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    """(N,E) -> (N,), added up in float64."""
    return np.asarray(np.square(vectors).sum(axis=1, dtype=np.float64))


def _check_samples(samples: NDArray[np.floating], least: int) -> None:
    """Raise `ConfigurationError` unless `samples` is (S,N,E) with S >= `least`."""
    if samples.ndim != 3 or samples.shape[0] < least:
        raise ConfigurationError(
            f"samples of shape {samples.shape}: expected (S, N, E) with S >= {least}"
        )
