"""Which files of an output are kept with the MLflow run, and where."""

from __future__ import annotations

import pytest

from condvae.model_card import README
from condvae.model_folder import CARD
from pipelines import tracking


@pytest.fixture
def kept(monkeypatch):
    """Log an output; returns the artifacts as (path, place)."""
    found = []

    class Client:
        def log_artifact(self, run_id, path, place):
            assert run_id == "a"
            found.append((path, place))

        log_artifacts = log_artifact

        def set_tag(self, *_):
            pass

    def log(name, value):
        found.clear()
        tracking.log_output(name, value)
        return list(found)

    monkeypatch.setattr(tracking, "_run_id", "a")
    monkeypatch.setattr(tracking.mlflow, "MlflowClient", Client)
    return log


def test_files_of_outputs_have_their_places(kept):
    report = {"folder": "r", "report": "report.html", "cards": "cards.json", "figures": ["a.png"]}
    found = kept("report_files", report)
    assert found[:3] == [(f"r/{n}", "report") for n in ("report.html", "cards.json", "a.png")]
    assert ("r/metrics.csv", "report") in found
    names = ("auroc.png", "auroc.json", "auroc.csv")
    assert kept("anomaly_files", {"folder": "s", "figures": ["auroc.png"]}) == [
        (f"s/{name}", "anomaly") for name in names
    ]
    page = {"folder": "c", "page": "index.html", "names": [f"p{i}" for i in range(20)]}
    found = kept("completion_page", page)
    assert found[:2] == [("c/index.html", "complete"), ("c/manifest.json", "complete")]
    # Of the first sixteen pictures only.
    assert found[2:] == [(f"c/p{i}/overview.png", f"complete/p{i}") for i in range(16)]


@pytest.mark.parametrize("recorded", [True, False])
def test_card_is_kept_where_something_was_recorded(kept, recorded):
    files = [(f"m/{name}", "posterior") for name in (CARD, README)] if recorded else []
    assert kept("model_card", {"folder": "m", "recorded": recorded}) == files


def test_posterior_that_was_looked_up_is_not_kept(kept):
    posterior = {"folder": "m", "sha256": "f"}
    assert kept("posterior", posterior) == []
    assert kept("posterior", {**posterior, "images_per_second": 1.0}) == [("m", "posterior")]
    assert kept("trained_vae", {"folder": "v", "sha256": "f"}) == [("v", "vae")]
    assert kept("something", {}) == []
