"""What MLflow's pages show first: names before all others in the alphabet, and their values."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import yaml

from condvae.scores.definitions import METRICS
from pipelines.runs.summary import (
    HEADLINE,
    SCORES,
    name_scores,
    summarise_parameters,
    summarise_scores,
)

ROOT = Path(__file__).resolve().parents[3]


def test_parameters_of_the_configuration_are_found():
    parameters = {}
    for path in (ROOT / "conf" / "base" / "parameters").glob("*.yml"):
        parameters |= yaml.safe_load(path.read_text())
    found = summarise_parameters(parameters)
    assert found["about.recipe"] == "tuned"
    assert found["about.flows"] == "none"
    assert found["about.steps"] == str(parameters["training"]["steps"])
    # MLflow's comparison takes the first three that differ, by the alphabet.
    trained_with = ("data", "masks", "model", "recipe", "task", "training")
    assert max(found) < min(trained_with)


def test_scores_are_those_of_the_first_sampler_over_all_cases():
    rows = [
        (metric, where, sampler, 100 * m + 10 * b + s)
        for m, metric in enumerate(["crps_per_unobserved_dim", "posterior_coverage", "recall"])
        for b, where in enumerate(["0_20", "pooled"])
        for s, sampler in enumerate(["ipa", "prior"])
    ]
    table = pd.DataFrame(rows, columns=["metric", "bin", "sampler", "value"])
    table = table.assign(extractor="pixels")
    assert summarise_scores(table) == {HEADLINE: 10.0, "about/coverage": 110.0}
    # Of a distance between features the network is named.
    distance = table.assign(metric="frechet_distance", extractor="inception")[3:4].assign(value=5.0)
    distance = distance.assign(sampler="ipa", bin="pooled")
    found = summarise_scores(pd.concat([table, distance]))
    assert found["about/frechet_inception"] == 5.0
    names = name_scores(table)
    assert len(names) == len(table)
    assert names["eval/pooled/posterior_coverage/pixels"] == 110.0
    assert names["eval_prior/0_20/recall/pixels"] == 201.0
    # Charts are in sections by the alphabet.
    assert min(names) > HEADLINE
    assert set(SCORES) <= set(METRICS)
