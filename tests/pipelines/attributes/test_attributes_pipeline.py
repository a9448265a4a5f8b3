"""`attributes` from the parameters of the environment `test` to model, tables, pictures and page."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from types import SimpleNamespace

import click
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from matplotlib.figure import Figure
from PIL import Image

from condvae.cvae.evaluation import EvaluationSettings
from condvae.cvae.folder import load_cvae
from condvae.cvae.generation import sample, sweep
from condvae.ground.attributes import Attribute
from condvae.ground.configuration import ConfigurationError, read_config
from condvae.ground.files import sha256_of_file
from condvae.scores.attribute_definitions import ATTRIBUTE_METRICS
from pipelines.app.hooks import ParameterHooks
from pipelines.attributes import judging, pictures
from pipelines.attributes.choices import find_ties
from pipelines.attributes.judging import BayesClassifier
from pipelines.attributes.nodes import StageMetrics, metric_names, open_attributed
from pipelines.attributes.pictures import draw_training
from pipelines.parameters import AttributesConfig
from pipelines.pipeline_registry import register_pipelines
from pipelines.runs import tracking


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("attributes")


@pytest.fixture(scope="module")
def done(run_nodes, folder):
    return run_nodes("attributes", folder)


def test_model_folder_opens_and_draws(done, folder):
    described = done["flat_vae"]
    assert Path(described["folder"]) == folder / "06_models/attributes/model"
    model, card = load_cvae(described["folder"])
    assert card["hold_out"] == [{"class": "0", "slant": "right"}]
    assert card["weights_source"]["run"] == described["run"]
    names = ["class", "odd", "at_least_five", "slant", "thickness", "size"]
    assert [a.name for a in model.attributes] == names
    y = torch.full((2, 6), torch.nan)
    assert sample(model, y, 3).shape == (3, 2, 1, 16, 16)


def test_table_is_tidy_and_complete(done):
    table = done["attribute_metrics"]
    json.dumps(table.to_dict("records"))
    keys = ["metric", "attribute", "group", "pixels"]
    assert not table.duplicated(keys).any()
    for metric in (
        *("log_prob_nats", "bits_per_dim", "information_used_nats", "attribute_accuracy"),
        *("attribute_accuracy_of_ceiling", "frechet_distance", "diversity_features"),
        *("bayes_accuracy", "bayes_calibration_error"),
    ):
        assert metric in set(table["metric"]), metric
    assert set(table["metric"]) <= set(ATTRIBUTE_METRICS)
    assert set(table["model"]) == {done["flat_vae"]["sha256"]}
    logged = done["logged"]
    row = table[(table["metric"] == "bits_per_dim") & (table["group"] == "all")].iloc[0]
    assert logged["attributes/all/bits_per_dim/all/none"] == row["value"]
    # Every stage streams under its own name.
    assert {"cvae/train/loss", "prior/train/loss", "prior/validation/bits_per_dim"} <= set(logged)


def test_probabilities_are_those_of_the_test_images(done):
    found = done["attribute_probabilities"]
    rows = (done["manifest"]["split"] == "test").sum()
    assert found["labels"].shape == (rows, 6)
    assert found["class"].shape == (rows, 10)
    np.testing.assert_allclose(found["slant"].sum(axis=1), 1)


def test_page_stands_alone_and_shows_every_use(done, folder):
    files = done["attribute_files"]
    place = folder / "08_reporting/attributes"
    assert files["folder"] == place.as_posix()
    shown = {"samples.png", "single_values.png", "held_out.png", "sweep_slant.png", "edits.png"}
    assert shown | {"paths.png", "paths_noise.png"} <= set(files["figures"])
    assert shown | {"confusion.png", "reliability.png"} <= set(files["figures"])
    for name in files["figures"]:
        assert (place / name).read_bytes().startswith(b"\x89PNG")
    page = (place / files["page"]).read_text()
    assert page.count("data:image/png;base64,") == len(files["figures"])
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "class = 0, slant = right" in page
    text = html.unescape(page)
    for metric in set(done["attribute_metrics"]["metric"]):
        assert f"<td>{metric}</td>" in page
        assert ATTRIBUTE_METRICS[metric].definition in text


def test_curves_have_the_units_of_what_is_minimised(done):
    pictures = {p.name: p.figure for p in draw_training(done["flat_vae_history"])}
    titles = {
        name: [axes.get_title("left") for axes in figure.axes] for name, figure in pictures.items()
    }
    # The first stage minimises nats per dimension, the second nats of p(z | y).
    assert titles["training_cvae.png"][0] == "Loss (nats per dimension)"
    assert titles["training_prior.png"][0] == "Loss (nats)"
    row = done["flat_vae_history"]["cvae"][0]
    total = row["train/distortion_nats"] + row["train/kl_nats"]
    assert row["train/loss"] == pytest.approx(total / 256, rel=1e-4)
    for own in titles.values():
        assert "KL (nats)" in own
        assert not any("standard error" in title or title == "Prior (nats)" for title in own)


def test_samples_are_of_different_conditions_beside_their_images(done, folder, monkeypatch):
    asked = {}

    def plot(rows, **more):
        asked[more.get("title", "all")] = (list(rows), more.get("real"))
        return Figure()

    monkeypatch.setattr(pictures, "plot_attribute_samples", plot)
    known = open_attributed(
        *(done[k] for k in ("image_store", "attribute_table", "attribute_facts"))
    )
    model, _ = load_cvae(done["flat_vae"]["folder"])
    pictures._draw_samples(model, known, 2, 0)
    pictures._draw_single_values(model, known.table, 2, 0)
    labels, real = asked["all"]
    assert len(labels) == len(set(labels)) == len(real) == 8
    test = known.rows("test")
    for label, image in zip(labels, real, strict=True):
        (row,) = [r for r in test if (known.images.pixels[r] == image).all()][:1]
        words = known.table.describe(known.table.rows([row]))[0]
        assert label == ", ".join(f"{k} = {v}" for k, v in words.items())
    assert "class = 3" in asked["Samples for one value"][0]


def test_pictures_change_what_a_value_settles_and_nothing_else(done, monkeypatch):
    """What is shown are `sweep` and `edit`, but that digit 7 is odd in all of them."""
    shown = {}
    for name in ("plot_attribute_sweep", "plot_edits", "plot_condition_paths"):
        monkeypatch.setattr(
            pictures, name, lambda images, *_, **__: shown.update(it=images) or Figure()
        )
    known = open_attributed(
        *(done[k] for k in ("image_store", "attribute_table", "attribute_facts"))
    )
    model, _ = load_cvae(done["flat_vae"]["folder"])
    table, ties = known.table, find_ties(known.table, known.rows("train"))
    y = table.rows(known.rows("test")[:1])
    pictures._draw_sweep(model, known, "slant", ties["slant"], 3)
    free = table.values[known.rows("test")[:1]].clone()
    expected = sweep(model, free.repeat(4, 1), "slant", 3)
    np.testing.assert_array_equal(shown["it"], expected.movedim(2, -1))
    wanted = y.clone()
    for name, value in (("class", "7"), ("odd", "yes"), ("at_least_five", "yes")):
        wanted[:, table.index(name)] = table.parse({name: value})[0, table.index(name)]
    pictures._draw_sweep(model, known, "class", ties["class"], 3)
    np.testing.assert_array_equal(
        shown["it"][0, 7], sample(model, wanted, 1, 3)[0, 0].movedim(0, -1)
    )
    first, noisy = pictures._draw_paths(model, known, ties, 3)
    assert "Given besides: slant" in first.caption
    assert "odd" not in first.caption
    assert "arc" in noisy.caption


def test_held_out_images_have_a_sample_each(done, monkeypatch):
    shown = {}
    monkeypatch.setattr(
        pictures, "plot_attribute_samples", lambda rows, **_: shown.update(rows) or Figure()
    )
    known = open_attributed(
        *(done[k] for k in ("image_store", "attribute_table", "attribute_facts"))
    )
    model, _ = load_cvae(done["flat_vae"]["folder"])
    combination = {"class": "0", "slant": "right"}
    pictures._draw_held_out(model, known, [combination], 3, 0)
    real, drawn = shown.values()
    assert list(shown) == ["class = 0, slant = right, real", "class = 0, slant = right, sampled"]
    rows = [
        int(np.flatnonzero((known.images.pixels == image).all(axis=(1, 2, 3)))[0]) for image in real
    ]
    assert known.held_out[rows].all()
    expected = sample(model, known.table.rows(rows), 1, 0)[0]
    np.testing.assert_array_equal(drawn, expected.movedim(1, -1))


def test_same_again_trains_nothing_and_gives_the_same(done, run_nodes, folder):
    checkpoints = {p: p.stat().st_mtime_ns for p in folder.rglob("checkpoint-*.pt")}
    judge = Path(done["attribute_classifier"]["folder"]) / "model.safetensors"
    before = judge.stat().st_mtime_ns
    again = run_nodes("attributes", folder)
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("checkpoint-*.pt")} == checkpoints
    assert judge.stat().st_mtime_ns == before
    assert again["flat_vae"]["sha256"] == done["flat_vae"]["sha256"]
    weights = Path(again["flat_vae"]["folder"]) / "model.safetensors"
    assert sha256_of_file(weights) == done["flat_vae"]["sha256"]
    pd.testing.assert_frame_equal(again["attribute_metrics"], done["attribute_metrics"])


def test_a_mixture_has_no_edits_and_needs_no_held_out_combination(run_nodes, tmp_path):
    changes = {
        "attributes": {"conditions": ["class", "size:continuous"], "hold_out": []},
        "cvae": {"prior": "mixture", "training": "joint"},
    }
    done = run_nodes("attributes", tmp_path, changes)
    figures = done["attribute_files"]["figures"]
    assert "sweep_size.png" in figures
    assert not {"edits.png", "held_out.png", "training_prior.png"} & set(figures)
    table = done["attribute_metrics"]
    assert set(table["group"]) == {"all", "alone"}
    # A continuous attribute has no share of right ones.
    assert set(table.loc[table["group"] == "alone", "attribute"]) == {"class"}


def test_a_folder_of_pictures_with_a_file_of_attributes(run_nodes, tmp_path):
    """With the parameters of the page on images from attributes."""
    rng = np.random.default_rng(0)
    rows = ["file,hair,glasses,age"]
    for i in range(90):
        name = f"{'ab'[i % 2]}/{i}.png"
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(path)
        hair, glasses = ("red", "fair", "grey", "")[i % 4], ("yes", "no", "")[i % 3]
        rows.append(f"{name},{hair},{glasses},{20 + i if i % 5 else ''}")
    (tmp_path / "attributes.csv").write_text("\n".join([*rows, "elsewhere.png,red,no,3"]))
    page = (Path(__file__).resolve().parents[3] / "docs/attributes.md").read_text()
    (example,) = re.findall(r"```yaml\n(data: .*?)```", page, flags=re.DOTALL)
    parameters = yaml.safe_load(example.replace("PATH", str(tmp_path)))
    parameters["data"]["limit"] = None
    done = run_nodes("attributes", tmp_path / "data", parameters)
    model, card = load_cvae(done["flat_vae"]["folder"])
    assert [a.name for a in model.attributes] == ["hair", "glasses", "age", "brightness"]
    assert [a.is_continuous for a in model.attributes] == [False, False, True, False]
    assert card["hold_out"] == [{"hair": "red", "glasses": "yes"}]
    assert (model.contract.channels, model.contract.size) == (3, 32)
    frame = done["attribute_table"]
    both = (frame["attribute_hair"] == "red") & (frame["attribute_glasses"] == "yes")
    np.testing.assert_array_equal(frame["held_out"], both)
    assert both.sum() == 8
    assert frame["attribute_age"].isna().sum() == 18
    table = done["attribute_metrics"]
    assert {"attribute_rmse", "attribute_correlation"} <= set(table["metric"])
    assert set(table["metric"]) <= set(ATTRIBUTE_METRICS)
    figures = set(done["attribute_files"]["figures"])
    assert {"held_out.png", "sweep_age.png", "edits.png", "samples.png"} <= figures


def test_bayes_knows_nothing_of_other_attributes():
    attributes = (Attribute("class", ("a", "b")), Attribute("odd", ("no", "yes")))

    class Model:
        def log_prob(self, pixels, y, draws, *, seed, batch_size):
            assert y[:, 1].isnan().all()
            return torch.where(y[:, 0] == 0, 0.0, torch.tensor([2.0, -1.0], dtype=torch.float64))

    model = Model()
    model.attributes = attributes
    training = torch.tensor([[0.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
    bayes = BayesClassifier(attributes, training, 8)
    y = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    found = bayes(model, torch.zeros(2, 1, 8, 8), y, "class", 1, seed=0)
    odds = np.exp([2.0, -1.0]) / 3  # a is three times as common
    np.testing.assert_allclose(found[:, 1], odds / (1 + odds))
    assert bayes.found["class"] is not None


def test_single_values_are_asked_for_alone(monkeypatch):
    attributes = (Attribute("class", ("a", "b")), Attribute("odd", ("no", "yes")))
    y = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [0.0, torch.nan]])

    def draw(model, wanted, n, seed, **_):
        assert (~wanted.isnan()).sum(dim=0).min() == 0
        # Pixel k is attribute k; what is unknown is drawn as 0, and class b as class a in draw 0.
        drawn = wanted.nan_to_num().expand(n, *wanted.shape).clone()
        drawn[0, :, 0] = 0
        return drawn.to(torch.uint8)[:, :, :, None, None]

    def read(network, images, batch_size):
        values = images.flatten(1).double().numpy()
        return SimpleNamespace(values=values)

    monkeypatch.setattr(judging, "sample", draw)
    monkeypatch.setattr(judging, "predict_attributes", read)
    model = SimpleNamespace(attributes=attributes, device="cpu")
    real = y.nan_to_num().to(torch.uint8)[:, :, None, None]
    settings = EvaluationSettings(samples=2)
    found = judging.score_single_values(model, None, real, y, "eye", settings)
    values = {(r["metric"], r["attribute"]): (r["value"], r["n"]) for r in found}
    assert values == {
        # Of eight images two, b in draw 0, are wrong.
        ("attribute_accuracy", "class"): (0.75, 8),
        ("attribute_accuracy_of_ceiling", "class"): (0.75, 8),
        ("attribute_accuracy", "odd"): (1.0, 6),
        ("attribute_accuracy_of_ceiling", "odd"): (1.0, 6),
    }
    assert {(r["group"], r["pixels"], r["extractor"]) for r in found} == {("alone", "mean", "eye")}


def test_stages_do_not_share_steps(monkeypatch):
    logged = []
    monkeypatch.setattr(tracking, "log_metrics", lambda v, step: logged.append((step, dict(v))))
    stages = StageMetrics()
    for name in ("cvae", "prior"):
        stages.on_start(name, 0, 2, 8)
        stages.on_metrics(1, {"train/loss": 3.0})
    assert [next(iter(values)) for _, values in logged] == ["cvae/train/loss", "prior/train/loss"]


def test_names_are_such_as_mlflow_takes():
    row = {"group": "all", "metric": "f", "attribute": "class=3 (a)", "pixels": None, "value": 1.0}
    assert metric_names([row, {**row, "value": None}, {**row, "value": float("nan")}]) == {
        "attributes/all/f/class_3 _a_/none": 1.0
    }


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"conditions": []}, r"attributes\.conditions = \[\]: expected at least one name"),
        ({"conditions": ["class", "class:low|high"]}, "expected at least one name, each once"),
        (
            {"hold_out": [{"class": 3}]},
            r"attributes\.hold_out = {'class': 3}: expected values of at",
        ),
        (
            {"hold_out": [{"class": 3, "slent": "left"}]},
            r"hold_out: attribute = 'slent': expected one of class, slant \(did you mean 'slant'",
        ),
        ({"classifier": {"features": 33}}, r"classifier\.features = 33: expected 1 to 32"),
        ({"evaluation": {"samples": 1}}, r"evaluation\.samples = 1: expected at least 2"),
        ({"shown": 0}, r"attributes\.shown = 0: expected > 0"),
    ],
)
def test_impossible_settings_are_refused(values, message):
    with pytest.raises(ConfigurationError, match=message):
        read_config(AttributesConfig, {"conditions": ["class", "slant"], **values}, "attributes")


@pytest.mark.parametrize("name", ["attributes", "attributes_ladder"])
def test_missing_file_of_attributes_is_refused_before_the_run(tmp_path, name):
    class Catalog:
        def load(self, name):
            assert name == "params:attributes"
            return {"conditions": ["a"], "csv": "nowhere.csv"}

    run = {"project_path": str(tmp_path)}
    with pytest.raises(click.ClickException, match=r"attributes.csv = 'nowhere.csv': no such file"):
        ParameterHooks().before_pipeline_run(run, register_pipelines()[name], Catalog())
