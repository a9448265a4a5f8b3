"""What MLflow's pages are to show first of a run: a few parameters and scores under short names.

The page that compares runs opens with the first three parameters that differ, by the alphabet, and
with the metric that was logged first; charts are in sections by what stands before the last slash, by
the alphabet too. Among hundreds of names those that matter would be far down, and too long for an axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from condvae.evaluation.grouping import POOLED

__all__ = ["HEADLINE", "name_scores", "summarise_parameters", "summarise_scores"]

PLACE = "at_a_glance"
# Scores over all cases that tell runs apart at first sight -> short name.
SCORES = {
    "crps_per_unobserved_dim": "crps",
    "energy_score_pixels": "energy_score",
    "bound_bits_per_unobserved_dim": "bound_bits_per_dim",
    "posterior_coverage": "coverage_of_90",
    "frechet_distance": "frechet_distance",
    "sample_rmse": "sample_rmse",
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
    """``at_a_glance.<name>`` of a run that trains a partial encoder -> value.

    Args:
        parameters: All of the run, nested.
    """
    found = {name: parameters[section][key] for name, (section, key) in PARAMETERS.items()}
    found |= {"recipe": parameters["recipe"], "seed": parameters["seed"]}
    return {f"{PLACE}.{name}": str(found[name]) or "none" for name in sorted(found)}


def summarise_scores(table: pd.DataFrame) -> dict[str, float]:
    """``at_a_glance/<name>`` -> score of the first sampler over all cases.

    Args:
        table: Tidy scores of an evaluation.
    """
    first = table[(table["sampler"] == table["sampler"].iloc[0]) & (table["bin"] == POOLED)]
    pooled = first.set_index("metric")["value"]
    return {
        f"{PLACE}/{name}": float(pooled[key]) for key, name in SCORES.items() if key in pooled.index
    }


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
