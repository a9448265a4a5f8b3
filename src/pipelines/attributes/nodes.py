"""Nodes that train a flat conditional VAE and say what it can do."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from condvae.cvae.config import CvaeConfig
from condvae.cvae.evaluation import evaluate
from condvae.cvae.folder import load_cvae, save_cvae
from condvae.cvae.generation import sample
from condvae.cvae.sample_scores import Row
from condvae.cvae.training import train_cvae
from condvae.data.attributes import gather_attributes, held_out
from condvae.data.store import open_images
from condvae.ground.configuration import read_config
from condvae.ground.devices import resolve_device
from condvae.ground.files import fingerprint
from condvae.ground.images import DataContract
from condvae.scores.attribute_classifier import (
    load_attribute_classifier,
    save_attribute_classifier,
    train_attribute_classifier,
)
from condvae.training import TrainingConfig
from pipelines.attributes.choices import choose_conditions, choose_hold_out
from pipelines.attributes.judging import BayesClassifier, score_single_values
from pipelines.attributes.tables import (
    AttributedImages,
    describe_attributes,
    tabulate_attributes,
)
from pipelines.parameters import AttributesConfig
from pipelines.runs import tracking

__all__ = [
    "StageMetrics",
    "evaluate_flat_vae",
    "gather_image_attributes",
    "metric_names",
    "open_attributed",
    "train_flat_vae",
    "train_judge",
]

log = logging.getLogger(__name__)


def gather_image_attributes(
    image_store: dict[str, Any], attributes: dict[str, Any]
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Put together what is known of every image, and which images training is not to see."""
    config = read_config(AttributesConfig, attributes, "attributes")
    images = open_images(Path(image_store["folder"]))
    csv = None if config.csv is None else Path(config.csv)
    wanted = config.conditions or choose_conditions(images, csv=csv is not None)
    table = gather_attributes(images, wanted, csv)
    combinations = config.hold_out
    if combinations is None:
        combinations = tuple(choose_hold_out(table, images.indices("train")))
    held = held_out(table, combinations)
    facts = describe_attributes(images, table, held, combinations)
    log.info(
        "attributes %s; %s",
        ", ".join(table.names),
        ", ".join(
            f"{facts['held_out'][s]} of {n} {s} images held out" for s, n in facts["images"].items()
        ),
    )
    return tabulate_attributes(images, table, held), facts


def open_attributed(
    image_store: Mapping[str, Any],
    attribute_table: pd.DataFrame,
    attribute_facts: Mapping[str, Any],
) -> AttributedImages:
    """Open images with their attributes."""
    images = open_images(Path(image_store["folder"]))
    return AttributedImages.read(images, attribute_table, attribute_facts)


def train_judge(
    image_store: dict[str, Any],
    attribute_table: pd.DataFrame,
    attribute_facts: dict[str, Any],
    attributes: dict[str, Any],
    folders: dict[str, str],
    device: str,
) -> dict[str, Any]:
    """Train the attribute classifier once per table and settings; describe it.

    It is trained on all real training images, also of held-out combinations: it is the judge, and has
    to know them.
    """
    settings = read_config(AttributesConfig, attributes, "attributes")
    config, seed = settings.classifier, settings.evaluation.seed
    known = open_attributed(image_store, attribute_table, attribute_facts)
    images = known.training_images()
    identity = {"config": dataclasses.asdict(config), "seed": seed, **images.identity()}
    folder = Path(folders["features"]) / f"attribute_classifier-{fingerprint(identity)[:12]}"
    if not (folder / "card.json").is_file():
        training, test = known.rows("train"), known.rows("test")
        with tracking.progress_bar("attribute classifier", config.epochs, unit="epoch") as bar:
            network, card = train_attribute_classifier(
                known.pixels(training),
                known.table.rows(training),
                known.table.attributes,
                name=image_store["name"],
                features=config.features,
                epochs=config.epochs,
                seed=seed,
                device=resolve_device(device),
                held_out=(known.pixels(test), known.table.rows(test)),
                progress=lambda *_: bar.update(),
            )
        save_attribute_classifier(folder, network, card)
    _, card = load_attribute_classifier(folder)
    tracking.log_metrics(
        {f"attributes/ceiling/{_clean(name)}": value for name, value in card.ceiling.items()}
    )
    return {
        "folder": str(folder),
        "name": card.extractor,
        "sha256": card.sha256,
        "ceiling": card.ceiling,
    }


def train_flat_vae(
    image_store: dict[str, Any],
    attribute_table: pd.DataFrame,
    attribute_facts: dict[str, Any],
    cvae: dict[str, Any],
    cvae_training: dict[str, Any],
    prior_training: dict[str, Any],
    folders: dict[str, str],
    device: str,
    seed: int,
) -> tuple[dict[str, Any], dict[str, list[dict[str, float]]]]:
    """Train (or go on training) the model; return its description and each stage's history."""
    known = open_attributed(image_store, attribute_table, attribute_facts)
    run = train_cvae(
        read_config(CvaeConfig, cvae, "cvae"),
        contract_of(image_store),
        known.training_images(),
        read_config(TrainingConfig, cvae_training, "cvae_training"),
        read_config(TrainingConfig, prior_training, "prior_training"),
        Path(folders["attributes"]) / "training",
        seed=seed,
        device=resolve_device(device),
        callbacks=(tracking.ProgressBar(), StageMetrics()),
    )
    folder = Path(folders["attributes"]) / "model"
    facts = {
        "name": image_store["name"],
        "weights_source": {"command": tracking.command(), "run": run.fingerprint},
        "data": {key: attribute_facts[key] for key in ("data", "images", "held_out")},
        "hold_out": attribute_facts["hold_out"],
    }
    card = save_cvae(folder, run.model, facts)
    description = {
        "folder": str(folder),
        "name": image_store["name"],
        "sha256": card["sha256"],
        "run": run.fingerprint,
        "parameters": card["parameters"],
    }
    return description, {name: stage.history for name, stage in run.stages.items()}


def contract_of(image_store: Mapping[str, Any]) -> DataContract:
    """Images as the model takes them, normalised by the moments of the training images."""
    shape = image_store["channels"], image_store["image_size"]
    return DataContract(*shape, image_store["training_mean"], image_store["training_std"])


class StageMetrics(tracking.MlflowMetrics):
    """Streams the metrics of each stage under its name: stages count their steps from 1."""

    def on_start(self, name: str, step: int, steps: int, batch_size: int) -> None:
        """Remember the stage."""
        super().on_start(name, step, steps, batch_size)
        self._stage = name

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log under ``<stage>/``."""
        super().on_metrics(step, {f"{self._stage}/{k}": v for k, v in metrics.items()})


def evaluate_flat_vae(
    image_store: dict[str, Any],
    attribute_table: pd.DataFrame,
    attribute_facts: dict[str, Any],
    attribute_classifier: dict[str, Any],
    flat_vae: dict[str, Any],
    attributes: dict[str, Any],
    device: str,
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Judge the model on the test images; return the tidy table twice, and p(value | x)."""
    settings = read_config(AttributesConfig, attributes, "attributes").evaluation
    known = open_attributed(image_store, attribute_table, attribute_facts)
    model, card = load_cvae(flat_vae["folder"], resolve_device(device))
    network, judge = load_attribute_classifier(
        attribute_classifier["folder"], resolve_device(device)
    )
    rows = known.rows("test")
    y = known.table.rows(rows)
    training_y = known.table.rows(known.training_images().training_rows)
    bayes = BayesClassifier(model.attributes, training_y, settings.batch_size)
    held = known.held_out[rows]
    found = evaluate(
        model,
        known.pixels(rows).to(model.device),
        y.to(model.device),
        network,
        extractor=judge.extractor,
        sample=sample,
        classify=bayes,
        held_out=held if held.any() else None,
        settings=settings,
    )
    found += score_single_values(model, network, known.pixels(rows), y, judge.extractor, settings)
    table = pd.DataFrame.from_records(found).assign(
        seed=settings.seed, model=card["sha256"], classifier=judge.sha256
    )
    tracking.log_metrics(metric_names(found))
    probabilities = {"labels": y.numpy(), **bayes.found}
    return table, table, probabilities


def metric_names(rows: Sequence[Row]) -> dict[str, float]:
    """``attributes/<group>/<metric>/<attribute>/<pixels>`` of finite values, as MLflow takes names."""
    names = {}
    for row in rows:
        parts = [row["group"], row["metric"], row["attribute"], row["pixels"] or "none"]
        if row["value"] is not None and np.isfinite(row["value"]):
            names[_clean("/".join(["attributes", *parts]))] = float(row["value"])
    return names


def _clean(name: str) -> str:
    """Other characters are not allowed in MLflow's names."""
    return re.sub(r"[^\w\-./ ]", "_", name)
