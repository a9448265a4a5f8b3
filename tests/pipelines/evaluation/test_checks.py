"""What an evaluation needs is looked for before anything is computed."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
import yaml

from pipelines.app.hooks import ParameterHooks
from pipelines.pipeline_registry import register_pipelines

CONF = Path(__file__).resolve().parents[3] / "conf/base/parameters"


class Catalog:
    """Parameters of the project with some of them changed."""

    def __init__(self, **changes):
        self.sections = {}
        for name in ("score", "evaluation"):
            self.sections |= yaml.safe_load((CONF / f"{name}.yml").read_text())
        for name, change in changes.items():
            self.sections[name] |= change

    def load(self, name):
        return self.sections[name.removeprefix("params:")]


def begin(pipeline, folder, **changes):
    chosen = register_pipelines()[pipeline]
    hooks = ParameterHooks()
    hooks.before_pipeline_run({"project_path": str(folder)}, chosen, Catalog(**changes))
    hooks.after_pipeline_run()


@pytest.mark.parametrize(
    ("score", "message"),
    [
        ({}, "score.samples = None: expected the completions to score"),
        ({"samples": "nothing"}, "score.samples = 'nothing': no such file or folder"),
        ({"samples": "there", "manifest": "a"}, "score.manifest = 'a': no such file or folder"),
    ],
)
def test_score_without_completions_is_refused(tmp_path, score, message):
    (tmp_path / "there").mkdir()
    with pytest.raises(click.ClickException) as caught:
        begin("score", tmp_path, score=score)
    assert message in caught.value.message
    begin("score", tmp_path, score={"samples": "there"})
    begin("export", tmp_path)


@pytest.mark.parametrize(
    ("role", "name", "file"),
    [
        ("fidelity", "inception", "weights-inception-2015-12-05-6726825d.pth"),
        ("perceptual", "lpips_alex", "alexnet-owt-7be5be79.pth"),
    ],
)
def test_missing_or_wrong_extractors_are_refused(tmp_path, monkeypatch, role, name, file):
    monkeypatch.setenv("CONDVAE_CACHE", str(tmp_path / "empty"))
    missing = {role: {"name": name}}
    for pipeline in ("inpaint", "evaluate"):
        with pytest.raises(click.ClickException) as caught:
            begin(pipeline, tmp_path, evaluation=missing)
        assert caught.value.message.startswith(f"evaluation.{role}: {name} needs {file} (sha256")
    (tmp_path / "weights.pth").write_bytes(b"others")
    with pytest.raises(click.ClickException, match=r"weights\.pth has sha256"):
        begin("inpaint", tmp_path, evaluation={role: {"name": name, "weights": "weights.pth"}})
    begin("export", tmp_path, evaluation=missing)


def test_an_earlier_run_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(click.ClickException, match="compare_with = 'a': no such file"):
        begin("inpaint", tmp_path, evaluation={"compare_with": "a"})
