"""Small made-up cases for the figures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from condvae.plots import CompletionExample


@pytest.fixture
def make_case() -> Callable[..., CompletionExample]:
    """A function that makes a case with random pixels; its arguments replace fields."""

    def make(size=16, channels=1, count=3, seed=0, **fields) -> CompletionExample:
        rng = np.random.default_rng(seed)
        truth = rng.integers(0, 256, (size, size, channels), dtype=np.uint8)
        mask = np.zeros((size, size), dtype=bool)
        mask[: size // 4] = True
        drawn = rng.integers(0, 256, (count, size, size, channels), dtype=np.uint8)
        completions = np.where(mask[..., None], truth, drawn).astype(np.uint8)
        values = {
            "case_id": f"case-{seed}",
            "bin": 1,
            "observed_share": 0.25,
            "observation": np.where(mask[..., None], truth, 0).astype(np.uint8),
            "mask": mask,
            "completions": completions,
            "mean": completions.mean(axis=0),
            "standard_deviation": completions.std(axis=0),
            "truth": truth,
        }
        return CompletionExample(**(values | fields))

    return make
