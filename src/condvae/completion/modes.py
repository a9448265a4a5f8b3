"""Representative completions: do the completions of one observation fall into groups, and which?

Completions are grouped around medoids, completions themselves, by the partitioning of Kaufman and
Rousseeuw (Finding groups in data, 1990), which also gives the silhouette and the rule of thumb that
a mean silhouette below 0.25 shows no structure. Any cloud can be cut, so a cut counts only when its
silhouette is larger than those of cuts through the same cloud turned at random: for a Gaussian cloud
of any covariance that is an exact test (Langsrud, Rotation tests, 2005).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from condvae.masks.kinds import Mask

__all__ = ["MOST_MODES", "Mode", "find_modes"]

MOST_MODES = 4
LEAST_SILHOUETTE = 0.25
# The largest of 20 exchangeable numbers comes first with probability 5 %.
REFERENCE_CLOUDS = 19
# Distances between more completions than these are not looked at; the others join the nearest medoid.
MOST_CLUSTERED = 128
_CELLS = 32

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Mode:
    """One group of completions.

    Attributes:
        medoid: Number of the completion that is closest to the others of its group.
        share: Share of all completions that belong to the group, 0 to 1.
    """

    medoid: int
    share: float


def find_modes(completions: NDArray[np.uint8], mask: Mask) -> list[Mode]:
    """Group the completions of one observation.

    The distance is the Euclidean one between unobserved pixels after a Gaussian low-pass whose
    standard deviation is a 32nd of the image side: what differs in shape and colour counts, grain
    does not. The number of groups is the one, up to 4, with the largest mean silhouette. It is 1
    unless that silhouette is at least 0.25 and above those of 19 random turns of the completions: a
    Gaussian cloud is taken for grouped in at most one case of 20.

    Args:
        completions: uint8 (S,H,W,C), S >= 1.
        mask: bool (H,W), true = observed.

    Returns:
        1 to 4 modes, the most frequent first. The same completions give the same modes.

    Raises:
        ValueError: No completions.
    """
    if len(completions) == 0:
        raise ValueError("no completions: expected at least one")
    features = _low_pass(completions, mask)
    clustered = features[:MOST_CLUSTERED]
    gram = _gram(clustered)
    distances = _distances(gram)
    medoids = _medoids(distances, 1)
    if distances.max() > 0 and len(clustered) > 2:
        silhouette, split = _best_split(distances)
        if silhouette >= LEAST_SILHOUETTE and silhouette > _reference_silhouette(gram):
            medoids = split
    to_medoids = ((features[:, None] - features[medoids][None]) ** 2).sum(axis=2)
    nearest = to_medoids.argmin(axis=1)
    modes = [
        Mode(int(medoid), float((nearest == place).mean())) for place, medoid in enumerate(medoids)
    ]
    return sorted(modes, key=lambda mode: (-mode.share, mode.medoid))


def _low_pass(completions: NDArray[np.uint8], mask: Mask) -> Matrix:
    """uint8 (S,H,W,C) -> (S,D), at most 32 x 32 weighted means per channel."""
    rows, columns = (_smoothing(side) for side in mask.shape)
    smooth = [
        np.einsum("ih,hwc,jw->ijc", rows, completion * ~mask[..., None], columns, optimize=True)
        for completion in completions
    ]
    return np.stack(smooth).reshape(len(completions), -1)


def _smoothing(side: int) -> Matrix:
    """(cells, side), each row a Gaussian window around the centre of its cell."""
    cells = min(side, _CELLS)
    centres = (np.arange(cells) + 0.5) * side / cells
    offsets = (np.arange(side) + 0.5) - centres[:, None]
    weights = np.exp(-0.5 * (offsets * _CELLS / side) ** 2)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _gram(features: Matrix) -> Matrix:
    """(S,S), inner products of the centred rows."""
    centred = features - features.mean(axis=0)
    return np.asarray(centred @ centred.T)


def _distances(gram: Matrix) -> Matrix:
    """(S,S), Euclidean distances."""
    squares = np.diag(gram)
    distances = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * gram, 0.0))
    np.fill_diagonal(distances, 0.0)
    return distances


def _medoids(distances: Matrix, count: int) -> NDArray[np.int64]:
    """Partition around `count` medoids: built one by one, then swapped while the cost falls."""
    chosen: list[int] = []
    nearest = np.full(len(distances), np.inf)
    for _ in range(count):
        chosen.append(int(np.minimum(nearest[:, None], distances).sum(axis=0).argmin()))
        nearest = np.minimum(nearest, distances[:, chosen[-1]])
    cost = nearest.sum()
    while True:
        best = (cost, -1, -1)
        for place in range(count):
            rest = chosen[:place] + chosen[place + 1 :]
            others = distances[:, rest].min(axis=1, initial=np.inf)
            costs = np.minimum(others[:, None], distances).sum(axis=0)
            candidate = int(costs.argmin())
            best = min(best, (costs[candidate], place, candidate))
        # Rounding must not let two equal choices take turns for ever.
        if best[0] >= cost * (1 - 1e-12):
            return np.array(chosen)
        cost, place, candidate = best
        chosen[place] = candidate


def _best_split(distances: Matrix) -> tuple[float, NDArray[np.int64]]:
    """Largest mean silhouette of a partition into 2 to 4 groups, and its medoids."""
    best = (-1.0, np.array([0]))
    for count in range(2, min(MOST_MODES, len(distances) - 1) + 1):
        medoids = _medoids(distances, count)
        silhouette = _mean_silhouette(distances, distances[:, medoids].argmin(axis=1), count)
        if silhouette > best[0]:
            best = (silhouette, medoids)
    return best


def _mean_silhouette(distances: Matrix, groups: NDArray[np.int64], count: int) -> float:
    """How much closer members are to their own group than to the next one, -1 to 1."""
    member = groups[:, None] == np.arange(count)
    sizes = member.sum(axis=0)
    sums = distances @ member
    own_size = sizes[groups]
    own = sums[np.arange(len(groups)), groups] / np.maximum(own_size - 1, 1)
    other = np.where(member, np.inf, sums / np.maximum(sizes, 1)).min(axis=1)
    larger = np.maximum(own, other)
    values = (other - own) / np.where(larger > 0, larger, 1.0)
    return float(np.where(own_size > 1, values, 0.0).mean())


def _reference_silhouette(gram: Matrix) -> float:
    """Largest mean silhouette of cuts through clouds that are `gram`'s turned at random.

    Given its covariance, all turns of a Gaussian cloud are equally likely.
    """
    count = len(gram)
    squares = np.maximum(np.linalg.eigvalsh(gram)[1:], 0.0)
    rng = np.random.default_rng(0)
    silhouettes = []
    for _ in range(REFERENCE_CLOUDS):
        normals = rng.standard_normal((count, count - 1))
        frame = np.linalg.qr(normals - normals.mean(axis=0)).Q
        silhouettes.append(_best_split(_distances(frame * squares @ frame.T))[0])
    return max(silhouettes)
