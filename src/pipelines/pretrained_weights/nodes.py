"""Find the frozen VAE and check that it fits the images."""

from __future__ import annotations

import logging
from typing import Any

from condvae.configuration import ConfigurationError, read_config
from condvae.model_folder import load_vae, save_vae
from condvae.pretrained import resolve_vae
from condvae.training.initial import new_vae
from condvae.vdvae.architecture import architecture_named
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
        shape = read_config(ModelConfig, model, "model")
        contract = shape.contract(image_store["training_mean"], image_store["training_std"])
        architecture = architecture_named(shape.architecture)
        vae = new_vae(architecture, contract.mean, contract.std, seed, contract.bits)
        save_vae(folder, vae, {"weights_source": None})
    else:
        folder = str(
            resolve_vae(
                config.vae,
                config.preset,
                config.cache,
                allow_unpinned=config.allow_unpinned,
                folder=folders["vae"],
            )
        )
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
