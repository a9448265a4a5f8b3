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

__all__ = ["describe_inputs"]

# MLflow cuts nothing and takes no more; the whole hash is a tag of the input.
LONGEST_DIGEST = 36


def describe_inputs(output: str, value: Any, *, trains: bool) -> list[DatasetInput]:
    """Describe what a node has returned as inputs of the run.

    Args:
        output: Name in the catalog; ``image_store``, ``evaluation_manifest`` and
            ``reevaluation_inputs`` name inputs.
        value: Its content.
        trains: Whether the run trains a model, on these images.

    Returns:
        Name, digest (the first 36 characters of fingerprint or sha256), place and size of each; the
        context is ``training`` or ``evaluation``. [] for any other output.
    """
    if output == "image_store":
        size = value["image_size"]
        shape = [value["count"], size, size, value["channels"]]
        profile = {"num_rows": value["count"], "shape": shape}
        context = "training" if trains else "evaluation"
        path, sha256 = value["folder"], value["fingerprint"]
        return [_make_input(value["name"], path, sha256, profile, context)]
    if output == "evaluation_manifest":
        return [_describe_manifest(value)]
    if output == "reevaluation_inputs":
        found = [] if value["manifest"] is None else [_describe_manifest(value["manifest"])]
        if value["new_data"] is not None:
            profile = {"num_rows": len(value["arrived"])}
            sha256 = value["arrived_sha256"]
            found.append(_make_input("new_data", value["new_data"], sha256, profile, "evaluation"))
        return found
    return []


def _describe_manifest(manifest: Mapping[str, Any]) -> DatasetInput:
    profile = {"num_rows": manifest["cases"], "completions": manifest["completions"]}
    name = f"cases_{manifest['size']}"
    return _make_input(name, manifest["path"], manifest["sha256"], profile, "evaluation")


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
