"""Names, triggers and inputs of MLflow runs."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from pipelines.runs import labels as run_labels
from pipelines.runs.inputs import describe_inputs
from pipelines.runs.labels import TRIGGER, git_state, list_packages, name_run, trigger


@pytest.mark.parametrize(
    ("pipelines", "recipe", "given", "name"),
    [
        (["__default__"], "tuned", {}, "inpaint-tuned"),
        (["inpaint"], "published", {"recipe": "published", "device": "cpu"}, "inpaint-published"),
        (["complete"], None, {}, "complete"),
        (["data_preparation", "pretrain"], "tuned", {}, "data_preparation+pretrain-tuned"),
        (
            ["inpaint"],
            "tuned",
            {"training": {"steps": 400, "learning_rate": 0.001}, "seed": 1},
            "inpaint-tuned steps=400 learning_rate=0.001 seed=1",
        ),
        # What a shell or `compare.runs` would trip over.
        (["score"], None, {"score": {"samples": "my dir/'x'"}}, "score samples=my_dir_x_"),
    ],
)
def test_name_says_pipeline_recipe_and_what_was_given(pipelines, recipe, given, name):
    assert name_run(pipelines, recipe, given) == name


def test_long_names_are_cut():
    assert len(name_run(["inpaint"], "tuned", {"a": "b" * 200})) == 80


def test_trigger_comes_from_the_environment(monkeypatch):
    monkeypatch.delenv(TRIGGER, raising=False)
    assert trigger() == "manual"
    monkeypatch.setenv(TRIGGER, "schedule")
    assert trigger() == "schedule"
    monkeypatch.setenv(TRIGGER, " ")
    assert trigger() == "manual"


def test_packages_are_listed_as_pip_takes_them():
    lines = list_packages().splitlines()
    names = [line.split("==")[0].lower() for line in lines]
    assert {"torch", "mlflow", "kedro"} <= set(names)
    assert len(set(lines)) == len(lines)


@pytest.mark.parametrize(("trains", "context"), [(True, "training"), (False, "evaluation")])
def test_images_are_an_input_with_their_fingerprint(tmp_path, trains, context):
    store = {
        **{"name": "digits", "folder": str(tmp_path), "fingerprint": "ab" * 32},
        **{"count": 120, "image_size": 16, "channels": 1},
    }
    (found,) = describe_inputs("image_store", store, trains=trains)
    assert (found.dataset.name, found.dataset.digest) == ("digits", "ab" * 18)
    assert json.loads(found.dataset.source) == {"uri": str(tmp_path)}
    assert json.loads(found.dataset.profile) == {"num_rows": 120, "shape": [120, 16, 16, 1]}
    tags = {tag.key: tag.value for tag in found.tags}
    assert tags == {"mlflow.data.context": context, "sha256": "ab" * 32}


def test_cases_are_an_input_of_the_evaluation(tmp_path):
    manifest = {
        **{"path": str(tmp_path / "cases_full.jsonl"), "sha256": "cd" * 32},
        **{"cases": 20, "completions": 3, "size": "full"},
    }
    (found,) = describe_inputs("evaluation_manifest", manifest, trains=True)
    assert (found.dataset.name, found.dataset.digest) == ("cases_full", "cd" * 18)
    assert {tag.key: tag.value for tag in found.tags}["mlflow.data.context"] == "evaluation"
    assert describe_inputs("metrics", {}, trains=True) == []
    # Of a re-evaluation: what it was asked about is known with the champion.
    inputs = {"manifest": manifest, "new_data": None, "arrived": [], "arrived_sha256": "0" * 64}
    assert describe_inputs("reevaluation_inputs", inputs, trains=False) == [found]
    inputs |= {"manifest": None, "new_data": str(tmp_path), "arrived": ["a.png", "b.png"]}
    (arrived,) = describe_inputs("reevaluation_inputs", inputs, trains=False)
    assert (arrived.dataset.name, arrived.dataset.digest) == ("new_data", "0" * 36)
    assert json.loads(arrived.dataset.profile) == {"num_rows": 2}


def test_looking_at_the_repository_takes_no_lock(tmp_path, monkeypatch):
    """A commit that is made while a run begins must not find the index locked."""
    file, index = tmp_path / "module.py", tmp_path / ".git" / "index"
    file.write_text("a = 1\n")
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    monkeypatch.setattr(run_labels, "__file__", str(file))
    assert git_state()["git_dirty"] == "false"
    # Other times, same content: git would like to write the new times into the index.
    os.utime(file, (1, 1))
    before = index.read_bytes()
    assert git_state()["git_dirty"] == "false"
    assert index.read_bytes() == before
    file.write_text("a = 2\n")
    assert git_state()["git_dirty"] == "true"
