"""Datasets give back what they were given, and a failed save leaves the old file."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from kedro.io import DatasetError

from pipelines.catalog.datasets import ArraysDataset, JsonDataset, TableDataset

TABLE = pd.DataFrame(
    {"metric": ["a", "b"], "value": [0.1 + 0.2, 1e-300], "n": [1, 2], "missing": [None, 2.5]}
)


@pytest.mark.parametrize("suffix", ["parquet", "csv", "json"])
def test_table_round_trip(tmp_path, suffix):
    dataset = TableDataset(filepath=str(tmp_path / f"sub/table.{suffix}"))
    assert not dataset.exists()
    dataset.save(TABLE)
    assert dataset.exists()
    pd.testing.assert_frame_equal(dataset.load(), TABLE, rtol=1e-15)


def test_table_of_unknown_kind_is_refused(tmp_path):
    dataset = TableDataset(filepath=str(tmp_path / "table.xls"))
    with pytest.raises(DatasetError, match=r"expected \.parquet, \.csv or \.json"):
        dataset.save(TABLE)


def test_arrays_round_trip(tmp_path):
    dataset = ArraysDataset(filepath=str(tmp_path / "arrays.npz"))
    arrays = {"completions/ipa": np.arange(6, dtype=np.uint8).reshape(2, 3), "ids": np.array(["x"])}
    dataset.save(arrays)
    loaded = dataset.load()
    assert set(loaded) == set(arrays)
    for name, value in arrays.items():
        np.testing.assert_array_equal(loaded[name], value)


def test_failed_save_leaves_the_old_file_and_no_other(tmp_path):
    dataset = JsonDataset(filepath=str(tmp_path / "value.json"))
    dataset.save({"a": [1, None]})
    with pytest.raises(DatasetError):
        dataset.save({"a": float("nan")})
    assert dataset.load() == {"a": [1, None]}
    assert [path.name for path in tmp_path.iterdir()] == ["value.json"]
