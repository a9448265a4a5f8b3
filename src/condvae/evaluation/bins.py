"""Which cases make up one value of a table: a bin of the observed share, or all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from condvae.evaluation.cases import EvaluationCase
from condvae.masks.kinds import OBSERVED_BINS, bin_name

__all__ = ["POOLED", "group_cases"]

POOLED = "pooled"


def group_cases(cases: Sequence[EvaluationCase]) -> dict[str, NDArray[np.intp]]:
    """Case numbers by name of the bin, empty bins left out, and all of them under `POOLED`.

    Where no case shows a pixel there are no bins to speak of, and only `POOLED`.
    """
    everything = {POOLED: np.arange(len(cases))}
    if not any(case.mask.any() for case in cases):
        return everything
    bins = np.array([case.bin for case in cases])
    groups = {bin_name(i): np.flatnonzero(bins == i) for i in range(len(OBSERVED_BINS))}
    return {n: g for n, g in groups.items() if len(g)} | everything
