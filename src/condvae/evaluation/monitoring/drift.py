"""Do new images look like those a model is known to work on? Tests whose level holds at any number.

References:
    A. Gretton, K. Borgwardt, M. Rasch, B. Schölkopf, A. Smola. A kernel two-sample test. 2012.
    M. Bińkowski, D. Sutherland, M. Arbel, A. Gretton. Demystifying MMD GANs. 2018.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from condvae.ground.configuration import ConfigurationError, check_positive

__all__ = ["FeatureShift", "FlaggedShare", "judge_flags", "shift_of_features"]


@dataclass(frozen=True)
class FlaggedShare:
    """How many observations a check calls unusual, against how many it should.

    Attributes:
        flagged: Called unusual.
        n: Checked.
        expected: Expected share of images like those of the reference.
        p_value: Probability that so many or more of such images are called unusual.
    """

    flagged: int
    n: int
    expected: float
    p_value: float

    @property
    def share(self) -> float:
        """Share called unusual."""
        return self.flagged / self.n


def judge_flags(counts: Mapping[str, tuple[int, int, int]]) -> FlaggedShare:
    """Say whether more observations lie outside their reference ranges than chance explains.

    A range goes from the smallest to the largest of n reference scores. The share of further scores of
    the same law outside it is not 2 / (n + 1) itself but has that as its mean over references: it
    follows a beta law with parameters 2 and n - 1, so that the number outside follows a beta-binomial
    law. A binomial test with the mean share alone would raise too many alarms. Bins count as
    independent.

    Args:
        counts: Bin -> number outside, number checked (at least 1), and n of the reference (at least 2).

    Raises:
        ConfigurationError: No bins, or impossible numbers.
    """
    if not counts:
        raise ConfigurationError("counts = {}: expected at least one bin")
    law, flagged, n, expected = np.ones(1), 0, 0, 0.0
    for name, (outside, checked, reference) in counts.items():
        if not 0 <= outside <= checked or checked < 1 or reference < 2:
            raise ConfigurationError(
                f"counts[{name!r}] = {(outside, checked, reference)!r}: expected 0 <= outside <= "
                "checked, checked >= 1 and a reference of at least 2"
            )
        found = stats.betabinom(checked, 2, reference - 1).pmf(np.arange(checked + 1))
        law = np.convolve(law, found)
        flagged, n = flagged + outside, n + checked
        expected += checked * 2 / (reference + 1)
    p_value = float(np.clip(law[flagged:].sum(), 0.0, 1.0))
    return FlaggedShare(flagged, n, expected / n, p_value)


@dataclass(frozen=True)
class FeatureShift:
    """Distance between the laws of two sets of features.

    Attributes:
        distance: Unbiased squared MMD of the kernel ``(x . y / D + 1)^3`` of standardised features.
        p_value: Share of random divisions of all rows, this one included, with as large a distance.
        n_new: New rows.
        n_reference: Reference rows.
        permutations: Random divisions.
    """

    distance: float
    p_value: float
    n_new: int
    n_reference: int
    permutations: int


def shift_of_features(
    new: ArrayLike, reference: ArrayLike, *, permutations: int = 999, seed: int = 0
) -> FeatureShift:
    """Test whether two sets of features have one law, by permutations of the kernel distance.

    Features are standardised by mean and deviation of all rows together, which no division changes,
    so the level of the test holds exactly whatever the law; a feature that never changes is left out.

    Args:
        new: (N,D), independent rows, N >= 2.
        reference: (M,D), M >= 2.
        permutations: Random divisions; the smallest p-value is 1 / (permutations + 1).
        seed: Of the divisions.

    Raises:
        ConfigurationError: Other shapes, or values that are not finite.
    """
    a, b = (np.asarray(values, dtype=np.float64) for values in (new, reference))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ConfigurationError(
            f"features of shapes {a.shape} and {b.shape}: expected (N,D) and (M,D), N and M >= 2"
        )
    rows = np.concatenate([a, b])
    if not np.isfinite(rows).all():
        raise ConfigurationError("features with values that are not finite")
    check_positive("permutations", permutations)
    deviation = rows.std(axis=0)
    rows = ((rows - rows.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0))[:, deviation > 0]
    kernel = (rows @ rows.T / max(rows.shape[1], 1) + 1.0) ** 3
    np.fill_diagonal(kernel, 0.0)
    chosen = np.zeros((permutations + 1, len(rows)))
    chosen[0, : len(a)] = 1.0
    rng = np.random.default_rng(seed)
    for row in chosen[1:]:
        row[rng.permutation(len(rows))[: len(a)]] = 1.0
    distances = _squared_mmd(kernel, chosen, len(a))
    # Rounding must not decide between equal divisions.
    reached = distances >= distances[0] - 1e-9 * max(1.0, abs(float(distances[0])))
    return FeatureShift(float(distances[0]), float(reached.mean()), len(a), len(b), permutations)


def _squared_mmd(
    kernel: NDArray[np.float64], chosen: NDArray[np.float64], n: int
) -> NDArray[np.float64]:
    """(P,) unbiased squared MMD of the divisions `chosen` (P,N+M) of rows with this kernel."""
    m = len(kernel) - n
    inside = chosen @ kernel
    within = (inside * chosen).sum(axis=1)
    across = inside.sum(axis=1) - within
    rest = kernel.sum() - within - 2 * across
    return np.asarray(
        within / (n * (n - 1)) + rest / (m * (m - 1)) - 2 * across / (n * m), dtype=np.float64
    )
