"""A project in a folder with a registry that is no database, and the nodes of `reevaluate` in a row."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from condvae.data import DataConfig, prepare_images
from condvae.models import find_model
from condvae.models.folder import read_card
from pipelines.data_preparation.nodes import _describe_store
from pipelines.evaluation.nodes import train_features
from pipelines.reevaluation import judging, nodes, page
from pipelines.runs.registry import RegisteredPosterior, current_environment

ROOT = Path(__file__).resolve().parents[3]
EVALUATION = {
    "quick": {"cases_per_bin": 10, "completions": 9},
    "full": {"masks_per_image": 1, "completions": 9},
    "feature_network": {"features": 8, "epochs": 4},
}


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """Images and feature network, for all tests."""
    folder = tmp_path_factory.mktemp("prepared")
    images = prepare_images(DataConfig(limit=600, validation_share=0.2), folder / "digits")
    store = _describe_store(images)
    features = train_features(store, EVALUATION, {"features": str(folder)}, "cpu")
    return SimpleNamespace(images=images, store=store, features=features)


class Registry:
    """One champion; its evaluation is stored beside it."""

    def __init__(self, folder: Path) -> None:
        shutil.copytree(find_model("digits_inpainting"), folder / "posterior")
        self.folder = folder
        card = read_card(folder / "posterior")
        self.champion = RegisteredPosterior(
            *("condvae-inpainting-digits", "1", folder / "posterior", card["sha256"]),
            *(None, current_environment(), None, None, None, None, 1.0),
        )
        self.earlier = {}

    def open_registered(self, name, alias="champion"):
        assert (name, alias) == (self.champion.name, "champion")
        return self.champion

    def open_version(self, name, version):
        """Another champion may have come meanwhile."""
        assert name == self.champion.name
        return {self.champion.version: self.champion, **self.earlier}[version]

    def store_baseline(self, registered, *, cases, calibration, manifest, facts):
        from condvae.ground.files import sha256_of_file

        files = {"cases": cases, "calibration": calibration, "manifest": manifest}
        kept = {key: self.folder / path.name for key, path in files.items()}
        for key, path in files.items():
            shutil.copy(path, kept[key])
        sha256 = sha256_of_file(manifest)
        self.champion = replace(self.champion, **kept, manifest_sha256=sha256, facts=facts)
        return self.champion


class Project:
    """What a project has on the disk, and its parameters."""

    def __init__(self, folder: Path, prepared) -> None:
        self.folder, self.prepared = folder, prepared
        self.registry = Registry(folder / "registry")
        self.reevaluate = {"folder": str(folder / "reevaluate"), "permutations": 199}
        self.sampling = {}

    def run(self, **reevaluate):
        """Verdict of one run, through all nodes."""
        parameters = SimpleNamespace(
            reevaluate=self.reevaluate | reevaluate,
            masks=yaml.safe_load((ROOT / "conf/base/parameters/masks.yml").read_text())["masks"],
            folders={"evaluation": str(self.folder), "features": str(self.folder)},
        )
        store, features = self.prepared.store, self.prepared.features
        drawn_with = self.sampling, EVALUATION, parameters.folders, "cpu"
        task, data = {"name": "inpainting", "options": {}}, {"name": "digits"}
        self.inputs = nodes.open_champion(
            store, parameters.reevaluate, data, task, parameters.masks, *drawn_with
        )
        self.scores = nodes.evaluate_champion(
            self.inputs, store, features, parameters.reevaluate, *drawn_with
        )
        self.arrivals = nodes.inspect_arrivals(self.inputs, store, parameters.reevaluate)
        self.drift = nodes.measure_arrivals(
            *(self.inputs, self.arrivals, store, features, parameters.reevaluate),
            *(parameters.masks, *drawn_with),
        )
        found = self.inputs, self.scores, self.arrivals, self.drift
        self.verdict = nodes.conclude(*found)
        self.found = self.verdict, *found, parameters.reevaluate
        return self.verdict

    def page(self):
        """What the page of the last run says."""
        written = page.write_page(*self.found)
        return (Path(written["folder"]) / page.PAGE).read_text()

    def know_scores(self):
        """Have the scores of the frozen cases from the first evaluation: with other inputs, none."""
        shutil.copytree(self.known, self.folder / "reevaluate" / "results")

    def about(self):
        """What the reasons are about."""
        return {reason["about"] for reason in self.verdict["reasons"]}


@pytest.fixture(scope="session")
def evaluated(prepared, tmp_path_factory):
    """A project that was re-evaluated once: the champion has its evaluation. To be copied."""
    project = Project(tmp_path_factory.mktemp("evaluated"), prepared)
    with pytest.MonkeyPatch.context() as patch:
        _use(patch, project.registry)
        project.run()
    return project


@pytest.fixture
def project(evaluated, prepared, tmp_path, monkeypatch):
    """A copy of it for one test."""
    copy = Project(tmp_path / "project", prepared)
    shutil.copytree(evaluated.folder / "registry", copy.registry.folder, dirs_exist_ok=True)
    champion = evaluated.registry.champion
    moved = {
        key: copy.registry.folder / getattr(champion, key).name
        for key in ("folder", "cases", "calibration", "manifest")
    }
    copy.registry.champion = replace(champion, **moved)
    copy.first = evaluated.verdict
    copy.known = evaluated.folder / "reevaluate" / "results"
    _use(monkeypatch, copy.registry)
    return copy


def _use(patch, registry):
    patch.setattr(nodes, "open_registered", registry.open_registered)
    patch.setattr(judging, "open_version", registry.open_version)
    patch.setattr(judging, "store_baseline", registry.store_baseline)
