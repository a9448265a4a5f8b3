"""Kedro datasets whose files are either whole or absent."""

from __future__ import annotations

import io
import json
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from kedro.io import AbstractDataset, DatasetError

from condvae.ground.files import open_atomic, write_json

__all__ = ["ArraysDataset", "JsonDataset", "TableDataset"]


class _FileDataset:
    """Shared by the datasets below: a path and whether it exists."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = PurePosixPath(filepath)
        self.metadata = metadata

    @property
    def _path(self) -> Path:
        return Path(str(self._filepath))

    def _exists(self) -> bool:
        return self._path.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}


class JsonDataset(_FileDataset, AbstractDataset[Any, Any]):
    """A JSON file."""

    def load(self) -> Any:
        """Read the file."""
        return json.loads(self._path.read_text())

    def save(self, data: Any) -> None:
        """Write the file atomically."""
        write_json(self._path, data)


class TableDataset(_FileDataset, AbstractDataset[pd.DataFrame, pd.DataFrame]):
    """A table as ``.parquet``, ``.csv`` or ``.json`` (a list of records), by its suffix."""

    def load(self) -> pd.DataFrame:
        """Read the file."""
        match self._path.suffix:
            case ".parquet":
                return pd.read_parquet(self._path)
            case ".csv":
                return pd.read_csv(self._path)
            case ".json":
                return pd.DataFrame.from_records(json.loads(self._path.read_text()))
        raise DatasetError(f"{self._filepath}: expected .parquet, .csv or .json")

    def save(self, data: pd.DataFrame) -> None:
        """Write the file atomically."""
        match self._path.suffix:
            case ".parquet":
                content = data.to_parquet(index=False)
            case ".csv":
                content = data.to_csv(index=False).encode()
            case ".json":
                content = data.to_json(orient="records", indent=1, double_precision=15).encode()
            case _:
                raise DatasetError(f"{self._filepath}: expected .parquet, .csv or .json")
        with open_atomic(self._path) as file:
            file.write(content)


class ArraysDataset(_FileDataset, AbstractDataset[dict[str, Any], dict[str, Any]]):
    """Named arrays in a compressed ``.npz``."""

    def load(self) -> dict[str, Any]:
        """Read all arrays."""
        with np.load(self._path, allow_pickle=False) as arrays:
            return dict(arrays)

    def save(self, data: dict[str, Any]) -> None:
        """Write the file atomically."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **data)
        with open_atomic(self._path) as file:
            file.write(buffer.getvalue())
