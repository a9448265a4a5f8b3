"""Data sets as inputs of MLflow runs: what a run was trained and judged on, with hashes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow.data.meta_dataset import MetaDataset
from mlflow.data.sources import LocalArtifactDatasetSource
from mlflow.entities import Dataset, DatasetInput, InputTag
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

__all__ = ["describe_input"]

# MLflow cuts nothing and takes no more; the whole hash is a tag of the input.
LONGEST_DIGEST = 36


def describe_input(output: str, value: Any, *, trains: bool) -> DatasetInput | None:
    """Describe what a node has returned as an input of the run.

    Args:
        output: Name in the catalog; ``image_store`` and ``evaluation_manifest`` are inputs.
        value: Its content.
        trains: Whether the run trains a model, on these images.

    Returns:
        Name, digest (the first 36 characters of fingerprint or sha256), place and size; the context is
        ``training`` or ``evaluation``. None for any other output.
    """
    if output == "image_store":
        size = value["image_size"]
        shape = [value["count"], size, size, value["channels"]]
        profile = {"num_rows": value["count"], "shape": shape}
        context = "training" if trains else "evaluation"
        return _make_input(value["name"], value["folder"], value["fingerprint"], profile, context)
    if output == "evaluation_manifest":
        profile = {"num_rows": value["cases"], "completions": value["completions"]}
        name = f"cases_{value['size']}"
        return _make_input(name, value["path"], value["sha256"], profile, "evaluation")
    return None


def _make_input(
    name: str, path: str, sha256: str, profile: Mapping[str, Any], context: str
) -> DatasetInput:
    source = LocalArtifactDatasetSource(str(Path(path).resolve()))
    described = MetaDataset(source, name=name, digest=sha256[:LONGEST_DIGEST]).to_dict()
    tags = {MLFLOW_DATASET_CONTEXT: context, "sha256": sha256}
    return DatasetInput(
        Dataset(**{**described, "profile": json.dumps(profile)}),
        [InputTag(key, text) for key, text in tags.items()],
    )
