"""Perceptual distances as squared Euclidean distances between embeddings.

The distance of Zhang et al. 2018, The Unreasonable Effectiveness of Deep Features as a Perceptual
Metric, equation 1, with every weight w_l equal to 1: in each named layer the feature vector of each
position is scaled to length one, squared differences are summed over channels, averaged over
positions and summed over layers. It is LPIPS-like, not LPIPS: neither the network nor learned
weights are the published ones, so a number means something only beside the name of its extractor.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from condvae.configuration import ConfigurationError

__all__ = ["best_of_k", "mean_pairwise_distance", "perceptual_embedding"]

_SMALLEST_LENGTH = 1e-10


def perceptual_embedding(maps: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """Turn the layer maps of images into vectors whose squared distance is the perceptual one.

    Args:
        maps: Layer name -> features (N,C,H,W); channels and sizes may differ between layers. Two
            embeddings are comparable when their layers came in the same order.

    Returns:
        float32 (N,E), E the sum of C * H * W over the layers.

    Raises:
        ConfigurationError: No layers, layers that are not maps, or of several numbers of images.
    """
    shapes = {name: values.shape for name, values in maps.items()}
    if not maps or any(len(shape) != 4 for shape in shapes.values()):
        raise ConfigurationError(f"layers {shapes}: expected at least one, each (N, C, H, W)")
    if len({shape[0] for shape in shapes.values()}) > 1:
        raise ConfigurationError(f"layers {shapes}: expected the same number of images in each")
    parts = []
    for values in maps.values():
        features = np.asarray(values, dtype=np.float32)
        lengths = np.sqrt(np.square(features).sum(axis=1, keepdims=True))
        positions = features.shape[2] * features.shape[3]
        scaled = features / ((lengths + _SMALLEST_LENGTH) * np.float32(np.sqrt(positions)))
        parts.append(scaled.reshape(len(features), -1))
    return np.concatenate(parts, axis=1, dtype=np.float32)


def best_of_k(samples: NDArray[np.floating], truths: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the distance between each truth and the nearest of its samples.

    With perceptual embeddings and K = S this is the quantity called LPIPS-GT in Harvey et al. 2022,
    up to the network. It is not a proper score: it rewards samples that spread too little.

    Args:
        samples: (S,N,E) embeddings of S samples of each case.
        truths: (N,E) embeddings of the truths.

    Returns:
        (N,), least squared distance.

    Raises:
        ConfigurationError: Other shapes.
    """
    _check_samples(samples, least=1)
    if samples.shape[1:] != truths.shape:
        raise ConfigurationError(
            f"samples of shape {samples.shape}, truths of shape {truths.shape}: "
            "expected (S, N, E) and (N, E)"
        )
    best = np.full(len(truths), np.inf)
    for sample in samples:  # one sample at a time: no (S, N, E) of differences
        best = np.minimum(best, _squared_lengths(sample - truths))
    return best


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


def _squared_lengths(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    """(N,E) -> (N,), added up in float64."""
    return np.asarray(np.square(vectors).sum(axis=1, dtype=np.float64))


def _check_samples(samples: NDArray[np.floating], least: int) -> None:
    """Raise `ConfigurationError` unless `samples` is (S,N,E) with S >= `least`."""
    if samples.ndim != 3 or samples.shape[0] < least:
        raise ConfigurationError(
            f"samples of shape {samples.shape}: expected (S, N, E) with S >= {least}"
        )
