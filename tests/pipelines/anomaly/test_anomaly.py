"""`anomaly` from the parameters of the environment `test` to tables, figures and AUROC."""

from __future__ import annotations

import dataclasses
import json

import click
import numpy as np
import pandas as pd
import pytest

from condvae.data import DataConfig, prepare_images
from condvae.ground.configuration import ConfigurationError, read_config
from condvae.models import find_model
from condvae.models.folder import read_card
from pipelines.anomaly import create_pipeline
from pipelines.app.hooks import ParameterHooks
from pipelines.parameters import AnomalyConfig
from pipelines.pipeline_registry import register_pipelines
from pipelines.runs import tracking

SETTINGS = {"against": ["noise", "inverted"], "cases_per_bin": 6, "reference_pairs": 60, "draws": 1}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return prepare_images(DataConfig(limit=120), tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def run_pipeline(images, tmp_path_factory):
    """Runs the nodes in memory on the bundled model; returns their outputs and MLflow metrics."""

    def run(**changes):
        folder = tmp_path_factory.mktemp("anomaly")
        store = {
            "folder": str(images.folder),
            "name": "digits",
            "fingerprint": images.fingerprint,
            "image_size": 16,
        }
        posterior = find_model("digits_inpainting")
        model = {"folder": str(posterior), "sha256": read_card(posterior)["sha256"]}
        values = {
            "image_store": store,
            "posterior": model,
            "params:anomaly": {**SETTINGS, **changes},
            "params:masks": {},
            "params:task": {},
            "params:sampling": {},
            "params:device": "cpu",
            "params:folders": {"anomaly": str(folder)},
        }
        logged = {}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tracking, "log_metrics", logged.update)
            for node in create_pipeline().nodes:
                values |= node.run({name: values[name] for name in node.inputs})
        return folder, values, logged

    return run


@pytest.fixture(scope="module")
def done(run_pipeline):
    return run_pipeline()


def test_every_set_is_scored_behind_the_same_masks(done):
    _, outputs, _ = done
    scores = outputs["anomaly_scores"]
    assert list(dict.fromkeys(scores["set"])) == ["test", "noise", "inverted"]
    by_case = scores.groupby(["set", "score"])["case_id"].apply(tuple)
    assert by_case.nunique() == 1
    assert (scores["observed_share"] > 0).all()
    assert scores["value"].notna().any()


def test_foreign_digits_are_told(done):
    _, outputs, logged = done
    table = outputs["anomaly_auroc"]
    assert list(table.columns) == [
        *("set", "score", "bin", "value", "standard_error", "n_normal", "n_foreign"),
        *("reference_pairs", "draws", "seed", "posterior"),
    ]
    assert set(table["score"]) == {"temperature_gradient", "bound", "input_check"}
    # With hardly any error here: noise and negatives are nothing like digits.
    assert (table.loc[table["bin"] == "pooled", "value"] > 0.8).all()
    assert len(logged) == len(table)
    (first,) = table[: len(table)].head(1).itertuples()
    assert logged[f"anomaly/{first.set}/{first.score}/{first.bin}"] == first.value


def test_files_lie_where_they_are_announced(done):
    folder, outputs, _ = done
    files = outputs["anomaly_files"]
    assert files == {"folder": folder.as_posix(), "figures": ["auroc.png", "scores.png"]}
    for name in files["figures"]:
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    json.dumps(files)


def test_images_of_a_file_are_one_more_set(run_pipeline, tmp_path):
    other = np.random.default_rng(0).integers(100, 150, (3, 16, 16), dtype=np.uint8)
    np.savez(tmp_path / "fog.npz", images=other)
    few = {"cases_per_bin": 2, "reference_pairs": 30}
    _, outputs, _ = run_pipeline(against=[], path=str(tmp_path / "fog.npz"), **few)
    scores = outputs["anomaly_scores"]
    fog = scores[scores["set"] == "fog"]
    # Three images in turn, each one cluster of its own.
    assert set(fog["image"]) <= {"fog 0", "fog 1", "fog 2"}
    assert set(outputs["anomaly_auroc"]["set"]) == {"fog"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"against": ["turned"]}, r"anomaly\.against = 'turned': expected one of"),
        ({"against": ["noise", "noise"]}, "a set is named twice"),
        ({"against": []}, "expected one foreign set at least"),
        ({"path": "a/noise.npz"}, "'noise' is the name of another set"),
        ({"path": "test"}, "'test' is the name of another set"),
        ({"cases_per_bin": 0}, r"anomaly\.cases_per_bin = 0: expected > 0"),
        ({"reference_pairs": 2}, r"anomaly\.reference_pairs = 2: expected at least 3"),
        ({"draws": 0}, r"anomaly\.draws = 0: expected > 0"),
    ],
)
def test_impossible_settings_are_refused(values, message):
    with pytest.raises(ConfigurationError, match=message):
        read_config(AnomalyConfig, values, "anomaly")


def test_missing_images_are_refused_before_the_run(tmp_path):
    class Catalog:
        def load(self, name):
            assert name == "params:anomaly"
            return dataclasses.asdict(AnomalyConfig(path="nowhere"))

    run = {"project_path": str(tmp_path)}
    with pytest.raises(click.ClickException, match=r"anomaly.path = 'nowhere': no such file"):
        ParameterHooks().before_pipeline_run(run, register_pipelines()["anomaly"], Catalog())


def test_table_is_stable(run_pipeline):
    few = {"against": ["inverted"], "cases_per_bin": 2, "reference_pairs": 30}
    one, two = (run_pipeline(**few)[1]["anomaly_auroc"] for _ in range(2))
    pd.testing.assert_frame_equal(one, two)
