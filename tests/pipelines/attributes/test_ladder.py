"""The ladder: its rungs, runs that are kept, and what is made of their numbers."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

from condvae.cvae import new_cvae
from condvae.ground.attributes import Attribute
from condvae.ground.configuration import ConfigurationError, read_config
from condvae.ground.images import DataContract
from condvae.priors import PRIORS
from condvae.training import TrainingConfig
from pipelines.attributes_ladder import nodes
from pipelines.attributes_ladder.tables import tabulate_contributions, tabulate_rungs
from pipelines.parameters import LadderConfig, Rung
from pipelines.parameters.overlay import override

BASE = yaml.safe_load(
    (Path(__file__).resolve().parents[3] / "conf/base/parameters/attributes.yml").read_text()
)


def read(**changes):
    return read_config(LadderConfig, override(BASE["ladder"], changes), "ladder")


def test_default_rungs_are_those_of_the_ladder():
    rungs = read().list_rungs(BASE["cvae"])
    labels = [rung.label for rung in rungs]
    single = ["fixed_variance", "no_flow", "standard"]
    both = ["gaussian", "mixture", "paper", "realnvp", "spline"]
    assert labels == [
        *(f"{name}/joint" for name in single),
        *(f"{name}/{stage}" for name in both for stage in ("joint", "two_stage")),
    ]
    found = {rung.label: rung.config for rung in rungs}
    assert not found["no_flow/joint"].encoder_sees_y
    assert found["standard/joint"].encoder_sees_y
    assert found["fixed_variance/joint"].likelihood == "fixed"
    assert found["realnvp/two_stage"].prior == "affine"
    assert found["spline/joint"].training == "joint"
    # Two-stage rungs train one VAE.
    two = [found[f"{name}/two_stage"].vae_facts for name in both]
    assert all(facts == two[0] for facts in two)
    assert {label for pair in read().contributions.values() for label in pair} <= set(labels)


def test_every_definition_can_be_built():
    everything = read(rungs=list(BASE["ladder"]["definitions"])).list_rungs(BASE["cvae"])
    kinds = {rung.config.prior for rung in everything}
    assert kinds == set(PRIORS)
    attributes, contract = (Attribute("odd", ("no", "yes")),), DataContract(1, 8, 0.0, 1.0)
    for rung in everything:
        model = new_cvae(rung.config, attributes, contract, 0)
        assert model.config.training == rung.stage


def test_every_rung_has_the_same_number_of_updates():
    config = read(steps=100, prior_steps=30)
    one, two = (Rung("spline", s, None) for s in ("joint", "two_stage"))
    stages = TrainingConfig(steps=1), TrainingConfig(steps=2)
    assert config.split_steps(one, *stages)[0].steps == 100
    assert [c.steps for c in config.split_steps(two, *stages)] == [70, 30]


def test_a_rung_may_say_how_it_is_trained():
    config = read(rungs=["own"], definitions={"own": {"prior": "spline", "training": "joint"}})
    (rung,) = config.list_rungs(BASE["cvae"])
    assert rung.label == "own/joint"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rungs": ["splines"]}, r"ladder\.rungs = 'splines': .* \(did you mean 'spline'\?\)"),
        ({"rungs": []}, r"ladder\.rungs = \[\]: expected at least one name"),
        ({"rungs": ["spline", "spline"]}, "expected at least one name, each once"),
        ({"seeds": 1}, r"ladder\.seeds = 1: a standard error needs at least 2"),
        ({"trainings": []}, r"trainings = \[\]: expected joint, two_stage or both"),
        ({"trainings": ["jointly"]}, r"trainings = 'jointly': expected one of"),
        ({"steps": 400}, r"ladder\.steps = 400: expected more than prior_steps = 400"),
        ({"contributions": {"a": ["spline/joint", "b/joint"]}}, "contributions.a: rung = 'b'"),
        ({"contributions": {"a": ["spline", "spline/joint"]}}, "contributions.a: training = ''"),
    ],
)
def test_impossible_ladders_are_refused(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        read(**changes)


def test_definitions_are_checked_by_name():
    config = read(rungs=["own"], definitions={"own": {"prior": "splin"}})
    with pytest.raises(ConfigurationError, match=r"ladder\.definitions\.own\.prior = 'splin'"):
        config.list_rungs(BASE["cvae"])
    config = read(rungs=["own"], definitions={"own": {"piror": "spline"}})
    with pytest.raises(
        ConfigurationError, match=r"unknown parameter ladder\.definitions\.own\.piror"
    ):
        config.list_rungs(BASE["cvae"])


@pytest.fixture(scope="module")
def done(run_nodes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ladder")
    return folder, run_nodes("attributes_ladder", folder)


def test_every_run_has_its_rows_and_its_file(done):
    folder, values = done
    results = values["ladder_results"]
    runs = set(zip(results["rung"], results["stage"], results["seed"], strict=True))
    labels = [("no_flow", "joint")]
    labels += [(name, s) for name in ("gaussian", "spline") for s in ("joint", "two_stage")]
    assert runs == {(*label, seed) for label in labels for seed in (0, 1)}
    files = {p.name for p in (folder / "06_models/attributes_ladder/results").iterdir()}
    assert files == {f"{'-'.join(label)}-{seed}.json" for label in labels for seed in (0, 1)}
    assert list(values["ladder_samples"]) == [" ".join(label) for label in labels]
    assert values["ladder_samples"]["spline joint"].shape == (2, 16, 16, 1)
    # One VAE per seed for both two-stage rungs, one of its own for each joint one.
    trained = {
        p.name.split("-")[0] for p in (folder / "06_models/attributes_ladder/training").iterdir()
    }
    counts = [
        p.name.split("-")[0] for p in (folder / "06_models/attributes_ladder/training").iterdir()
    ]
    assert trained == {"cvae", "prior"}
    assert counts.count("cvae") == 2 * 4
    assert counts.count("prior") == 2 * 2


def test_page_shows_rungs_and_contributions(done):
    folder, values = done
    files = values["ladder_files"]
    assert files["figures"] == ["ladder.png", "samples.png"]
    page = (folder / "08_reporting/attributes_ladder" / files["page"]).read_text()
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "gaussian/joint → gaussian/two_stage" in page
    assert "4 updates in all" in page
    assert "2 train the VAE and 2 the prior" in page
    assert "{" not in page.partition("<body>")[2]
    assert "bits per dimension ↓" in page
    assert "information used, nats<" in page
    # Rungs that were not run contribute nothing.
    assert "mixture" not in set(values["ladder_contributions"]["before"])
    assert "calibrated variance" not in set(values["ladder_contributions"]["contribution"])


def test_a_ladder_that_is_killed_goes_on_and_ends_the_same(done, run_nodes, tmp_path, monkeypatch):
    whole, trained = done[1], []

    def train(config, *arguments, **options):
        trained.append((config.prior, config.training, options["seed"]))
        if len(trained) == 3 and stop:
            raise KeyboardInterrupt
        return real(config, *arguments, **options)

    real, stop = nodes.train_cvae, True
    monkeypatch.setattr(nodes, "train_cvae", train)
    with pytest.raises(KeyboardInterrupt):
        run_nodes("attributes_ladder", tmp_path)
    stop = False
    again = run_nodes("attributes_ladder", tmp_path)
    assert trained[2] == trained[3]
    assert len(trained) == len(set(trained)) + 1
    pd.testing.assert_frame_equal(again["ladder_results"], whole["ladder_results"])
    trained.clear()
    run_nodes("attributes_ladder", tmp_path)
    assert trained == []


def make_results():
    """Two rungs, two seeds; log p is 1, 3 and 4, 8."""
    rows = [("a", 0, 1.0), ("a", 1, 3.0), ("b", 0, 4.0), ("b", 1, 8.0)]
    shared = {"metric": "log_prob_nats", "attribute": "all", "group": "all", "pixels": None}
    table = [{"rung": r, "stage": "joint", "seed": s, "value": v, **shared} for r, s, v in rows]
    other = {**table[0], "value": 77.0, "group": "seen"}
    return pd.DataFrame([*table, other])


def test_means_and_errors_are_over_seeds():
    table = tabulate_rungs(make_results())
    assert table.to_dict("list") == {
        "rung": ["a", "b"],
        "stage": ["joint", "joint"],
        "metric": ["log_prob_nats"] * 2,
        "value": [2.0, 6.0],
        # Half the difference of two values.
        "standard_error": pytest.approx([1.0, 2.0]),
        "n": [2, 2],
    }


def test_contributions_are_differences_seed_by_seed():
    pairs = {"more": ["a/joint", "b/joint"], "absent": ["a/joint", "c/joint"]}
    (row,) = tabulate_contributions(make_results(), pairs).to_dict("records")
    assert (row["contribution"], row["value"], row["n"]) == ("more", 4.0, 2)
    assert row["standard_error"] == pytest.approx(1.0)
    assert not math.isclose(row["standard_error"], math.hypot(1.0, 2.0))
    assert len(tabulate_contributions(make_results(), {})) == 0
