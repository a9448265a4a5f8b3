"""Nodes of the evaluation: cases, features, samplers, scores."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from condvae import evaluation as ev
from condvae.data.store import open_images
from condvae.evaluation.cases import (
    build_cases,
    build_cases_of_every_image,
    read_cases,
    write_cases,
)
from condvae.ground.configuration import ConfigurationError, read_config
from condvae.ground.devices import resolve_device
from condvae.ground.files import fingerprint
from condvae.ground.images import to_nchw
from condvae.masks.sampling import MaskConfig
from condvae.models import resolve_posterior
from condvae.models.folder import read_card
from condvae.scores.feature_network import (
    load_feature_network,
    save_feature_network,
    train_feature_network,
)
from pipelines.evaluation.agreement import check_scores_are_of
from pipelines.evaluation.attribute_reader import train_reader
from pipelines.evaluation.judging import (
    Outputs,
    judge_samplers,
    judge_source,
    open_bench,
    tabulate_judgements,
)
from pipelines.parameters import (
    EvaluationConfig,
    ManifestConfig,
    SamplingConfig,
    ScoreConfig,
    TaskConfig,
    WeightsConfig,
)
from pipelines.runs import tracking

log = logging.getLogger(__name__)

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
    description: dict[str, Any] = {
        "folder": str(folder),
        "sha256": card["sha256"],
        **{key: card[key] for key in ("task", "task_options") if key in card},
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
    task: dict[str, Any],
    folders: dict[str, str],
    size: str,
) -> dict[str, Any]:
    """Choose test images and masks, write them as a hashed manifest, describe it."""
    settings = read_config(EvaluationConfig, evaluation, "evaluation")
    config: ManifestConfig = getattr(settings, size)
    images = open_images(Path(image_store["folder"]))
    rows = images.indices("test")
    made = read_config(TaskConfig, task, "task").make()
    masks_config = made.choose_masks(read_config(MaskConfig, masks, "masks"))
    hashes = [images.records[row].sha256 for row in rows]
    where = (rows.tolist(), hashes, image_store["image_size"], masks_config)
    if config.masks_per_image is not None:
        cases = build_cases_of_every_image(
            *where, masks_per_image=config.masks_per_image, seed=settings.seed, prefix=size
        )
    else:
        per_bin = config.cases_per_bin or 0
        cases = build_cases(*where, per_bin=per_bin, seed=settings.seed, prefix=size)
    path = Path(folders["evaluation"]) / f"cases_{size}.jsonl"
    return {
        "path": str(path),
        "sha256": write_cases(path, cases),
        "cases": len(cases),
        "completions": config.completions,
        "size": size,
    }


def train_features(
    image_store: dict[str, Any],
    evaluation: dict[str, Any],
    folders: dict[str, str],
    device: str,
    task: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train the feature network once per data set and settings; describe it.

    Under ``attributes`` the network that reads these, where `task` says some; see `train_reader`.
    """
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
    made = read_config(TaskConfig, task, "task").make()
    how: dict[str, Any] = {"features": config.features, "epochs": config.epochs, "seed": seed}
    places = Path(image_store["folder"]), Path(folders["features"])
    reader = train_reader(*places, made, **how, device=device)
    found = {} if reader is None else {"attributes": reader}
    return {"folder": str(folder), "name": card.extractor, **facts, **found}


def evaluate_samplers(
    image_store: dict[str, Any],
    posterior: dict[str, Any],
    evaluation_manifest: dict[str, Any],
    feature_network: dict[str, Any],
    sampling: dict[str, Any],
    evaluation: dict[str, Any],
    task: dict[str, Any],
    folders: dict[str, str],
    device: str,
) -> Outputs:
    """Score every sampler on the manifest; return tables, example pictures, calibration and facts."""
    settings = read_config(EvaluationConfig, evaluation, "evaluation")
    config: ManifestConfig = getattr(settings, evaluation_manifest["size"])
    bench = open_bench(
        image_store, evaluation_manifest, feature_network, settings, task, folders, device
    )
    judged = judge_samplers(
        bench,
        config.samplers,
        posterior,
        read_config(SamplingConfig, sampling, "sampling"),
        completions=config.completions,
        bound_draws=config.bound_draws,
        device=device,
    )
    return tabulate_judgements(bench, judged, posterior)


def score_samples(
    image_store: dict[str, Any],
    posterior: dict[str, Any],
    evaluation_manifest: dict[str, Any],
    feature_network: dict[str, Any],
    sampling: dict[str, Any],
    evaluation: dict[str, Any],
    task: dict[str, Any],
    score: dict[str, Any],
    folders: dict[str, str],
    device: str,
) -> Outputs:
    """Score completions of another system, and samplers of ours beside them where asked for."""
    settings = read_config(EvaluationConfig, evaluation, "evaluation")
    config = read_config(ScoreConfig, score, "score")
    bench = open_bench(
        image_store, evaluation_manifest, feature_network, settings, task, folders, device
    )
    size, channels = image_store["image_size"], image_store["channels"]
    source = ev.FileSource(
        config.samples or "",  # its presence is checked before the run
        bench.cases,
        size,
        channels,
        sha256=evaluation_manifest["sha256"],
        manifest=config.manifest,
    )
    judged = {config.name: judge_source(bench, config.name, source, math.nan)}
    if config.against:
        judged |= judge_samplers(
            bench,
            config.against,
            posterior,
            read_config(SamplingConfig, sampling, "sampling"),
            completions=source.completions,
            bound_draws=(),
            device=device,
        )
    return tabulate_judgements(bench, judged, posterior if config.against else None)


def write_exchange(
    image_store: dict[str, Any],
    evaluation_manifest: dict[str, Any],
    task: dict[str, Any],
    folders: dict[str, str],
) -> dict[str, Any]:
    """Write the cases of a manifest for another system to complete."""
    made = read_config(TaskConfig, task, "task").make()
    if not made.is_exact:
        raise ConfigurationError(
            f"task.name = {made.name!r}: cases are written as observed pixels and masks, which say "
            "all there is to say in tasks such as 'inpainting' only"
        )
    images = open_images(Path(image_store["folder"]))
    cases = read_cases(evaluation_manifest["path"], evaluation_manifest["sha256"])
    # A folder for each manifest: cases of an earlier one would stay beside the new ones.
    name = f"exchange_{evaluation_manifest['size']}_{evaluation_manifest['sha256'][:12]}"
    folder = Path(folders["evaluation"]) / name
    sha256 = ev.export_cases(folder, cases, (images.pixels[case.image_id] for case in cases))
    log.info("%d cases for another system in %s", len(cases), folder)
    return {"folder": str(folder), "cases": len(cases), "sha256": sha256}


def collect_facts(
    image_store: dict[str, Any],
    posterior: dict[str, Any],
    feature_network: dict[str, Any],
    evaluation_facts: dict[str, Any],
    device: str,
) -> dict[str, Any]:
    """Gather what the report says about the run.

    Raises:
        ConfigurationError: The scores are of another posterior.
    """
    check_scores_are_of(evaluation_facts, posterior)
    # Of other commands than this one where nodes were skipped.
    made_by = [d["command"] for d in (posterior, evaluation_facts) if "command" in d]
    resolved = resolve_device(device)
    return {
        **{key: posterior[key] for key in ("task", "task_options") if key in posterior},
        **{
            key: evaluation_facts[key]
            for key in ("is_exact", "guidance", "guidance_rule")
            if key in evaluation_facts
        },
        "command": " && ".join(dict.fromkeys(made_by)) or tracking.command(),
        **tracking.git_state(),
        "device": torch.cuda.get_device_name(resolved) if resolved.type == "cuda" else "cpu",
        **{name: evaluation_facts[name] for name in ("seed", "temperature", "manifest")},
        "warnings": [*image_store.get("warnings", ()), *evaluation_facts.get("warnings", ())],
        "completions_per_case": evaluation_facts["k"],
        "classifier_accuracy": feature_network["accuracy"]
        if feature_network["task"] == "classifier"
        else None,
        "loss_unit": "nats per dimension",
        "data": {
            name: image_store[name]
            for name in ("name", "count", "channels", "image_size", "fingerprint")
        },
        **(_describe_model(posterior) if evaluation_facts["ours"] else {}),
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
        **{name: evaluation_facts[name] for name in ("resizers", "extractor_hashes")},
        **_describe_reader(feature_network, evaluation_facts),
        "seconds": {**tracking.stage_seconds(), "samplers": evaluation_facts["seconds"]},
        "seconds_per_case": evaluation_facts["seconds_per_case"],
        "peak_memory_mib": tracking.peak_memory_mib(),
        "sampler_definitions": ev.SAMPLER_DEFINITIONS,
    }


def _describe_reader(
    feature_network: dict[str, Any], evaluation_facts: dict[str, Any]
) -> dict[str, Any]:
    """The network that reads attributes, where there is one, and its hash among the others."""
    reader = feature_network.get("attributes")
    if reader is None:
        return {}
    shown = ("extractor", "accuracy", "held_out", "sha256")
    return {
        "attribute_reader": {name: reader[name] for name in shown},
        "extractor_hashes": {
            **evaluation_facts["extractor_hashes"],
            reader["extractor"]: reader["sha256"],
        },
    }


def _describe_model(posterior: dict[str, Any]) -> dict[str, Any]:
    card = read_card(posterior["folder"])
    model = {
        "posterior_sha256": posterior["sha256"],
        "parameters": card["parameters"],
        "frozen_vae": posterior["vae"],
        "frozen_vae_sha256": (card.get("weights_source") or {}).get("vae"),
        "trained_by": (card.get("weights_source") or {}).get("command"),
    }
    if card.get("vae_changed"):
        model |= {"vae_changed": True, "vae_sha256": card["vae_sha256"]}
    return {"model": model}
