from __future__ import annotations

import json

import pandas as pd
import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner

from condvae.data import open_images
from condvae.ground.configuration import ConfigurationError
from pipelines.catalog.validation import GXValidator
from pipelines.data_preparation import create_pipeline
from pipelines.data_preparation.nodes import document_manifest_node, prepare_images_node


@pytest.fixture
def folders(tmp_path):
    return {"images": str(tmp_path / "intermediate"), "data_docs": str(tmp_path / "docs")}


@pytest.fixture
def data():
    return {"name": "few_digits", "limit": 60, "image_size": 8, "channels": 3}


def test_the_store_is_described(data, folders):
    store, _ = prepare_images_node(data, folders)
    assert json.loads(json.dumps(store)) == store
    images = open_images(store["folder"])
    assert store["folder"] == f"{folders['images']}/few_digits"
    assert store["count"] == len(images.records) == 60
    assert (store["image_size"], store["channels"]) == (8, 3)
    assert (store["fingerprint"], store["images_sha256"]) == (
        images.fingerprint,
        images.images_sha256,
    )
    assert (store["training_mean"], store["training_std"]) == images.training_moments()
    assert store["class_names"] == list("0123456789")
    assert (store["name"], store["duplicates_dropped"]) == ("few_digits", 0)


def test_the_manifest_has_a_row_per_record_and_meets_its_suite(data, folders, tmp_path):
    store, manifest = prepare_images_node(data, folders)
    images = open_images(store["folder"])
    assert list(manifest["sha256"]) == [record.sha256 for record in images.records]
    assert list(manifest["label"]) == images.labels.tolist()
    assert str(manifest["label"].dtype) == "Int64"
    for channel in range(3):
        expected = [record.std[channel] for record in images.records]
        assert list(manifest[f"std_{channel}"]) == expected
    manifest.to_parquet(tmp_path / "manifest.parquet")
    GXValidator("manifest").validate(pd.read_parquet(tmp_path / "manifest.parquet"))


def test_relative_folders_are_taken_as_given(data, folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store, _ = prepare_images_node(data, {"images": "data/02_intermediate"})
    assert store["folder"] == "data/02_intermediate/few_digits"
    assert (tmp_path / store["folder"] / "meta.json").is_file()


def test_a_misspelt_parameter_is_refused(folders):
    with pytest.raises(ConfigurationError, match=r"data\.image_sise .*data\.image_size"):
        prepare_images_node({"image_sise": 8}, folders)


def test_the_manifest_is_documented(data, folders, tmp_path):
    _, manifest = prepare_images_node(data, folders)
    docs = document_manifest_node(manifest, folders)
    assert docs["success"] is True
    assert (tmp_path / "docs" / docs["index"]).is_file()


def test_the_pipeline_runs_and_its_nodes_are_named(data, folders):
    pipeline = create_pipeline()
    assert [node.name for node in pipeline.nodes] == [
        "prepare_images_node",
        "document_manifest_node",
    ]
    outputs = ("image_store", "manifest", "data_docs")
    catalog = DataCatalog(
        {
            "params:data": MemoryDataset(data),
            "params:folders": MemoryDataset(folders),
            **{name: MemoryDataset() for name in outputs},
        }
    )
    SequentialRunner().run(pipeline, catalog)
    assert catalog.load("image_store")["count"] == 60
    assert catalog.load("data_docs")["success"] is True
