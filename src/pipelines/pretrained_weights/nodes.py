"""Find the frozen VAE and check that it fits the images."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

from condvae.configuration import ConfigurationError, read_config
from condvae.files import sha256_of_file
from condvae.model_folder import load_vae, read_card, save_vae
from condvae.pretrained import find_model
from condvae.training.initial import new_vae
from condvae.vdvae.architecture import architecture_named
from condvae.vdvae.checkpoints import load_official_vae
from condvae.vdvae.presets import Preset, preset_named
from pipelines.parameters import ModelConfig, WeightsConfig
from pipelines.provenance import warn_of_seen_images

log = logging.getLogger(__name__)


def fetch_weights(
    image_store: dict[str, Any],
    weights: dict[str, Any],
    model: dict[str, Any],
    folders: dict[str, str],
    seed: int,
) -> dict[str, Any]:
    """Return name, folder and hash of the VAE to be frozen."""
    config = read_config(WeightsConfig, weights, "weights")
    if config.vae == "random":
        folder = f"{folders['vae']}_untrained"
        architecture = architecture_named(read_config(ModelConfig, model, "model").architecture)
        mean, std = image_store["training_mean"], image_store["training_std"]
        save_vae(folder, new_vae(architecture, mean, std, seed), {"weights_source": None})
    elif config.preset is not None:
        folder = str(convert_official(config.vae, preset_named(config.preset), folders["vae"]))
    else:
        folder = str(find_model(config.vae))
    vae, card = load_vae(folder)
    if card.get("weights_source") is None and not config.allow_untrained:
        raise ConfigurationError(
            f"weights.vae = {config.vae!r} was never trained: conditioning it gives noise. Train one "
            "with `kedro run --pipeline=pretrain`, or set weights.allow_untrained=true"
        )
    warn_of_seen_images(f"VAE {config.vae}", card, image_store)
    expected = (vae.contract.channels, vae.contract.size)
    found = (image_store["channels"], image_store["image_size"])
    if expected != found:
        raise ConfigurationError(
            f"weights.vae = {config.vae!r} takes {expected[0]} x {expected[1]}² images, the data have "
            f"{found[0]} x {found[1]}²: set data.channels and data.image_size, or another VAE"
        )
    log.info(
        "frozen VAE %s: %d parameters, sha256 %s", config.vae, card["parameters"], card["sha256"]
    )
    return {"name": config.vae, "folder": folder, "sha256": card["sha256"]}


def convert_official(file: str | Path, preset: Preset, parent: str | Path) -> Path:
    """Make a model folder of an official checkpoint, unless it is there already.

    Args:
        file: A ``.th`` file of an unconditional VAE.
        preset: What it must fit.
        parent: The folder is made here, named after the first 12 digits of the file's sha256.

    Raises:
        ConfigurationError: The file is missing, damaged, or does not fit the preset.
    """
    file = Path(file)
    if not file.is_file():
        raise ConfigurationError(f"weights.vae = {str(file)!r}: no such file")
    sha256 = sha256_of_file(file)
    folder = Path(parent) / sha256[:12]
    if not _is_converted(folder, preset, sha256):
        log.info("converting %s, once, to %s", file, folder)
        source = {"official": file.name, "sha256": sha256}
        facts = {"weights_source": source, "preset": preset.architecture, "origin": preset.source}
        save_vae(folder, load_official_vae(file, preset), facts)
    return folder


def _is_converted(folder: Path, preset: Preset, sha256: str) -> bool:
    """Whether `folder` holds the whole conversion of the file with this hash by this preset."""
    try:
        card = read_card(folder, "vae")
    except ConfigurationError:  # not there, or left half-written
        return False
    return (
        (card.get("weights_source") or {}).get("sha256") == sha256
        and card["architecture"] == dataclasses.asdict(architecture_named(preset.architecture))
        and card["data_contract"] == dataclasses.asdict(preset.contract)
    )
