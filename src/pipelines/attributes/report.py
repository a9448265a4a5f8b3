"""The report of `attributes`: numbers, pictures of every use, and where they come from."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from condvae.cvae.evaluation import EvaluationSettings
from condvae.cvae.folder import load_cvae
from condvae.ground.configuration import read_config
from condvae.ground.devices import resolve_device
from condvae.ground.files import open_atomic
from condvae.plots import png_bytes
from condvae.scores.attribute_definitions import ATTRIBUTE_METRICS
from pipelines.attributes.judging import ALONE
from pipelines.attributes.nodes import open_attributed
from pipelines.attributes.pictures import Picture, draw_bayes, draw_training, draw_uses
from pipelines.pages.sections import PAGE, Section, Shown, Table, render_sections
from pipelines.parameters import AttributesConfig
from pipelines.runs import tracking

__all__ = ["format_score", "tabulate_definitions", "write_attribute_report", "write_files"]

log = logging.getLogger(__name__)

GROUPS = {"all": "all test images", "seen": "combinations trained on", "held_out": "held out"}
_LEAD = (
    "A flat conditional VAE p(x | y): attributes in, images out. Samples are judged by a network that "
    "reads attributes off images; what it makes of real test images is the ceiling of its scores."
)
_HEADLINE = (
    "Accuracy is the mean over attributes of the share of samples that show the value they were asked "
    "for. A row of the table is asked of every test image's own attributes; held out are "
    "combinations that training did not see."
)
_LIKELIHOOD = (
    "log p(x | y) of test images by importance weighting, of 8-bit images, a lower bound in "
    "expectation. Information used: how much falls when every image is given another one's "
    "attributes; 0 means that y is ignored."
)
_QUALITY = (
    "Fréchet distances are between the judge's features of as many samples as real images; compare "
    "them with that between two halves of the real images, which has twice the bias. Diversity: "
    "distance between samples of one condition, relative to that of real images with the same "
    "attributes; 1 is as different as real ones."
)
_BAYES = (
    "p(value | x) from log p(x | y) for every value, nothing else of y being known. The "
    "calibration error is never 0: beside it stands its mean for exact probabilities."
)
_DEFINITIONS = (
    "metrics.csv and metrics.json have them by attribute, group of images and pixels of the decoder, "
    "with standard error, n and the name of the judge (extractor)."
)


def write_attribute_report(
    image_store: dict[str, Any],
    attribute_table: pd.DataFrame,
    attribute_facts: dict[str, Any],
    flat_vae: dict[str, Any],
    flat_vae_history: dict[str, list[dict[str, float]]],
    attribute_metrics: pd.DataFrame,
    attribute_probabilities: dict[str, NDArray[Any]],
    attributes: dict[str, Any],
    folders: dict[str, str],
    device: str,
) -> dict[str, Any]:
    """Draw every use of the model and write the page; return what was written."""
    settings = read_config(AttributesConfig, attributes, "attributes")
    known = open_attributed(image_store, attribute_table, attribute_facts)
    model, card = load_cvae(flat_vae["folder"], resolve_device(device))
    seed = settings.evaluation.seed
    uses = draw_uses(model, known, attribute_facts["hold_out"], shown=settings.shown, seed=seed)
    bayes = draw_bayes(model.attributes, attribute_probabilities, seed)
    training = draw_training(flat_vae_history)
    scores = _list_scores(attribute_metrics)
    names = [attribute.name for attribute in model.attributes]
    found = [str(metric) for metric in attribute_metrics["metric"]]
    parts = [
        ("Does it show what it is asked for?", _HEADLINE, [_attribute_table(scores, names)], uses),
        ("Likelihood", _LIKELIHOOD, [_likelihood_table(scores)], []),
        ("Like real images?", _QUALITY, [_quality_table(scores)], []),
        ("The model as a classifier", _BAYES, [_bayes_table(scores, names)], bayes),
        ("Training", "", [], training),
        ("What the numbers are", _DEFINITIONS, [tabulate_definitions(found)], []),
    ]
    facts = _list_facts(image_store, attribute_facts, card, settings.evaluation)
    title = f"Attributes to images: {image_store['name']}"
    return write_files(Path(folders["attributes_reporting"]), title, _LEAD, parts, facts)


def _list_facts(
    image_store: Mapping[str, Any],
    attribute_facts: Mapping[str, Any],
    card: Mapping[str, Any],
    evaluation: EvaluationSettings,
) -> dict[str, Any]:
    """Data, model and settings, for the end of the page."""
    return {
        "data": f"{image_store['name']}, {attribute_facts['images']['train']} training images, of "
        f"which {attribute_facts['held_out']['train']} held out",
        "held-out combinations": "; ".join(
            ", ".join(f"{k} = {v}" for k, v in c.items()) for c in attribute_facts["hold_out"]
        )
        or "none",
        **{f"model: {name}": str(value) for name, value in card["model"].items()},
        "parameters": f"{card['parameters']:,}",
        "model sha256": card["sha256"],
        "draws of each log p(x | y)": str(evaluation.draws),
        "samples of each condition": str(evaluation.samples),
        "temperature": f"{evaluation.temperature:g}",
        "guidance": f"{evaluation.guidance:g}",
        **tracking.git_state(),
    }


def write_files(
    folder: Path,
    title: str,
    lead: str,
    parts: Sequence[tuple[str, str, Sequence[Table], Sequence[Picture]]],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Write figures and a page.

    Args:
        folder: Where to.
        title: Of the page.
        lead: Of the page.
        parts: Heading, text, tables and pictures of each section.
        facts: For the end of the page.

    Returns:
        `folder`, `page` and the list `figures`, names in the folder.
    """
    sections, figures = [], []
    for heading, text, tables, pictures in parts:
        shown = [Shown(p.name, p.title, p.caption, png_bytes(p.figure)) for p in pictures]
        sections.append(Section(heading, text, tables, shown))
        figures += shown
    page = render_sections(title, lead, tracking.command(), sections, facts)
    files = {figure.name: figure.content for figure in figures} | {PAGE: page.encode()}
    for name, content in files.items():
        with open_atomic(folder / name) as file:
            file.write(content)
    log.info("report: %s", folder / PAGE)
    return {"folder": folder.as_posix(), "page": PAGE, "figures": [f.name for f in figures]}


def tabulate_definitions(metrics: Sequence[str]) -> Table:
    """What metrics are: those of `metrics` that `ATTRIBUTE_METRICS` has, in its order."""
    rows = [
        [definition.title, name, definition.unit, definition.direction, definition.definition]
        for name, definition in ATTRIBUTE_METRICS.items()
        if name in metrics
    ]
    return Table("All metrics", ["", "name", "unit", "direction", "definition"], rows)


_Scores = dict[tuple[str, ...], tuple[float, float]]


def _list_scores(metrics: pd.DataFrame) -> _Scores:
    """(metric, attribute, group, pixels) -> value and standard error."""
    keys = zip(*(metrics[k] for k in ("metric", "attribute", "group")), strict=True)
    numbers = metrics[["value", "standard_error"]].to_numpy(np.float64)
    return {
        (*map(str, key), _text(pixels)): (float(value), float(error))
        for key, pixels, (value, error) in zip(keys, metrics["pixels"], numbers, strict=True)
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def format_score(found: tuple[float, float] | None, *, share: bool = False) -> str:
    """``0.912 ± 0.004``, or in per cent; – where there is none."""
    if found is None or not np.isfinite(found[0]):
        return "–"
    scale, unit = (100.0, " %") if share else (1.0, "")
    value, error = (scale * number for number in found)
    digits = 1 if share or abs(value) >= 100 else 3
    spread = f" ± {error:.{digits}f}" if np.isfinite(error) else ""
    return f"{value:.{digits}f}{spread}{unit}"


def _kinds(scores: _Scores) -> list[str]:
    """Which pixels of the decoder were judged."""
    return list(dict.fromkeys(k[3] for k in scores if k[3] not in ("", "real")))


def _groups(scores: _Scores) -> list[str]:
    return [group for group in GROUPS if any(key[2] == group for key in scores)]


def _attribute_table(scores: _Scores, names: Sequence[str]) -> Table:
    kinds, rows = _kinds(scores), []
    wanted = [("accuracy", "all", "mean over attributes"), ("exact_match", "all", "all at once")]
    wanted += [("accuracy", name, name) for name in names]
    wanted += [("correlation", name, f"{name}, correlation") for name in names]
    for group in _groups(scores):
        for metric, name, words in wanted:
            real = scores.get((f"attribute_{metric}", name, group, "real"))
            if real is None:
                continue
            share = metric != "correlation"
            cells = [f"{words}, {GROUPS[group]}", format_score(real, share=share)]
            for kind in kinds:
                own, ratio = (
                    scores.get((f"attribute_{metric}{of}", name, group, kind))
                    for of in ("", "_of_ceiling")
                )
                cells += [format_score(own, share=share), format_score(ratio, share=True)]
            rows.append(cells)
    for name in names:
        accuracies = [
            scores.get((f"attribute_accuracy{of}", name, ALONE, "mean"))
            for of in ("", "_of_ceiling")
        ]
        if accuracies[0] is not None:
            real = scores.get(("attribute_accuracy", name, "all", "real"))
            cells = [f"{name}, one value alone", format_score(real, share=True)]
            # Decoder means only.
            for kind in kinds:
                shown = accuracies if kind == "mean" else [None, None]
                cells += [format_score(score, share=True) for score in shown]
            rows.append(cells)
    headings = ["", "real images"]
    for kind in kinds:
        headings += [f"{_KINDS[kind]}", f"{_KINDS[kind]}, of the ceiling"]
    return Table("Read by the judge, ± one standard error", headings, rows)


_KINDS = {"mean": "decoder means", "sample": "samples of pixels"}


def _likelihood_table(scores: _Scores) -> Table:
    metrics = {
        "log_prob_nats": "log p(x | y), nats",
        "bits_per_dim": "bits per dimension",
        "information_used_nats": "information used, nats",
    }
    rows = [
        [GROUPS[group], *(format_score(scores.get((m, "all", group, ""))) for m in metrics)]
        for group in _groups(scores)
    ]
    return Table("± one standard error over images", ["", *metrics.values()], rows)


def _quality_table(scores: _Scores) -> Table:
    rows = [
        [
            "two halves of the real images",
            format_score(scores.get(("frechet_distance_of_halves", "all", "all", "real"))),
            "1",
            "1",
        ]
    ]
    rows += [
        [
            _KINDS[kind],
            *(
                format_score(scores.get((metric, "all", "all", kind)))
                for metric in ("frechet_distance", "diversity_features", "diversity_pixels")
            ),
        ]
        for kind in _kinds(scores)
    ]
    headings = ["", "Fréchet distance", "diversity, features", "diversity, pixels"]
    return Table("± one standard error; by value of each attribute in metrics.csv", headings, rows)


def _bayes_table(scores: _Scores, names: Sequence[str]) -> Table:
    metrics = {
        "bayes_accuracy": "accuracy",
        "bayes_nll_nats": "−log p, nats",
        "bayes_coverage_90": "90 % sets hold the truth",
        "bayes_calibration_error": "calibration error",
        "bayes_calibration_error_exact": "if exact",
        "bayes_calibration_p_value": "p-value",
    }
    rows = [
        [name, *(format_score(scores.get((m, name, "all", ""))) for m in metrics)]
        for name in names
        if ("bayes_accuracy", name, "all", "") in scores
    ]
    return Table("± one standard error over images", ["", *metrics.values()], rows)
