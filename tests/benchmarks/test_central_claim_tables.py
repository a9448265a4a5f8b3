"""Ratios of the central claim, from curves on which every answer is known."""

from __future__ import annotations

import csv
import json
import math
import runpy
from pathlib import Path

import pytest

PATH = Path(__file__).resolve().parents[2] / "benchmarks" / "central_claim_tables.py"
# Straight lines in the logarithm of the steps.
CURVES = {
    "published": [[32, 5.0], [64, 4.0], [128, 3.0], [256, 2.0]],
    "tuned_random": [[32, 5.0], [256, 2.25]],
    "ours": [[8, 3.0], [16, 2.0], [32, 1.0]],
    "joint": [[32, 6.0], [512, 2.5]],
}
RATIOS = {"published": 1.0, "tuned_random": 1.0, "ours": 2.0, "joint": 2.0}


def result(curve, rates):
    scores = {"bound": curve[-1][1], "bound_published_masks": 2.0, "frechet": 1.5}
    return {"curve": curve, "levelled": True, "rates": rates, **scores}


@pytest.fixture
def tables():
    return runpy.run_path(str(PATH))


@pytest.fixture
def summary(tables):
    rates = {"published": [[4.0, 6.0]] * 3, "ours": [[1.0, 6.5], [2.0, 6.5], [3.0, 6.5]]}
    return tables["summarise"](
        {
            name: [result(curve, rates.get(name, [[9.0, 9.0]] * 3))] * 2
            for name, curve in CURVES.items()
        },
        titles={name: name.upper() for name in CURVES},
        rates=dict.fromkeys(CURVES, 1e-3),
        costs={name: {"seconds": math.nan, "ratio": r} for name, r in RATIOS.items()}
        | {"published": {"seconds": 0.5, "ratio": 1.0}},
        resolutions=[1, 4],
        prior_bound=4.0,
        facts={
            **{"data": "toy", "vae": "a/toy", "device": "cpu", "torch": "2"},
            **{"manifest": "f" * 64, "extractor": "toy_f2", "seeds": 2},
        },
    )


def test_time_is_steps_times_seconds_of_a_step(summary):
    seconds = {name: arm["seconds"] for name, arm in summary["arms"].items()}
    assert seconds == {"published": 128.0, "tuned_random": 128.0, "ours": 32.0, "joint": 512.0}


def test_steps_and_time_to_the_bound_of_another_arm(summary):
    reach = summary["reach"]
    to_published = reach["published"]["ours"]
    assert to_published["share_of_steps"] == pytest.approx(16 / 256)
    assert to_published["share_of_time"] == pytest.approx(2 * 16 / 256)
    assert not to_published["at_most"]
    # Half way between two looks in the logarithm of the steps.
    to_joint = reach["joint"]["ours"]
    assert to_joint["steps"] == pytest.approx(8 * math.sqrt(2))
    assert to_joint["share_of_time"] == pytest.approx(8 * math.sqrt(2) / 512)
    assert reach["joint"]["published"]["share_of_time"] == pytest.approx(128 * 2**0.5 / 512 / 2)
    assert reach["published"]["published"]["share_of_steps"] == pytest.approx(1.0)
    assert "share_of_steps" not in reach["published"]["tuned_random"]
    assert reach["published"]["tuned_random"]["seeds"] == 0


def test_gain_of_each_group_is_over_the_same_images(summary):
    first, second, everything = summary["groups"]
    assert first["gains"]["ours"] == (pytest.approx(2.0), pytest.approx(1 / math.sqrt(3)))
    assert second["gains"]["ours"][0] == pytest.approx(-0.5)
    assert everything["published"][0] == pytest.approx(10.0)
    assert everything["gains"]["ours"][0] == pytest.approx(1.5)
    # From scratch there are other latents.
    assert "joint" not in first["gains"]


def test_aims_are_said_to_be_met_or_missed(tables, summary, tmp_path, capsys):
    tables["write_tables"](tmp_path, summary)
    lines = capsys.readouterr().out.splitlines()
    said = [line for line in lines if line.startswith("- `")]
    assert "- `ours` to the final bound of `published` in 1/8 of its steps: met, 1/16.0" in said
    assert "- `published` to the final bound of `joint` in 1/5 of its time: met, 1/5.7" in said
    assert any(line.startswith("- `tuned_random` to the final bound of `joint`") for line in said)
    assert (tmp_path / "tables.md").read_text().splitlines() == lines[1:-2]
    assert (tmp_path / "central_claim.png").read_bytes().startswith(b"\x89PNG")
    stored = json.loads((tmp_path / "summary.json").read_text())
    assert stored["reach"]["published"]["ours"]["seeds"] == 2
    with (tmp_path / "curves.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["arm"] == "ours"]
    assert [float(row["seconds"]) for row in rows] == [8.0, 16.0, 32.0] * 2
