"""References for TARP: ranks of the truth's distance to a point that is a function of y.

A sampler that ignores y and draws from the prior passes every rank test whose statistic does not
depend on y. Distances to references made from y expose it. Distances to references of another
image's y are blind to that; where they agree with the draws' and the former do not, y is ignored.
Distances are ranked by `condvae.calibration.statistics` and tested like every other statistic.

References:
    P. Lemos, A. Coogan, Y. Hezaveh, L. Perreault-Levasseur. Sampling-based accuracy testing of
    posterior estimators for general inference. ICML 2023.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from condvae.calibration.ranks import choose_marked
from condvae.ground.configuration import ConfigurationError

__all__ = [
    "TARP_OTHER",
    "TARP_Y",
    "nearest_references",
    "other_references",
    "squared_distances",
]

# Names of the rank tests start with these; a verdict tells them apart by it.
TARP_Y = "tarp_y"
TARP_OTHER = "tarp_other"


def squared_distances(
    vectors: NDArray[np.float64], references: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Squared Euclidean distances of rows (n,D) -> (n,); they rank as distances do."""
    gaps = vectors - references
    return np.asarray(np.einsum("nd,nd->n", gaps, gaps))


def nearest_references(
    images: ArrayLike,
    unobserved: ArrayLike,
    bank: ArrayLike,
    squares: NDArray[np.float64] | None = None,
    *,
    uniforms: ArrayLike,
) -> NDArray[np.intp]:
    """Find the image of a bank that is nearest to each case in its observed values.

    It predicts the truth better than an average colour does, so the test sees more. Where y says
    little, as a class does, many images are equally near: one of them is taken at random, not the same
    one for all cases of the class.

    Args:
        images: (N,D); values at unobserved places are not looked at.
        unobserved: bool (N,D).
        bank: (M,D), images such as those of the training set. None of the judged images may be
            among them: the reference would be the truth itself.
        squares: (M,D) squares of `bank`, which are computed where not given.
        uniforms: (N,) in [0, 1), they decide between equally near images; see
            `condvae.calibration.ranks.case_uniforms`.

    Returns:
        (N,) rows of the bank.
    """
    values, hidden = _checked(images, unobserved)
    stored = np.asarray(bank, np.float64)
    if stored.ndim != 2 or len(stored) == 0 or stored.shape[1] != values.shape[1]:
        raise ConfigurationError(
            f"bank of shape {stored.shape}: expected (M, {values.shape[1]}) with M >= 1"
        )
    places = np.asarray(uniforms)
    if places.shape != (len(values),):
        raise ConfigurationError(f"uniforms of shape {places.shape}: expected ({len(values)},)")
    squared = np.square(stored) if squares is None else squares
    seen = (~hidden).astype(np.float64)
    # |x - b|² over seen values, less |x|², which is the same for all of the bank.
    distances = seen @ squared.T - 2 * (seen * values) @ stored.T
    return choose_marked(distances == distances.min(axis=1, keepdims=True), places)


def other_references(references: ArrayLike, images: ArrayLike, seed: int) -> NDArray[np.generic]:
    """Give every case the reference of a case of another image.

    Args:
        references: (N,D).
        images: (N,) image of each case.
        seed: Decides which.

    Returns:
        (N,D), the same rows in another order.

    Raises:
        ConfigurationError: More than half of the cases share one image.
    """
    values, labels = np.asarray(references), np.asarray(images)
    if values.ndim != 2 or labels.shape != values.shape[:1] or len(labels) == 0:
        raise ConfigurationError(
            f"references of shape {values.shape}, images of shape {labels.shape}: "
            "expected (N, D) and (N,)"
        )
    _, groups, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    largest = int(sizes.max())
    if 2 * largest > len(labels):
        raise ConfigurationError(
            f"{largest} of {len(labels)} cases share an image: expected at most half"
        )
    shuffled = np.random.default_rng(seed).permutation(len(sizes))[groups]
    order = np.argsort(shuffled, kind="stable")
    # Sorted by image, a step as long as the largest image's run leads to another image.
    partner = np.empty_like(order)
    partner[order] = np.roll(order, -largest)
    return np.asarray(values[partner])


def _checked(
    images: ArrayLike, unobserved: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    values, hidden = np.asarray(images, np.float64), np.asarray(unobserved)
    if values.ndim != 2 or hidden.shape != values.shape or hidden.dtype != np.bool_:
        raise ConfigurationError(
            f"images of shape {values.shape}, unobserved of type {hidden.dtype} and shape "
            f"{hidden.shape}: expected (N, D) and bool (N, D)"
        )
    return values, hidden
