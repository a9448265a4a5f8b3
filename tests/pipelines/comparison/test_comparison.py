"""Runs in a real MLflow database, with scores made up so that the differences are known."""

from __future__ import annotations

import json
import re
import shutil
from types import SimpleNamespace
from urllib.parse import urlsplit
from urllib.request import url2pathname

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from condvae.ground.configuration import ConfigurationError, read_config
from pipelines.comparison.finding import find_runs, read_run
from pipelines.comparison.matching import (
    check_runs,
    join_examples,
    keep_common_cases,
    label_runs,
    list_incomparable,
)
from pipelines.comparison.nodes import gather_runs, list_differences, write_comparison
from pipelines.parameters import CompareConfig

CRPS, ENERGY = "crps_per_unobserved_dim", "energy_score_features"
MANIFEST = "3f" * 32


def case_table(better_by=0.0, cases=8):
    """Two cases in each of four bins; CRPS is a ratio with weight 10, so 10 times as large here."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "case_id": [f"quick-{i:05d}" for i in range(cases)],
            "image_id": range(cases),
            "image_sha256": [f"{i:064x}" for i in range(cases)],
            "bin": [("0_20", "20_40", "40_60", "60_80")[i // 2 % 4] for i in range(cases)],
            "observed_share": [0.1 + 0.2 * (i // 2 % 4) for i in range(cases)],
        }
    )
    values = rng.uniform(5.0, 9.0, (2, cases))
    crps = table.assign(metric=CRPS, value=10 * (values[0] - better_by), weight=10.0)
    energy = table.assign(metric=ENERGY, value=values[1], weight=1.0)
    ours = pd.concat([crps, energy]).assign(sampler="ipa")
    return pd.concat([ours, ours.assign(sampler="prior", value=99.0)], ignore_index=True)


def metric_table(cases, k=5, manifest=MANIFEST):
    rows = []
    for (sampler, metric), own in cases.groupby(["sampler", "metric"], sort=False):
        for name, group in [*own.groupby("bin"), ("pooled", own)]:
            value = group["value"].sum() / group["weight"].sum()
            rows.append(
                {"metric": metric, "bin": name, "sampler": sampler, "value": value}
                | {"standard_error": 0.1, "low": value - 0.2, "high": value + 0.2, "level": 0.95}
                | {"n": len(group), "k": k if metric == ENERGY else 1, "temperature": 1.0}
                | {"extractor": "f2" if metric == ENERGY else "pixels", "settings": ""}
                | {"seed": 0, "manifest": manifest}
            )
    return pd.DataFrame(rows)


def example_arrays(shade, cases=(0, 2)):
    ids = np.array([f"quick-{i:05d}" for i in cases])
    shape = (len(cases), 8, 8, 1)
    masks = np.zeros(shape[:3], bool)
    masks[:, :4] = True
    arrays = {
        "case_ids": ids,
        "bins": np.array([i // 2 for i in cases]),
        "labels": np.array([""] * len(cases)),
        "masks": masks,
        "truths": np.full(shape, 7, np.uint8),
    }
    for sampler in ("ipa", "prior"):
        arrays[f"completions/{sampler}"] = np.full((3, *shape), shade, np.uint8)
        arrays[f"mean/{sampler}"] = np.full(shape, shade, np.float32)
        arrays[f"standard_deviation/{sampler}"] = np.ones(shape, np.float32)
    return arrays


@pytest.fixture(scope="module")
def database(tmp_path_factory, make_mlflow_database):
    """A database and `add`, which makes a run in it; returns its id."""
    folder = tmp_path_factory.mktemp("mlflow")
    uri = make_mlflow_database(folder)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    client = MlflowClient(uri)
    experiment = client.create_experiment("condvae", artifact_location=str(folder / "artifacts"))
    started = iter(range(1_000_000, 2_000_000))

    def add(name, cases=None, *, task="inpainting", examples=None, k=5, manifest=MANIFEST, steps=6):
        run = client.create_run(experiment, start_time=next(started), run_name=name).info.run_id
        client.log_param(run, "training.steps", steps)
        client.log_param(run, "about.steps", steps)  # the same once more
        client.log_param(run, "seed", 0)
        client.set_tag(run, "recipe", "tuned")
        if cases is not None:
            report = folder / run
            report.mkdir()
            cases.to_parquet(report / "cases.parquet")
            table = metric_table(cases, k, manifest)
            table.to_json(report / "metrics.json", orient="records")
            facts = {"task": task, "manifest": manifest, "data": {"name": "digits"}}
            (report / "run_facts.json").write_text(json.dumps(facts))
            if examples is not None:
                np.savez(report / "examples.npz", **examples)
            client.log_artifacts(run, str(report), "report")
        client.set_terminated(run)
        return run

    yield SimpleNamespace(client=client, add=add)
    mlflow.set_tracking_uri(before)


@pytest.fixture(scope="module")
def runs(database):
    """Run b is better than run a by 0.5 in CRPS everywhere; c has scored half of the cases."""
    return SimpleNamespace(
        a=database.add("tuned", case_table(), examples=example_arrays(10)),
        b=database.add("wide", case_table(0.5), examples=example_arrays(20, (2, 0)), steps=9),
        c=database.add("tuned", case_table(0.25, 4), k=7, manifest="4a" * 32),
        empty=database.add("pretrain"),
    )


def test_runs_are_found_by_id_name_and_last(database, runs):
    def found(*named):
        return [run.info.run_id for run in find_runs(database.client, named)]

    assert found(runs.b, runs.a[:8]) == [runs.b, runs.a]
    # Of one name the newest; the very newest run has no scores and is not `last`.
    assert found("tuned", "wide") == [runs.c, runs.b]
    assert found("last", "wide") == [runs.c, runs.b]


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (
            ["nothing", "wide"],
            r"no run 'nothing'; the newest runs are \w{8} \(pretrain\), \w{8} \(",
        ),
        (["0" * 32, "wide"], "no run '0{32}'"),
        (["pretrain", "wide"], r"run \w{8} \(pretrain\) has no artifact report/cases.parquet"),
        (["tuned", "last"], "'last' is run .* named before"),
    ],
)
def test_runs_that_cannot_be_compared_are_named(database, runs, named, message):
    with pytest.raises(ConfigurationError, match=message):
        find_runs(database.client, named)


def test_scores_that_were_removed_are_said_to_be_missing(database):
    lost = database.add("lost", case_table())
    database.client.log_metric(lost, f"eval/pooled/{CRPS}/pixels", 1.0)
    place = url2pathname(urlsplit(database.client.get_run(lost).info.artifact_uri).path)
    shutil.rmtree(place)
    where = f"was evaluated, but its artifact report/cases.parquet is not in .*{lost}"
    with pytest.raises(ConfigurationError, match=rf"run {lost[:8]} \(lost\) {where}"):
        find_runs(database.client, [lost])
    experiment = database.client.get_run(lost).info.experiment_id
    alone = SimpleNamespace(
        search_experiments=lambda: [SimpleNamespace(experiment_id=experiment)],
        search_runs=lambda *_, **__: [database.client.get_run(lost)],
        list_artifacts=database.client.list_artifacts,
    )
    with pytest.raises(
        ConfigurationError, match=rf"'last' is no run.*; {lost[:8]} \(lost\) {where}"
    ):
        find_runs(alone, ["last"])
    database.client.delete_run(lost)


def test_differences_are_those_of_the_first_samplers(runs):
    compare = {"runs": f"{runs.a}+{runs.b}"}
    facts, metrics, cases, examples = gather_runs(compare)
    assert [run["label"] for run in facts["runs"]] == ["tuned", "wide"]
    assert facts["runs"][1]["parameters"] == {"training.steps": "9"}
    assert (facts["manifest"], facts["cases"], facts["left_out"]) == (MANIFEST, 8, {})
    assert (facts["reference_run"], facts["compared_runs"]) == (runs.a, runs.b)
    assert set(metrics["sampler"]) == set(cases["sampler"]) == {"tuned", "wide"}
    assert metrics["value"].max() < 99
    rows, _ = list_differences(facts, cases, compare)
    crps = rows[rows["metric"] == CRPS].set_index("bin")
    assert list(crps.index) == ["0_20", "20_40", "40_60", "60_80", "pooled"]
    # The same for every case: no other value can be drawn.
    assert crps[["difference", "low", "high"]].to_numpy() == pytest.approx(-0.5)
    assert crps.loc["pooled", "n"] == 8
    means = metrics[(metrics["metric"] == CRPS) & (metrics["bin"] == "pooled")].set_index("sampler")
    relative = -0.5 / means.loc["tuned", "value"]
    assert crps.loc["pooled", "relative_difference"] == pytest.approx(relative)
    assert rows[rows["metric"] == ENERGY]["difference"].to_numpy() == pytest.approx(0.0)
    assert set(rows["run_a"]) == {runs.b}
    assert set(rows["run_b"]) == {runs.a}
    # The second run kept its examples in another order.
    assert examples["case_ids"].tolist() == ["quick-00000", "quick-00002"]
    assert np.all(examples["completions/tuned"] == 10)
    assert np.all(examples["completions/wide"] == 20)
    assert not any("prior" in key for key in examples)


def test_page_and_figures_are_written(runs, tmp_path):
    compare = {"runs": f"{runs.a}+{runs.b}"}
    facts, metrics, cases, examples = gather_runs(compare)
    rows, _ = list_differences(facts, cases, compare)
    files = write_comparison(facts, metrics, rows, examples, {"comparison": str(tmp_path)})
    page = (tmp_path / files["page"]).read_text()
    assert "wide lower than tuned by 0.5000" in page
    # One of the two proper scores is lower, the other the same.
    assert "1 better, 0 worse, 1 not clear" in page
    assert "training.steps" in page
    assert "<script" not in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    figures = {path.name for path in tmp_path.glob("*.png")}
    assert figures == {
        "differences.png",
        "pictures.png",
        f"metric_{CRPS}.png",
        f"metric_{ENERGY}.png",
    }
    assert set(files["files"]) == {
        *figures,
        *("comparison.html", "runs.json", "differences.json", "differences.csv", "metrics.json"),
    }


def test_other_manifests_are_refused_or_cut_to_common_cases(runs, tmp_path):
    named = f"{runs.a}+{runs.c}"
    with pytest.raises(ConfigurationError, match=f"{MANIFEST}.*{'4a' * 32}.*compare.cases=common"):
        gather_runs({"runs": named})
    compare = {"runs": named, "cases": "common"}
    facts, metrics, cases, examples = gather_runs(compare)
    # Both are called so.
    assert [run["label"] for run in facts["runs"]] == [f"tuned {runs.a[:8]}", f"tuned {runs.c[:8]}"]
    assert "manifest" not in facts
    assert (facts["cases"], len(metrics), examples) == (4, 0, {})
    # Five and seven completions of a case.
    assert facts["left_out"] == {ENERGY: "k: 5, 7"}
    rows, _ = list_differences(facts, cases, compare)
    assert set(rows["metric"]) == {CRPS}
    # The tables draw the same numbers only for equal sizes: computed here.
    a, c = (
        case_table(b, n).query("sampler == 'ipa' and metric == @CRPS")
        for b, n in ((0, 8), (0.25, 4))
    )
    expected = (c["value"].to_numpy() - a["value"].to_numpy()[:4]).sum() / 40
    assert rows.set_index("bin").loc["pooled", "difference"] == pytest.approx(expected)
    files = write_comparison(facts, metrics, rows, examples, {"comparison": str(tmp_path)})
    assert "pictures.png" not in files["files"]
    page = (tmp_path / files["page"]).read_text()
    assert "Not every run has kept its examples" in page
    assert "k: 5, 7" in page


def test_other_tasks_and_strange_cases_are_refused(database, runs):
    client = database.client
    other = database.add("up", case_table(), task="super_resolution")
    records = [read_run(client, run) for run in find_runs(client, [runs.a, other])]
    with pytest.raises(
        ConfigurationError, match=r"\(tuned\): inpainting, .*\(up\): super_resolution"
    ):
        check_runs(records, "common")
    tables = [case_table(), case_table().assign(observed_share=0.33)]
    with pytest.raises(ConfigurationError, match="no case in common"):
        keep_common_cases(tables)


def test_long_names_are_shortened():
    def label(*named):
        runs = [
            SimpleNamespace(info=SimpleNamespace(run_name=n, run_id=f"{i:032x}"[::-1]))
            for i, n in enumerate(named, start=1)
        ]
        return label_runs(runs)

    long = "inpaint-tuned steps=400 learning_rate=0.002"
    assert label(long, "wide steps=4") == ["inpaint-tuned 10000000", "wide steps=4"]
    assert max(map(len, label("x" * 80, long))) <= 32


def test_pictures_of_other_masks_are_not_set_side_by_side(database, runs):
    client = database.client
    first, second = (read_run(client, run) for run in find_runs(client, [runs.a, runs.b]))
    assert list_incomparable([first, second]) == {}
    labels = label_runs([first.run, second.run])
    second.examples["masks"][0, 0, 0] = False  # of quick-00002
    assert join_examples([first, second], labels)["case_ids"].tolist() == ["quick-00000"]
    second.examples["truths"][:] = 8
    assert join_examples([first, second], labels) == {}


@pytest.mark.parametrize("runs_given", [None, "a", "a+", " + "])
def test_one_run_is_none_to_compare(runs_given):
    config = read_config(CompareConfig, {"runs": runs_given}, "compare")
    with pytest.raises(ConfigurationError, match="two runs"):
        config.check_inputs()


@pytest.mark.parametrize("values", [{"cases": "some"}, {"level": 1.0}, {"seed": -1}])
def test_wrong_settings_are_refused(values):
    with pytest.raises(ConfigurationError, match="compare"):
        read_config(CompareConfig, values, "compare")
    assert read_config(CompareConfig, {"runs": "a b + c"}, "compare").named == ["a b", "c"]
