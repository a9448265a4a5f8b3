"""Examples for the figures, read from stacked arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from condvae.ground.configuration import ConfigurationError
from condvae.plots import CompletionExample

__all__ = ["read_examples", "read_extremes"]

_SHARED = ("case_ids", "bins", "labels", "masks", "truths")


def read_examples(
    arrays: Mapping[str, np.ndarray], per_bin: int, order: Sequence[str] = ()
) -> dict[str, list[CompletionExample]]:
    """Take the first cases of each bin, from little observed to much.

    Args:
        arrays: `case_ids` (N,) text, `bins` (N,) integers 0 to 4, `labels` (N,) text (`""` for
            none), `masks` (N,H,W) bool (true = observed), `truths` (N,H,W,C) uint8, and for every
            sampler s `completions/s` (K,N,H,W,C) uint8, `mean/s` and `standard_deviation/s`
            (N,H,W,C) floats in grey levels; and `pictures` (N,H,W,C) uint8 where observations are
            more than some pixels of the truth.
        per_bin: Most cases of a bin.
        order: Samplers that come first, in this order; others follow as they are stored.

    Returns:
        Sampler -> examples, the same cases for each.

    Raises:
        ConfigurationError: An array is missing or arrays do not fit together.
    """
    samplers = _check_arrays(arrays)
    bins = np.asarray(arrays["bins"])
    if not np.any(arrays["masks"]):
        # Without observed pixels there are no bins: as many cases as there are in five.
        bins, per_bin = np.zeros_like(bins), 5 * per_bin
    chosen = [int(i) for b in np.unique(bins) for i in np.flatnonzero(bins == b)[:per_bin]]
    # The sort is stable: samplers that are not named keep their order, behind the others.
    places = {name: place for place, name in enumerate(order)}
    samplers.sort(key=lambda name: places.get(name, len(places)))
    return {s: [_read_example(arrays, s, index) for index in chosen] for s in samplers}


def read_extremes(
    arrays: Mapping[str, np.ndarray],
) -> tuple[str, list[CompletionExample], list[float]]:
    """Take the best and the worst cases of one sampler.

    Args:
        arrays: As for `read_examples` with one sampler and 2M cases, the M best first and the worst
            last, and `scores` (2M,), their CRPS per unobserved value.

    Returns:
        Sampler, its cases in the order given, and their scores.

    Raises:
        ConfigurationError: An array is missing, arrays do not fit together, or there are several
            samplers.
    """
    samplers = _check_arrays(arrays, "scores")
    if len(samplers) > 1:
        raise ConfigurationError(f"extremes of {', '.join(samplers)}: expected one sampler")
    cases = [_read_example(arrays, samplers[0], i) for i in range(len(arrays["case_ids"]))]
    return samplers[0], cases, [float(score) for score in arrays["scores"]]


def _check_arrays(arrays: Mapping[str, np.ndarray], *further: str) -> list[str]:
    """Return the samplers of arrays that are complete and fit together."""
    prefix = "completions/"
    samplers = [key.removeprefix(prefix) for key in arrays if key.startswith(prefix)]
    shared = (*_SHARED, *further)
    needed = [f"{part}/{s}" for s in samplers for part in ("mean", "standard_deviation")]
    missing = [key for key in (*shared, *needed) if key not in arrays]
    if missing or not samplers:
        missing = missing or [f"{prefix}<sampler>"]
        raise ConfigurationError(
            f"examples lack {', '.join(missing)}; found {', '.join(sorted(arrays)) or 'nothing'}"
        )
    counts = {key: len(arrays[key]) for key in (*shared, *needed)}
    counts |= {prefix + s: arrays[prefix + s].shape[1] for s in samplers}
    if len(set(counts.values())) > 1:
        raise ConfigurationError(f"examples hold different numbers of cases: {counts}")
    return samplers


def _read_example(arrays: Mapping[str, np.ndarray], sampler: str, index: int) -> CompletionExample:
    mask = np.asarray(arrays["masks"][index], dtype=bool)
    truth = arrays["truths"][index]
    shown, seen = np.where(mask[..., None], truth, 0).astype(np.uint8), mask
    if "pictures" in arrays:
        shown, seen = arrays["pictures"][index], np.ones_like(mask)
    return CompletionExample(
        case_id=str(arrays["case_ids"][index]),
        bin=int(arrays["bins"][index]),
        observed_share=float(mask.mean()),
        observation=shown,
        mask=seen,
        completions=arrays[f"completions/{sampler}"][:, index],
        mean=arrays[f"mean/{sampler}"][index],
        standard_deviation=arrays[f"standard_deviation/{sampler}"][index],
        truth=truth,
        label=str(arrays["labels"][index]) or None,
    )
