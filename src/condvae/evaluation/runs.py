"""Paired differences between two runs, from the scores per case that each has written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from condvae.evaluation.bins import POOLED
from condvae.ground.configuration import ConfigurationError
from condvae.scores.definitions import METRICS
from condvae.scores.estimates import paired_difference, ratio_of_sums

__all__ = ["compare_case_tables"]

# Equal in two runs on the same cases, whatever completes them.
_OF_CASES = ("case_id", "image_sha256", "bin", "observed_share", "weight")

_Columns = Mapping[str, NDArray[Any]]


def compare_case_tables(
    a: Mapping[str, ArrayLike],
    b: Mapping[str, ArrayLike],
    *,
    sampler_a: str,
    sampler_b: str,
    level: float,
    seed: int,
) -> list[dict[str, Any]]:
    """Paired differences between a sampler of one run and a sampler of another on the same cases.

    Args:
        a: Columns of the first run's table, see `list_case_scores`; the order of rows is free.
        b: The same of the second run.
        sampler_a: Which sampler of the first run.
        sampler_b: Which sampler of the second run.
        level: Of the bootstrap intervals over images.
        seed: Of the bootstrap.

    Returns:
        Rows as `compare` gives them, one per metric that both have and that samplers are compared by,
        and bin; difference is a minus b.

    Raises:
        ConfigurationError: A run without that sampler, or runs on different cases: other ids, images,
            bins, observed shares or numbers of unobserved values.
    """
    first, second = _choose("a", a, sampler_a), _choose("b", b, sampler_b)
    rows = []
    for metric, definition in METRICS.items():
        if not definition.compared:
            continue
        ours, theirs = _sorted_cases(first, metric), _sorted_cases(second, metric)
        if not len(ours["case_id"]) or not len(theirs["case_id"]):
            continue
        for name in _OF_CASES:
            if not np.array_equal(ours[name], theirs[name]):
                raise ConfigurationError(
                    f"{metric}: the two runs differ in {name}; expected runs on the same cases, that "
                    "is with the same evaluation.seed, masks, data and number of cases"
                )
        bins = ours["bin"]
        # As in `group_cases`: without any observed pixel there are no bins.
        names = dict.fromkeys(sorted(bins.tolist())) if ours["observed_share"].any() else ()
        for group in (*names, POOLED):
            here = np.ones(len(bins), np.bool_) if group == POOLED else bins == group
            x, y, weights, images = (
                column[here]
                for column in (ours["value"], theirs["value"], ours["weight"], ours["image_id"])
            )
            numbers = asdict(paired_difference(x, y, images, level, seed=seed, weights=weights))
            numbers["relative_difference"] = numbers.pop("relative")
            rows.append(
                {
                    "metric": metric,
                    "bin": group,
                    "sampler_a": sampler_a,
                    "sampler_b": sampler_b,
                    "standard_error": ratio_of_sums(x - y, weights, images).standard_error,
                    **numbers,
                }
            )
    return rows


def _choose(name: str, table: Mapping[str, ArrayLike], sampler: str) -> _Columns:
    columns = {key: np.asarray(column) for key, column in table.items()}
    chosen = columns["sampler"] == sampler
    if not chosen.any():
        known = ", ".join(sorted(set(columns["sampler"].tolist())))
        raise ConfigurationError(f"sampler_{name} = {sampler!r}: expected one of {known}")
    return {key: column[chosen] for key, column in columns.items()}


def _sorted_cases(columns: _Columns, metric: str) -> _Columns:
    rows = np.flatnonzero(columns["metric"] == metric)
    rows = rows[np.argsort(columns["case_id"][rows], kind="stable")]
    return {key: column[rows] for key, column in columns.items()}
