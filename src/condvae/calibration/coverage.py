"""How often intervals of the draws hold the true pixel values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from condvae.calibration.statistics import View
from condvae.ground.configuration import ConfigurationError
from condvae.scores.estimates import ratio_of_sums

__all__ = [
    "HEADLINE_LEVEL",
    "LEVELS",
    "Coverage",
    "posterior_coverage",
    "share_covered",
    "tabulate_coverage",
]

LEVELS = (0.5, 0.8, 0.9, 0.95)
# The widest interval whose ends few draws still resolve: 19 leave one beyond each. Narrower ones say
# nothing about tails, where too narrow samplers fail.
HEADLINE_LEVEL = 0.9


@dataclass(frozen=True)
class Coverage:
    """Coverage of central intervals of one level.

    Attributes:
        level: What an exact sampler reaches.
        value: Share of unobserved values inside their interval.
        standard_error: Of `value`; cases that share an image are one unit.
        n: Number of cases.
    """

    level: float
    value: float
    standard_error: float
    n: int


def share_covered(view: View, levels: Sequence[float] = LEVELS) -> NDArray[np.float64]:
    """Count the unobserved values inside the central interval of their draws.

    The truth's place among S draws is uniform on [0, 1] if the sampler is exact, once ties and the
    place between two draws are decided at random. Counted is the probability of that place to lie
    in the interval's middle part: exact for every S and any number of ties, without a random number.

    Args:
        view: Pixels of n cases.
        levels: Of the intervals, between 0 and 1.

    Returns:
        (n, levels), expected number of covered values in each case.
    """
    for level in levels:
        if not 0 < level < 1:
            raise ConfigurationError(f"level = {level!r}: expected between 0 and 1")
    below = np.zeros(view.truths.shape)
    equal = np.ones(view.truths.shape)
    for images in view.samples:
        below += images < view.truths
        equal += images == view.truths
    start = below / (len(view.samples) + 1)
    stop = (below + equal) / (len(view.samples) + 1)
    unobserved = np.ones_like(start) if view.unobserved is None else view.unobserved
    covered = []
    for level in levels:
        inside = np.minimum(stop, (1 + level) / 2) - np.maximum(start, (1 - level) / 2)
        share = np.clip(inside, 0.0, None) / (stop - start)
        covered.append((share * unobserved).sum(axis=1))
    return np.stack(covered, axis=1)


def tabulate_coverage(
    covered: ArrayLike,
    unobserved_values: ArrayLike,
    images: ArrayLike | None = None,
    levels: Sequence[float] = LEVELS,
) -> tuple[Coverage, ...]:
    """Pool counts of all cases.

    Args:
        covered: (N, levels) from `share_covered`.
        unobserved_values: (N,) unobserved values of each case.
        images: (N,) image of each case, `None` when no two cases share one.
        levels: As given to `share_covered`.

    Returns:
        Ratios of sums with standard errors clustered by image, one per level.
    """
    counts = np.asarray(covered)
    if counts.ndim != 2 or counts.shape[1] != len(levels):
        raise ConfigurationError(f"covered of shape {counts.shape}: expected (N, {len(levels)})")
    rows = []
    for index, level in enumerate(levels):
        score = ratio_of_sums(counts[:, index], unobserved_values, images)
        rows.append(Coverage(level, score.value, score.standard_error, score.n))
    return tuple(rows)


def posterior_coverage(table: Sequence[Coverage]) -> Coverage:
    """The headline number: coverage of 90 % intervals, from `tabulate_coverage`.

    Raises:
        ConfigurationError: That level is not in the table.
    """
    for row in table:
        if row.level == HEADLINE_LEVEL:
            return row
    raise ConfigurationError(
        f"levels {[row.level for row in table]}: expected {HEADLINE_LEVEL} among them"
    )
