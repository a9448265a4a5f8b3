"""Rungs of the ladder in numbers: means over seeds, and what is gained from rung to rung."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from condvae.evaluation.learning_curves import mean_of_runs

__all__ = ["HEADLINES", "Headline", "tabulate_contributions", "tabulate_rungs"]

Headline = tuple[str, str, str, str | None, str]
# Key -> metric, attribute, group, pixels of an evaluation's row, and words.
HEADLINES: Mapping[str, Headline] = {
    "log_prob_nats": ("log_prob_nats", "all", "all", None, "log p(x | y), nats"),
    "bits_per_dim": ("bits_per_dim", "all", "all", None, "bits per dimension"),
    "frechet_means": ("frechet_distance", "all", "all", "mean", "Fréchet distance, means"),
    "frechet_samples": ("frechet_distance", "all", "all", "sample", "Fréchet distance, samples"),
    "accuracy": (
        *("attribute_accuracy", "all", "all", "mean"),
        "attribute accuracy, means",
    ),
    "accuracy_of_ceiling": (
        *("attribute_accuracy_of_ceiling", "all", "all", "mean"),
        "accuracy / ceiling",
    ),
    "held_out_accuracy_of_ceiling": (
        *("attribute_accuracy_of_ceiling", "all", "held_out", "mean"),
        "accuracy / ceiling, held out",
    ),
    "information_used_nats": (
        *("information_used_nats", "all", "all", None),
        "information used, nats",
    ),
}


def tabulate_rungs(results: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard error over seeds: a row per rung, way of training and headline.

    Args:
        results: Rows of every run with ``rung``, ``stage``, ``seed`` and those of an evaluation.

    Returns:
        ``rung, stage, metric, value, standard_error, n``; n seeds.
    """
    rows = []
    for (rung, stage), own in results.groupby(["rung", "stage"], sort=False):
        for key in HEADLINES:
            values = _by_seed(own, key)
            if not values:
                continue
            value, error = mean_of_runs(list(values.values()))
            rows.append(
                {
                    "rung": rung,
                    "stage": stage,
                    "metric": key,
                    "value": value,
                    "standard_error": error,
                    "n": len(values),
                }
            )
    return pd.DataFrame.from_records(rows)


def tabulate_contributions(
    results: pd.DataFrame, contributions: Mapping[str, Sequence[str]]
) -> pd.DataFrame:
    """Differences between two rungs, seed by seed: runs of one seed share data order and start.

    Args:
        results: As for `tabulate_rungs`.
        contributions: Name -> labels (``gaussian/joint``) before and after; one whose rungs were not
            run is left out.

    Returns:
        ``contribution, before, after, metric, value, standard_error, n``; value is after - before.
    """
    runs = {f"{r}/{s}": own for (r, s), own in results.groupby(["rung", "stage"], sort=False)}
    rows = []
    for name, (before, after) in contributions.items():
        if before not in runs or after not in runs:
            continue
        for key in HEADLINES:
            first, second = _by_seed(runs[before], key), _by_seed(runs[after], key)
            differences = [second[seed] - first[seed] for seed in first if seed in second]
            if not differences:
                continue
            value, error = mean_of_runs(differences)
            rows.append(
                {
                    "contribution": name,
                    "before": before,
                    "after": after,
                    "metric": key,
                    "value": value,
                    "standard_error": error,
                    "n": len(differences),
                }
            )
    columns = ["contribution", "before", "after", "metric", "value", "standard_error", "n"]
    return pd.DataFrame.from_records(rows, columns=columns)


def _by_seed(rows: pd.DataFrame, key: str) -> dict[int, float]:
    """Finite values of a headline by seed."""
    metric, attribute, group, pixels, _ = HEADLINES[key]
    chosen = rows[
        (rows["metric"] == metric) & (rows["attribute"] == attribute) & (rows["group"] == group)
    ]
    chosen = chosen[chosen["pixels"].isna() if pixels is None else chosen["pixels"] == pixels]
    pairs = zip(chosen["seed"], chosen["value"].astype(float), strict=True)
    return {int(seed): value for seed, value in pairs if np.isfinite(value)}
