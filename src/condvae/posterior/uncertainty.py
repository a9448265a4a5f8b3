"""Uncertainty maps to a stated precision: as many completions as they need, and no more.

For maps only. Scores take a fixed number of completions: a number that depends on what was drawn would
bias them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from condvae.ground.configuration import ConfigurationError, check_positive
from condvae.posterior.image_posterior import ImagePosterior
from condvae.posterior.summaries import GreyLevelCounts, PosteriorSummary
from condvae.tasks.observation import Observation

__all__ = ["UncertaintyMap", "map_uncertainty"]

FEWEST = 16


@dataclass(frozen=True)
class UncertaintyMap:
    """Maps of one case.

    Attributes:
        summary: Over as many completions as were drawn, `summary.n`; its tensors are (1,C,H,W).
        error: Monte Carlo error of the mean, root mean square over unobserved values, grey levels.
        reached: Whether `error` is within the tolerance.
    """

    summary: PosteriorSummary
    error: float
    reached: bool


def map_uncertainty(
    posterior: ImagePosterior,
    observation: Observation,
    tolerance: float,
    *,
    at_most: int = 1024,
    quantiles: Sequence[float] = (0.05, 0.5, 0.95),
    temperature: float | Sequence[float] = 1.0,
    seed: int = 0,
    batch_size: int = 256,
) -> list[UncertaintyMap]:
    """Draw 16, 32, 64, ... completions of each case until their mean is precise enough.

    The completions are those of `ImagePosterior.sample` with the same seed, so a map equals
    `ImagePosterior.summarise` with n = `summary.n`.

    Args:
        posterior: Draws the completions, observed pixels pasted.
        observation: B cases.
        tolerance: Largest Monte Carlo error of the mean, root mean square over unobserved values, in
            grey levels.
        at_most: Completions of a case at most.
        quantiles: Levels in [0, 1].
        temperature: See `ImagePosterior.sample`.
        seed: See `ImagePosterior.sample`.
        batch_size: Images decoded at a time.

    Returns:
        B maps.

    Raises:
        ConfigurationError: `tolerance` not positive, `at_most` below 2, or a level outside [0, 1].
    """
    check_positive("tolerance", tolerance)
    if at_most < 2:
        raise ConfigurationError(f"at_most = {at_most!r}: a standard deviation needs at least 2")
    for level in quantiles:
        if not 0.0 <= level <= 1.0:
            raise ConfigurationError(f"quantile level {level!r}: expected in [0, 1]")
    maps = []
    for case in range(len(observation)):
        one = observation.part(case, case + 1)
        hidden = (~one.mask).expand_as(one.pixels).cpu()
        counts = GreyLevelCounts(tuple(one.pixels.shape))
        n, error = 0, math.inf
        while error > tolerance and n < at_most:
            more = min(max(n, FEWEST), at_most - n)
            for cases, _, pixels in posterior.stream(
                one, more, first=n, temperature=temperature, seed=seed, batch_size=batch_size
            ):
                counts.add(cases.numpy(), pixels.numpy())
            n += more
            deviation = counts.summarise(n, ()).standard_deviation[hidden].double()
            error = math.sqrt(float(deviation.square().mean()) / n) if hidden.any() else 0.0
        maps.append(UncertaintyMap(counts.summarise(n, quantiles), error, error <= tolerance))
    return maps
