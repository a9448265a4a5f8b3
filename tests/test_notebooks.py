"""Notebooks run from top to bottom, and hold the outputs of the cells they have."""

from __future__ import annotations

import base64
import json
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def run():
    return runpy.run_path(str(FOLDER / "run.py"))


def cells(*sources):
    return {
        "cells": [
            {"cell_type": "code", "id": f"cell_{i}", "source": [source]}
            for i, source in enumerate(sources)
        ]
    }


def test_cells_share_names_and_show_their_last_value(run):
    picture = "class P:\n    def _repr_png_(self):\n        return b'abc'\nP()"
    notebook = cells("a = 2", "print('hello')\na + 1", "a", "b = a", picture)
    notebook["cells"].insert(1, {"cell_type": "markdown", "id": "text", "source": ["1 +"]})
    outputs = [found for _, found in run["run_cells"](notebook)]
    assert outputs[0] == []
    assert outputs[1][0] == {"output_type": "stream", "name": "stdout", "text": ["hello\n"]}
    assert outputs[1][1]["data"] == {"text/plain": ["3"]}
    assert outputs[2][0]["data"] == {"text/plain": ["2"]}
    assert outputs[3] == []
    assert outputs[4][0]["data"]["image/png"] == base64.b64encode(b"abc").decode()
    assert run["picture_of"](outputs[4]) == b"abc"
    assert run["picture_of"](outputs[1]) is None


def test_a_failing_cell_is_named(run):
    with pytest.raises(ZeroDivisionError) as caught:
        list(run["run_cells"](cells("a = 0", "1 / a")))
    assert "in cell 'cell_1':\n1 / a" in caught.value.__notes__


@pytest.mark.slow
@pytest.mark.usefixtures("no_log_lines")
def test_gallery_runs_from_top_to_bottom(run, monkeypatch):
    monkeypatch.setenv("CONDVAE_GALLERY_STEPS", "2")
    stored = json.loads((FOLDER / "gallery.ipynb").read_text())
    for cell, outputs in run["run_cells"](stored):
        # What is kept in the file is of the same kinds as what the cell gives now.
        assert [kind(output) for output in cell["outputs"]] == [kind(o) for o in outputs]
        picture = run["picture_of"](outputs)
        assert picture is None or picture.startswith(PNG)


def kind(output):
    return output["output_type"], sorted(output.get("data", {}))


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_stored_outputs_are_whole_and_small(path):
    assert path.stat().st_size < 1_500_000
    code = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert not [c["id"] for c in code for o in c["outputs"] if o["output_type"] == "error"]


def test_gallery_shows_every_task(run):
    from condvae.tasks import TASKS

    stored = json.loads((FOLDER / "gallery.ipynb").read_text())
    pictures = {c["id"] for c in stored["cells"] if run["picture_of"](c.get("outputs", []))}
    assert {n for n, task in TASKS.items() if task.__module__.startswith("condvae.")} <= pictures
    assert {"custom_downsampling", "your_own", "anomaly", "maps"} <= pictures
    assert {"temperature", "kept_groups", "interpolation", "guidance"} <= pictures
