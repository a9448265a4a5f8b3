"""The page of a re-evaluation: verdict, reasons, scores then and now, new pictures."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from condvae.evaluation.bins import POOLED
from condvae.ground.configuration import ConfigurationError
from condvae.ground.files import open_atomic
from condvae.ground.pictures import read_picture
from condvae.plots import plot_differences, plot_rank_histograms, png_bytes
from condvae.scores.definitions import METRICS
from pipelines.pages.rendering import data_address, render
from pipelines.reevaluation.found import REGISTERED, Found

__all__ = ["PAGE", "write_page"]

PAGE = "index.html"
_SIDE = 128  # pixels of a picture on the page
_REGISTRATION = "registration"

log = logging.getLogger(__name__)


def write_page(
    reevaluation_verdict: Found,
    reevaluation_inputs: Found,
    reevaluation_scores: Found,
    reevaluation_arrivals: Found,
    reevaluation_drift: Found,
    reevaluate: dict[str, Any],
) -> dict[str, Any]:
    """Write page and figures, over those of the run before; return their folder and names."""
    folder = Path(reevaluate["folder"])
    figures = _draw(reevaluation_scores)
    for name, content in figures.items():
        with open_atomic(folder / name) as file:
            file.write(content)
    for name in {"differences.png", "calibration.png"} - set(figures):
        (folder / name).unlink(missing_ok=True)
    page = _render(
        reevaluation_verdict,
        reevaluation_inputs,
        reevaluation_scores,
        reevaluation_arrivals,
        reevaluation_drift,
        figures,
    )
    with open_atomic(folder / PAGE) as file:
        file.write(page.encode())
    log.info("re-evaluation: %s", folder / PAGE)
    return {"folder": folder.as_posix(), "files": [PAGE, *figures]}


def _draw(scores: Found) -> dict[str, bytes]:
    """Figures by file name; none for a champion that could not be scored."""
    figures = {}
    rows = [
        {
            **change,
            "bin": POOLED,
            "sampler_a": comparison["sampler"],
            "sampler_b": _REGISTRATION,
        }
        for comparison in scores["comparisons"]
        for change in comparison["scores"]
    ]
    if rows:
        title = "Scores now less those at registration"
        figures["differences.png"] = png_bytes(plot_differences(rows, title=title))
    if scores["calibration"]:
        title = "Ranks of the truth among the completions of the registered model, now"
        figure = plot_rank_histograms(scores["calibration"]["tests"], title=title)
        figures["calibration.png"] = png_bytes(figure)
    return figures


def _render(
    verdict: Found,
    inputs: Found,
    scores: Found,
    arrivals: Found,
    drift: Found,
    figures: Mapping[str, bytes],
) -> str:
    """Return the page as HTML that refers to no other file and runs no script."""
    unusual = drift["drift"]["most_unusual"] if drift["drift"] else []
    return render(
        "reevaluation",
        verdict=verdict,
        words=_WORDS[verdict["verdict"]],
        comparisons=scores["comparisons"],
        titles={name: definition.title for name, definition in METRICS.items()},
        metrics=[
            {**row, "title": METRICS[row["metric"]].title, "unit": METRICS[row["metric"]].unit}
            for row in scores["metrics"]
            if row["bin"] == POOLED and row["sampler"] == REGISTERED
        ],
        arrivals=arrivals,
        drift=drift["drift"],
        new_scores=drift["scores"],
        unusual=[
            {**picture, "image": _thumbnail(Path(inputs["new_data"]) / picture["file"])}
            for picture in unusual
        ],
        figures={name: data_address(content) for name, content in figures.items()},
        facts=_list_facts(verdict),
    )


_WORDS = {
    "ok": "The champion is what it was, and nothing that has arrived says otherwise.",
    "degraded": "The model does worse than when it was registered.",
    "drifted": "The pictures that have arrived are not like those the model is known to work on.",
    "invalid": "There is nothing to judge by: something is not what the registry says it is.",
}


def _list_facts(verdict: Found) -> list[tuple[str, str]]:
    champion, manifest, data = verdict["champion"], verdict["manifest"], verdict["data"]
    return [
        ("champion", f"{champion['name']} version {champion['version']}"),
        ("champion because", champion["reason"] or "not said"),
        ("weights, sha256", champion["sha256"]),
        ("frozen cases", f"{manifest['cases']}, sha256 {manifest['sha256']}" if manifest else "–"),
        ("data", f"{data['name']}, {data['count']} images, fingerprint {data['fingerprint']}"),
        ("new data", verdict["new_data"] or "none configured"),
        (
            "environment",
            ", ".join(f"{name} {value}" for name, value in verdict["environment"].items()),
        ),
        ("judged", verdict["date"]),
        ("of these inputs", verdict["key"]),
    ]


def _thumbnail(path: Path) -> str | None:
    """A picture, enlarged or shrunk to the page; None where it is gone."""
    try:
        picture = Image.fromarray(np.asarray(read_picture(path)))
    except ConfigurationError:
        return None
    scale = _SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    buffer = io.BytesIO()
    picture.resize(size, how).save(buffer, "PNG")
    return data_address(buffer.getvalue())
