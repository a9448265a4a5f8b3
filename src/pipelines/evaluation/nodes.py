"""Nodes of the evaluation: cases, features, samplers, scores."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from condvae import evaluation as ev
from condvae.configuration import ConfigurationError, read_config
from condvae.data.store import open_images
from condvae.files import fingerprint
from condvae.images import to_nchw
from condvae.metrics.cases import build_cases, read_cases, write_cases
from condvae.metrics.feature_network import (
    load_feature_network,
    save_feature_network,
    train_feature_network,
)
from condvae.model_folder import load_posterior, read_card
from condvae.pretrained import resolve_posterior
from condvae.tasks.mask_sampling import MaskConfig
from condvae.training.acceleration import resolve_device
from pipelines import tracking
from pipelines.parameters import (
    EvaluationConfig,
    ManifestConfig,
    SamplingConfig,
    WeightsConfig,
)
from pipelines.provenance import warn_of_seen_images

log = logging.getLogger(__name__)

EXAMPLES_PER_BIN = 2
BUNDLED_POSTERIOR = "digits_inpainting"


def find_posterior(
    weights: dict[str, Any], folders: dict[str, str]
) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """Return a stored posterior and its training history: as told, else the last, else bundled."""
    config = read_config(WeightsConfig, weights, "weights")
    last = Path(folders["inpaint"]) / "posterior"
    name = config.posterior or (str(last) if (last / "card.json").is_file() else BUNDLED_POSTERIOR)
    folder = resolve_posterior(
        name, config.preset, config.cache, folder=Path(folders["inpaint"]) / "official"
    )
    card = read_card(folder, "posterior")
    log.info("taking the posterior %s, sha256 %s", name, card["sha256"])
    description = {
        "folder": str(folder),
        "sha256": card["sha256"],
        "task": card["task"],
        "vae": card.get("vae"),
    }
    run = (card.get("weights_source") or {}).get("run", "")
    metrics = last.parent / "training" / run[:12] / "metrics.jsonl"
    lines = metrics.read_text().splitlines() if metrics.is_file() else []
    return description, [json.loads(line) for line in lines]


def build_manifest(
    image_store: dict[str, Any],
    evaluation: dict[str, Any],
    masks: dict[str, Any],
    folders: dict[str, str],
    *,
    size: str,
) -> dict[str, Any]:
    """Choose test images and masks, write them as a hashed manifest, describe it."""
    settings = read_config(EvaluationConfig, evaluation, "evaluation")
    config: ManifestConfig = getattr(settings, size)
    images = open_images(Path(image_store["folder"]))
    rows = images.indices("test")
    cases = build_cases(
        rows.tolist(),
        [images.records[row].sha256 for row in rows],
        image_store["image_size"],
        read_config(MaskConfig, masks, "masks"),
        per_bin=config.cases_per_bin,
        seed=settings.seed,
        prefix=size,
    )
    path = Path(folders["evaluation"]) / f"cases_{size}.jsonl"
    return {
        "path": str(path),
        "sha256": write_cases(path, cases),
        "cases": len(cases),
        "completions": config.completions,
    }


def train_features(
    image_store: dict[str, Any],
    evaluation: dict[str, Any],
    folders: dict[str, str],
    device: str,
) -> dict[str, Any]:
    """Train the feature network once per data set and settings; describe it."""
    settings = read_config(EvaluationConfig, evaluation, "evaluation")
    config, seed = settings.feature_network, settings.seed
    identity = {"config": asdict(config), "data": image_store["fingerprint"], "seed": seed}
    folder = Path(folders["features"]) / f"feature_network-{fingerprint(identity)[:12]}"
    if not (folder / "card.json").is_file():
        images = open_images(Path(image_store["folder"]))
        train, test = images.indices("train"), images.indices("test")
        labels = None if images.labels is None else torch.from_numpy(images.labels)
        bar = tracking.progress_bar("feature network", config.epochs, unit="epoch")
        network, card = train_feature_network(
            to_nchw(torch.from_numpy(images.pixels[train])),
            None if labels is None else labels[train],
            name=image_store["name"],
            features=config.features,
            epochs=config.epochs,
            seed=seed,
            device=resolve_device(device),
            held_out=(
                to_nchw(torch.from_numpy(images.pixels[test])),
                None if labels is None else labels[test],
            ),
            progress=lambda *_: bar.update(),
        )
        bar.close()
        save_feature_network(folder, network, card)
    _, card = load_feature_network(folder)
    facts = asdict(card)
    tracking.log_metrics({f"features/accuracy/{card.extractor}": card.accuracy or 0.0})
    return {"folder": str(folder), "name": card.extractor, **facts}


def evaluate_samplers(
    image_store: dict[str, Any],
    posterior: dict[str, Any],
    evaluation_manifest: dict[str, Any],
    feature_network: dict[str, Any],
    sampling: dict[str, Any],
    evaluation: dict[str, Any],
    device: str,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame, dict[str, Any], dict[str, Any]]:
    """Score every sampler on the manifest; return tables, example pictures and facts."""
    config = read_config(EvaluationConfig, evaluation, "evaluation")
    seed = config.seed
    how = read_config(SamplingConfig, sampling, "sampling")
    images = open_images(Path(image_store["folder"]))
    cases = read_cases(evaluation_manifest["path"], evaluation_manifest["sha256"])
    rows = np.array([case.image_id for case in cases])
    for case in cases:
        if images.records[case.image_id].sha256 != case.image_sha256:
            raise ConfigurationError(
                f"{evaluation_manifest['path']}: case {case.case_id} was made for another image set"
            )
    truths = to_nchw(torch.from_numpy(images.pixels[rows]))
    network, card = load_feature_network(feature_network["folder"], resolve_device(device))
    labels = (
        images.labels[rows] if images.labels is not None and card.task == "classifier" else None
    )
    trained = load_posterior(posterior["folder"], resolve_device(device))
    warn_of_seen_images(f"posterior {posterior['folder']}", trained.card, image_store)
    keep = [
        i
        for b in range(5)
        for i in [n for n, case in enumerate(cases) if case.bin == b][:EXAMPLES_PER_BIN]
    ]
    scores, pictures, seconds = {}, {}, {}
    for name in config.samplers:
        bar = tracking.progress_bar(f"evaluating {name}", len(cases), unit="case")
        started = time.perf_counter()
        scores[name], pictures[name] = ev.score_sampler(
            ev.make_sampler(name, trained, seed),
            cases,
            truths,
            labels,
            network,
            completions=evaluation_manifest["completions"],
            temperature=how.temperature,
            seed=seed,
            batch_size=how.batch_size,
            keep=keep,
            paste_observed=how.paste_observed or name == "prior",
            progress=bar.update,
        )
        seconds[name] = time.perf_counter() - started
        bar.close()
    facts = {
        "k": evaluation_manifest["completions"],
        "temperature": how.temperature,
        "extractor": card.extractor,
        "seed": seed,
        "manifest": evaluation_manifest["sha256"],
    }
    metrics = pd.DataFrame.from_records(ev.tabulate(scores, cases, facts))
    comparisons = pd.DataFrame.from_records(
        ev.compare(scores, cases, level=config.level, seed=seed)
    )
    names = image_store["class_names"]
    shown = [cases[i] for i in keep]
    examples: dict[str, Any] = {
        "case_ids": np.array([case.case_id for case in shown]),
        "bins": np.array([case.bin for case in shown]),
        "labels": np.array(["" if labels is None else names[labels[i]] for i in keep]),
        "masks": np.stack([case.mask for case in shown]),
        "truths": images.pixels[rows[keep]],
    }
    for name, picture in pictures.items():
        examples[f"completions/{name}"] = picture.completions
        examples[f"mean/{name}"] = picture.mean
        examples[f"standard_deviation/{name}"] = picture.standard_deviation
    table = pd.DataFrame(ev.list_case_scores(scores, cases))
    return metrics, metrics, comparisons, table, examples, {**facts, "seconds": seconds}


def collect_facts(
    image_store: dict[str, Any],
    posterior: dict[str, Any],
    feature_network: dict[str, Any],
    evaluation_facts: dict[str, Any],
    device: str,
) -> dict[str, Any]:
    """Gather what the report says about the run."""
    card = read_card(posterior["folder"])
    resolved = resolve_device(device)
    return {
        "task": posterior["task"],
        "command": tracking.command(),
        **tracking.git_state(),
        "device": torch.cuda.get_device_name(resolved) if resolved.type == "cuda" else "cpu",
        "seed": evaluation_facts["seed"],
        "temperature": evaluation_facts["temperature"],
        "completions_per_case": evaluation_facts["k"],
        "manifest": evaluation_facts["manifest"],
        "classifier_accuracy": feature_network["accuracy"]
        if feature_network["task"] == "classifier"
        else None,
        "loss_unit": "nats per dimension",
        "data": {
            name: image_store[name]
            for name in ("name", "count", "channels", "image_size", "fingerprint")
        },
        "model": {
            "posterior_sha256": posterior["sha256"],
            "parameters": card["parameters"],
            "frozen_vae": posterior["vae"],
            "frozen_vae_sha256": (card.get("weights_source") or {}).get("vae"),
        },
        "extractor": {
            name: feature_network[name]
            for name in (
                "extractor",
                "features",
                "accuracy",
                "held_out",
                "images",
                "epochs",
                "sha256",
            )
        },
        "seconds": {**tracking.stage_seconds(), "sampling": evaluation_facts["seconds"]},
        "peak_memory_mib": tracking.peak_memory_mib(),
        "metric_definitions": ev.METRIC_DEFINITIONS,
        "sampler_definitions": ev.SAMPLER_DEFINITIONS,
    }
