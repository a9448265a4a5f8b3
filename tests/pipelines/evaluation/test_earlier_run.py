"""A run is compared with the case table of another one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from condvae.ground.configuration import ConfigurationError
from pipelines.evaluation.judging import compare_runs


def make_table(samplers, better_by=0.0):
    cases = pd.DataFrame(
        {
            "case_id": ["q-0", "q-1", "q-2", "q-3"],
            "image_id": [1, 2, 1, 3],
            "image_sha256": ["a", "b", "a", "c"],
            "bin": ["0_20", "0_20", "20_40", "20_40"],
            "observed_share": [0.1, 0.1, 0.3, 0.3],
            "metric": "perceptual_best_of_k",
            "value": np.array([0.5, 0.2, 0.9, 0.4]) - better_by,
            "weight": 1.0,
        }
    )
    return pd.concat([cases.assign(sampler=name) for name in samplers], ignore_index=True)


def test_samplers_of_both_runs_are_compared(tmp_path):
    path = str(tmp_path / "cases.parquet")
    make_table(["ipa", "untrained"]).to_parquet(path)
    rows = compare_runs(make_table(["ipa", "prior"], better_by=0.1), path, 0.9, 0)
    assert {(row["sampler_a"], row["sampler_b"]) for row in rows} == {("ipa", "ipa (earlier run)")}
    assert [row["bin"] for row in rows] == ["0_20", "20_40", "pooled"]
    for row in rows:
        assert row["difference"] == pytest.approx(-0.1)
    make_table(["ipa"]).assign(observed_share=0.2).to_parquet(path)
    with pytest.raises(ConfigurationError, match="differ in observed_share"):
        compare_runs(make_table(["ipa"]), path, 0.9, 0)


def test_what_is_no_case_table_is_named(tmp_path):
    path = tmp_path / "cases.parquet"
    path.write_bytes(b"text")
    with pytest.raises(ConfigurationError, match="compare_with"):
        compare_runs(make_table(["ipa"]), str(path), 0.9, 0)
    make_table(["ipa"]).drop(columns="weight").to_parquet(path)
    with pytest.raises(ConfigurationError, match="no column weight"):
        compare_runs(make_table(["ipa"]), str(path), 0.9, 0)
