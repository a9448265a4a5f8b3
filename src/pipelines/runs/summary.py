"""What MLflow's pages are to show first of a run: a few parameters and scores under short names.

The page that compares runs opens with the first three parameters that differ, by the alphabet, and
with the metric that was logged first; charts are in sections by what stands before the last slash, by
the alphabet too. Among hundreds of names those that matter would be far down, and too long for an axis
or the head of a chart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from condvae.evaluation.bins import POOLED

__all__ = ["HEADLINE", "PLACE", "name_scores", "summarise_parameters", "summarise_scores"]

PLACE = "about"
# Scores over all cases that tell runs apart at first sight -> short name.
SCORES = {
    "crps_per_unobserved_dim": "crps",
    "energy_score_pixels": "energy",
    "bound_bits_per_unobserved_dim": "bits",
    "posterior_coverage": "coverage",
    "frechet_distance": "frechet",
    "posterior_mean_rmse": "rmse",
}
HEADLINE = f"{PLACE}/crps"
# Short name -> section and key of a parameter that decides what is trained.
PARAMETERS = {
    "data": ("data", "name"),
    "flows": ("model", "flows"),
    "objective": ("objective", "name"),
    "start": ("model", "initialisation"),
    "steps": ("training", "steps"),
    "task": ("task", "name"),
}


def summarise_parameters(parameters: Mapping[str, Any]) -> dict[str, str]:
    """``about.<name>`` of a run that trains a partial encoder -> value.

    Args:
        parameters: All of the run, nested.
    """
    found = {name: parameters[section][key] for name, (section, key) in PARAMETERS.items()}
    found |= {"recipe": parameters["recipe"], "seed": parameters["seed"]}
    return {f"{PLACE}.{name}": str(found[name]) or "none" for name in sorted(found)}


def summarise_scores(table: pd.DataFrame) -> dict[str, float]:
    """``about/<name>`` -> score of the first sampler over all cases, ``frechet`` with its extractor.

    Args:
        table: Tidy scores of an evaluation.
    """
    first = table[(table["sampler"] == table["sampler"].iloc[0]) & (table["bin"] == POOLED)]
    found = {}
    for metric, extractor, value in zip(
        first["metric"], first["extractor"], first["value"], strict=True
    ):
        if metric in SCORES:
            # A distance means nothing without the network whose features it is taken in.
            of = f"_{extractor}" if metric == "frechet_distance" else ""
            found[f"{PLACE}/{SCORES[metric]}{of}"] = float(value)
    return found


def name_scores(table: pd.DataFrame) -> dict[str, float]:
    """``eval/<bin>/<metric>/<extractor>`` for the first sampler, ``eval_<sampler>/...`` for others.

    Args:
        table: Tidy scores of an evaluation.
    """
    names = {}
    for row in table.itertuples():
        root = "eval" if row.sampler == table["sampler"].iloc[0] else f"eval_{row.sampler}"
        names[f"{root}/{row.bin}/{row.metric}/{row.extractor}"] = float(str(row.value))
    return names
