from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest
from kedro.io import DataCatalog
from kedro.pipeline import Node, Pipeline
from kedro.runner import SequentialRunner
from kedro.validation import DataValidationError

from condvae.ground.configuration import ConfigurationError
from pipelines.catalog import validation
from pipelines.catalog.validation import SUITES, GXValidator, write_data_docs


@pytest.fixture
def manifest():
    count = 12
    return pd.DataFrame(
        {
            "row": range(count),
            "origin": [f"images[{i}]" for i in range(count)],
            "sha256": [f"{i:064x}" for i in range(count)],
            "width": 8,
            "height": 8,
            "mode": "L",
            "split": ["train", "validation", "test"] * 4,
            "label": pd.array(np.arange(count) % 3, dtype="Int64"),
            "mean_0": 100.0,
            "std_0": 20.0,
        }
    )


@pytest.fixture
def metrics():
    names = ["frechet_distance", "perceptual_diversity", "negative_elbo_nats_per_dim"]
    return pd.DataFrame(
        {
            "metric": names,
            "bin": "pooled",
            "sampler": "ipa",
            "value": [-1e-9, 0.3, -2.0],
            "standard_error": [np.nan, 0.01, 0.0],
            "low": [np.nan, 0.28, -2.0],
            "high": [np.nan, 0.32, -2.0],
            "level": 0.95,
            "n": 50,
            "k": 4,
            "temperature": 1.0,
            "extractor": "digits_classifier_f32",
            "settings": "",
            "seed": 0,
            "manifest": "0" * 64,
        }
    )


def failures_of(suite, table):
    with pytest.raises(DataValidationError) as error:
        GXValidator(suite).validate(table)
    return error.value.failures


def test_an_unknown_suite_is_refused():
    with pytest.raises(ConfigurationError, match=r"suite = 'manifst'.*did you mean 'manifest'"):
        GXValidator("manifst")


def test_good_tables_come_back_unchanged(manifest, metrics):
    assert set(SUITES) == {"manifest", "metrics", "attributes"}
    assert GXValidator("manifest").validate(manifest) is manifest
    assert GXValidator("metrics").validate(metrics) is metrics


def test_labels_may_be_absent_for_all(manifest):
    manifest["label"] = pd.array([None] * len(manifest), dtype="Int64")
    GXValidator("manifest").validate(manifest)


def test_colour_statistics_are_checked_in_every_channel(manifest):
    for channel in (1, 2):
        manifest[f"mean_{channel}"], manifest[f"std_{channel}"] = 100.0, 20.0
    GXValidator("manifest").validate(manifest)
    manifest.loc[3, "std_2"] = -1.0
    (failure,) = failures_of("manifest", manifest)
    assert (failure.column, failure.failure_examples) == ("std_2", [-1.0])


@pytest.mark.parametrize(
    ("column", "value", "check"),
    [
        ("row", 0, "unique"),
        ("origin", "images[0]", "unique"),
        ("origin", None, "not_be_null"),
        ("sha256", f"{0:064x}", "unique"),
        ("sha256", "ABC", "regex"),
        ("width", 0, "between"),
        ("height", -1, "between"),
        ("split", "holdout", "in_set"),
        ("label", None, "not_be_null"),
        ("label", -1, "between"),
        ("mean_0", 256.0, "between"),
        ("mean_0", np.nan, "not_be_null"),
        ("std_0", -0.1, "between"),
    ],
)
def test_a_bad_manifest_value_is_named(manifest, column, value, check):
    manifest = manifest.astype({"origin": object, "sha256": object, "split": object})
    manifest.loc[5, column] = value
    (failure,) = failures_of("manifest", manifest)
    assert failure.column == column
    assert check in failure.check
    assert str(failure.failure_examples[0]) == str(
        pd.NA if column == "label" and value is None else value
    )


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_missing_split_is_named(manifest, split):
    (failure,) = failures_of("manifest", manifest[manifest["split"] != split])
    assert failure.column == "split"
    assert f"missing {split}" in failure.check


def test_a_published_validation_split_may_be_the_test_split(manifest):
    GXValidator("manifest").validate(manifest[manifest["split"] != "validation"])


def test_identical_images_must_be_marked(manifest):
    manifest.loc[5, "sha256"] = manifest.loc[2, "sha256"]
    manifest["duplicate_of"] = pd.array([None] * len(manifest), dtype="Int64")
    (failure,) = failures_of("manifest", manifest)
    assert failure.column == "sha256"
    manifest.loc[5, "duplicate_of"] = 2
    GXValidator("manifest").validate(manifest)


@pytest.mark.parametrize(("suite", "column"), [("manifest", "sha256"), ("metrics", "seed")])
def test_a_missing_column_is_named(request, suite, column):
    table = request.getfixturevalue(suite).drop(columns=column)
    checks = [failure.check for failure in failures_of(suite, table)]
    assert f"expect_table_columns_to_match_set: missing {column}" in checks


@pytest.mark.parametrize(
    ("row", "column", "value"),
    [
        (0, "value", -1e-3),
        (1, "value", -1e-3),
        (2, "value", np.nan),
        (2, "value", np.inf),
        (1, "standard_error", -0.1),
        (1, "standard_error", np.inf),
        (0, "n", 0),
    ],
)
def test_a_bad_metric_is_named(metrics, row, column, value):
    metrics.loc[row, column] = value
    (failure,) = failures_of("metrics", metrics)
    assert failure.column == column
    assert str(failure.failure_examples) == str([value])


def test_an_ordinary_metric_may_be_negative(metrics):
    metrics.loc[2, "value"] = -5.0
    GXValidator("metrics").validate(metrics)


def test_the_message_lists_column_expectation_and_values(manifest):
    manifest.loc[5, "width"] = 0
    with pytest.raises(DataValidationError) as error:
        GXValidator("manifest").validate(manifest)
    message = str(error.value)
    assert "does not meet suite 'manifest'" in message
    assert "width: expect_column_values_to_be_between(min_value=1" in message
    assert "1 case (e.g. 0)" in message


def test_something_else_than_a_table_is_refused():
    with pytest.raises(DataValidationError, match="expected a pandas DataFrame, got list"):
        GXValidator("manifest").validate([1, 2])


def test_validating_writes_no_files(manifest, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    GXValidator("manifest").validate(manifest)
    assert list(tmp_path.iterdir()) == []


def test_the_catalog_refuses_a_bad_manifest_before_the_next_node_runs(manifest, tmp_path):
    catalog = DataCatalog.from_config(
        {
            "manifest": {
                "type": "pandas.ParquetDataset",
                "filepath": str(tmp_path / "manifest.parquet"),
                "validator": {
                    "class": "pipelines.catalog.validation.GXValidator",
                    "options": {"suite": "manifest"},
                },
            }
        }
    )
    seen = []
    manifest["label"] = pd.array([None] * len(manifest), dtype="Int64")
    tables = {"good": manifest, "bad": manifest.assign(row=0)}

    def run(which):
        def make_table():
            return tables[which]

        nodes = [
            Node(make_table, None, "manifest", name="make_table_node"),
            Node(lambda table: seen.append(which) or len(table), "manifest", "n", name="use_node"),
        ]
        return SequentialRunner().run(Pipeline(nodes), catalog)

    with pytest.raises(DataValidationError, match=r"'manifest' on save[\s\S]*row: .*unique"):
        run("bad")
    assert seen == []
    assert not (tmp_path / "manifest.parquet").exists()
    run("good")
    assert seen == ["good"]
    # A file that was spoiled afterwards is refused on load.
    tables["bad"].to_parquet(tmp_path / "manifest.parquet")
    with pytest.raises(DataValidationError, match="'manifest' on load"):
        catalog.load("manifest")


class TestDataDocs:
    def test_runs_add_up_in_one_site(self, manifest, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        first = write_data_docs(manifest, "manifest", "docs", "images")
        assert first["success"] is True
        assert first["statistics"]["unsuccessful_expectations"] == 0
        bad = manifest.assign(std_0=np.inf, mean_1=300.0, std_1=np.nan)
        second = write_data_docs(bad, "manifest", "docs", "images")
        assert second["success"] is False
        json.dumps(second, allow_nan=False)
        index = (tmp_path / "docs" / second["index"]).read_text()
        assert (index.count(">passed<"), index.count(">failed<")) == (1, 1)
        assert index.index(">failed<") < index.index(">passed<")  # the latest first
        result = json.loads((tmp_path / "docs" / second["result"]).read_text())
        assert result["success"] is False
        assert [path.name for path in tmp_path.iterdir()] == ["docs"]

    def test_pages_need_no_network_and_links_lead_somewhere(self, manifest, tmp_path):
        made = write_data_docs(manifest, "manifest", tmp_path, "images")
        pages = list((tmp_path / "images").rglob("*.html"))
        assert len(pages) == 3  # index, suite, run
        for page in pages:
            text = page.read_text()
            assert not re.findall(r"<script|<link[^>]*http|<img[^>]*http|url\('http", text)
            for link in re.findall(r"<a[^>]*href=\"([^\"#]+)\"", text):
                assert link.startswith("http") or (page.parent / link).resolve().is_file()
        (run,) = (tmp_path / "images" / "validations").rglob("*.html")
        assert "sha256" in run.read_text()
        assert made["index"] == "images/index.html"

    def test_the_context_holds_no_absolute_path(self, manifest, tmp_path):
        write_data_docs(manifest, "manifest", tmp_path, "images")
        assert str(tmp_path) not in (tmp_path / "gx" / "great_expectations.yml").read_text()

    def test_two_suites_share_a_folder(self, manifest, metrics, tmp_path):
        write_data_docs(manifest, "manifest", tmp_path, "images")
        made = write_data_docs(metrics, "metrics", tmp_path, "scores")
        assert made["success"] is True
        assert (tmp_path / "images" / "index.html").is_file()
        assert (tmp_path / "scores" / "index.html").is_file()

    @pytest.mark.parametrize(
        ("damaged", "listed"),
        [
            ("gx/great_expectations.yml", 2),
            ("gx/uncommitted/config_variables.yml", 2),
            ("gx/expectations/manifest.json", 2),
            ("gx/validation_definitions/images.json", 2),
            ("gx/checkpoints/images.json", 2),
            ("gx/uncommitted/validations/**/*.json", 1),
        ],
    )
    def test_a_kill_in_the_middle_of_a_write_is_overcome(self, manifest, tmp_path, damaged, listed):
        write_data_docs(manifest, "manifest", tmp_path, "images")
        (path,) = tmp_path.glob(damaged)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        made = write_data_docs(manifest, "manifest", tmp_path, "images")
        assert made["success"] is True
        index = (tmp_path / made["index"]).read_text()
        assert index.count(">passed<") == listed  # the results of earlier runs are kept
        for link in re.findall(r"<a href=\"([^\"]+)\"", index):
            assert (tmp_path / "images" / link).is_file()

    @pytest.mark.parametrize("error", [OSError(28, "No space left"), ConfigurationError("no")])
    def test_what_is_no_damage_discards_nothing(self, manifest, tmp_path, monkeypatch, error):
        def fail(*_):
            raise error

        (tmp_path / "gx").mkdir()
        kept = tmp_path / "gx" / "great_expectations.yml"
        kept.write_text("whole")
        monkeypatch.setattr(validation, "_run_checkpoint", fail)
        with pytest.raises(type(error), match=str(error.args[-1])):
            write_data_docs(manifest, "manifest", tmp_path, "images")
        assert kept.read_text() == "whole"
