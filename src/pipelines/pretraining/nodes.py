"""Train the unconditional VAE and write its model folder."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from condvae.data.store import open_images
from condvae.ground.configuration import ConfigurationError, read_config
from condvae.ground.devices import place, resolve_device
from condvae.ground.state_dicts import load_strictly
from condvae.models.folder import read_card, save_vae, vae_source
from condvae.training import TrainingConfig, fit
from condvae.training.initial import new_vae
from condvae.training.pretraining import NegativeElbo, bits_per_dim
from condvae.training.start import StartConfig, find_start
from pipelines.parameters import ModelConfig
from pipelines.runs.provenance import warn_of_seen_start
from pipelines.runs.tracking import command, log_metrics, training_callbacks

log = logging.getLogger(__name__)


def train_vae(
    image_store: dict[str, Any],
    model: dict[str, Any],
    pretraining: dict[str, Any],
    start: dict[str, Any],
    folders: dict[str, str],
    device: str,
    seed: int,
) -> dict[str, Any]:
    """Train (or go on training) the VAE; return its folder, hash and test score."""
    images = open_images(Path(image_store["folder"]))
    shape = read_config(ModelConfig, model, "model")
    architecture = shape.vae_architecture
    found = (image_store["channels"], image_store["image_size"])
    if found != (architecture.channels, architecture.image_size):
        raise ConfigurationError(
            f"model.architecture = {shape.architecture!r} is for {architecture.channels} x "
            f"{architecture.image_size}² images, the data have {found[0]} x {found[1]}²"
        )
    config = read_config(TrainingConfig, pretraining, "pretraining")
    contract = shape.contract(image_store["training_mean"], image_store["training_std"])
    identity = {
        "training": config.facts(),
        "architecture": architecture.facts(),
        "data_contract": asdict(contract),
        "data": images.fingerprint,
        "seed": seed,
    }
    root = Path(folders["vae"])
    runs = root.with_name(f"{root.name}_training")
    chosen = find_start(
        read_config(StartConfig, start, "start"),
        identity,
        runs,
        lambda name: vae_source(name, architecture, contract),
        shared=("architecture", "data_contract"),
    )
    warn_of_seen_start(chosen, image_store)
    vae = new_vae(architecture, contract.mean, contract.std, seed, contract.bits)
    place(vae, resolve_device(device))
    objective = NegativeElbo(
        vae, images.pixels, images.indices("train"), images.indices("validation"), config, seed
    )
    run = chosen.fingerprint
    result = fit(
        config, objective, runs / run[:12], run, start=chosen, callbacks=training_callbacks(chosen)
    )
    load_strictly(vae, result.weights, "averaged weights")
    test = images.indices("test")
    bits, error = bits_per_dim(vae, images.pixels, test, config.batch_size, seed)
    log_metrics({"test/bits_per_dim": bits, "test/bits_per_dim_standard_error": error})
    facts = {
        "name": image_store["name"],
        "data": images.describe(),
        "weights_source": {"command": command(), "run": run, **chosen.identity},
        "test_bits_per_dim": bits,
        "test_bits_per_dim_standard_error": error,
        "test_images": len(test),
    }
    folder = root / image_store["name"]
    _set_aside(folder, run)
    card = save_vae(folder, vae, facts)
    return {
        "folder": str(folder),
        "sha256": card["sha256"],
        "test_bits_per_dim": bits,
        "test_bits_per_dim_standard_error": error,
        "start": chosen.identity["start"],
        "images_per_second": result.images_per_second,
        "history": result.history,
    }


def _set_aside(folder: Path, run: str) -> None:
    """Keep the VAE of another run that has this one's name, under a name of its own."""
    try:
        card = read_card(folder, "vae")
    except ConfigurationError:
        return  # nothing, or nothing whole
    source = card.get("weights_source") or {}
    if source.get("run") == run:
        return
    kept = folder.with_name(f"{folder.name}-{card['sha256'][:12]}")
    if not kept.exists():
        folder.rename(kept)
    log.warning(
        "%s held the VAE of another run (sha256 %s, made by %s): it is %s now, and the name is this "
        "run's VAE",
        *(folder, card["sha256"][:12], source.get("command", "an unknown command"), kept),
    )
