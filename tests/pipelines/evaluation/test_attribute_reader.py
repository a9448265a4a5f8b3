"""Attributes that y says are read off completions, from an npz file to the table of metrics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from condvae.ground.configuration import read_config
from condvae.ground.images import to_nchw
from pipelines.data_preparation.nodes import prepare_images_node
from pipelines.evaluation.attribute_reader import describe_asked
from pipelines.evaluation.judging import (
    _choose_examples,
    judge_source,
    open_bench,
    tabulate_judgements,
)
from pipelines.evaluation.nodes import build_manifest, collect_facts, train_features
from pipelines.parameters import EvaluationConfig
from pipelines.runs import tracking

QUICK = {"cases_per_bin": 8, "completions": 3, "bound_draws": [], "samplers": ["ipa"]}
EVALUATION = {"quick": QUICK, "full": QUICK, "feature_network": {"features": 4, "epochs": 6}}
NAMES = ("bright_above", "bright_left", "striped")
# The third attribute cannot be seen, and y does not say it.
TASK = {"name": "attributes", "options": {"count": 3, "chosen": [0, 1]}}


class Drawn:
    """Completions (S,N,C,H,W) made before."""

    def __init__(self, array, identity):
        self.array, self.identity, self.completions = array, identity, len(array)

    def draw(self, start, stop):
        return self.array[:, start:stop]

    def bound(self, start, stop):
        return None


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """Folders, store and feature network of noise whose halves may be brighter."""
    folder = tmp_path_factory.mktemp("attributes")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 120, (260, 16, 16), np.uint8)
    attributes = rng.integers(0, 2, (260, 3))
    pixels[:, :8] += 60 * attributes[:, 0, None, None].astype(np.uint8)
    pixels[:, :, :8] += 60 * attributes[:, 1, None, None].astype(np.uint8)
    np.savez(
        folder / "halves.npz", images=pixels, attributes=attributes, attribute_names=list(NAMES)
    )
    data = {"name": "halves", "source": "npz", "path": str(folder / "halves.npz")}
    folders = {name: str(folder / name) for name in ("images", "features", "evaluation")}
    with pytest.MonkeyPatch.context() as patch:
        logged = {}
        patch.setattr(tracking, "log_metrics", logged.update)
        store = prepare_images_node(data, folders)[0]
        network = train_features(store, EVALUATION, folders, "cpu", TASK)
    return folders, store, network, logged


@pytest.fixture
def bench(setting):
    folders, store, network, _ = setting
    masks = {"kinds": {"half": 1.0}}
    manifest = build_manifest(store, EVALUATION, masks, TASK, folders, "quick")
    settings = read_config(EvaluationConfig, EVALUATION, "evaluation")
    return open_bench(store, manifest, network, settings, TASK, folders, "cpu")


def test_reader_is_described_and_trained_once(setting):
    folders, store, network, logged = setting
    reader = network["attributes"]
    assert reader["extractor"] == "halves_attributes_f4"
    assert reader["accuracy"] > 0.9
    assert logged["features/accuracy/halves_attributes_f4"] == reader["accuracy"]
    again = train_features(store, EVALUATION, folders, "cpu", TASK)
    assert again["attributes"] == reader
    for task in (None, {"name": "inpainting"}, {"name": "super_resolution"}):
        assert "attributes" not in train_features(store, EVALUATION, folders, "cpu", task)


def test_agreement_is_high_for_images_that_show_them_and_low_for_others(setting, bench):
    _, _, network, _ = setting
    assert bench.attributes.shape == (len(bench.cases), 3)
    assert (bench.attributes[:, 2] == -1).all()
    np.testing.assert_array_equal(
        bench.attributes[:, :2], bench.images.attributes[bench.rows][:, :2]
    )
    values, known = bench.attributes[:, :2], bench.images.attributes[:, :2]
    # Of each case an image with neither of its values.
    other = [int(np.flatnonzero((known != value).all(axis=1))[0]) for value in values]
    opposite = to_nchw(torch.from_numpy(bench.images.pixels[other]))
    judged = {}
    for name, images in (("true", bench.truths), ("opposite", opposite)):
        source = Drawn(images.expand(3, -1, -1, -1, -1), name)
        judged[name] = judge_source(bench, name, source, math.nan)
    scores = {name: one.scores.values["attribute_agreement"] for name, one in judged.items()}
    assert scores["true"].mean() / 2 > 0.9
    assert scores["opposite"].mean() / 2 < 0.1
    table, _, comparisons, _, _, _, _, facts = tabulate_judgements(bench, judged)
    rows = table[table["metric"] == "attribute_agreement"].set_index("sampler")
    assert rows.loc["true", "value"] == pytest.approx(scores["true"].sum() / (2 * len(values)))
    assert set(rows["extractor"]) == {"halves_attributes_f4"}
    assert "attribute_agreement" in set(comparisons["metric"])
    found = collect_facts(bench.image_store, {}, network, {**facts, "ours": False}, "cpu")
    assert found["attribute_reader"]["accuracy"] == network["attributes"]["accuracy"]
    reader = network["attributes"]
    assert found["extractor_hashes"][reader["extractor"]] == reader["sha256"]


def test_pictures_are_of_different_attributes_and_say_which(bench):
    chosen = _choose_examples(bench)
    assert len({tuple(bench.attributes[i]) for i in chosen}) == len(chosen) == 4


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ([1, 0, -1], "bright_above, n…"),
        ([-1, 0, -1], "no bright_left"),
        ([0, 0, 1], "striped"),
        ([0, 0, 0], "none of 3"),
        ([-1, -1, -1], ""),
    ],
)
def test_words_for_attributes(asked, words):
    assert describe_asked(np.array(asked), NAMES) == words


def test_more_attributes_than_have_room_are_counted():
    assert describe_asked(np.array([1, 1, 0, 1]), "abcd") == "a, b +1"
    assert describe_asked(np.ones(12, int), ["eyeglasses", *"bcdefghijkl"]) == "eyeglasses,… +10"
