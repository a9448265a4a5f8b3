"""Find the frozen VAE and check that it fits the images."""

from __future__ import annotations

import logging
from typing import Any

from condvae.configuration import ConfigurationError, read_config
from condvae.model_folder import load_vae, save_vae
from condvae.pretrained import find_model
from condvae.training.initial import new_vae
from condvae.vdvae.architecture import architecture_named
from pipelines.parameters import ModelConfig, WeightsConfig

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
    else:
        folder = str(find_model(config.vae))
    vae, card = load_vae(folder)
    if card.get("weights_source") is None and not config.allow_untrained:
        raise ConfigurationError(
            f"weights.vae = {config.vae!r} was never trained: conditioning it gives noise. Train one "
            "with `kedro run --pipeline=pretrain`, or set weights.allow_untrained=true"
        )
    source = card.get("weights_source") or {}
    trained_on = source.get("data")
    if card.get("name") == image_store["name"] and trained_on != image_store["fingerprint"]:
        log.warning(
            "the VAE %s was trained on %s with another subset or split: it may have seen images that "
            "are test images here",
            config.vae,
            image_store["name"],
        )
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
