"""Find the frozen VAE and check that it fits the images."""

from __future__ import annotations

import logging
from typing import Any

from condvae.ground.configuration import ConfigurationError, read_config
from condvae.models import cache_folder, resolve_vae
from condvae.models.folder import load_vae, save_vae
from condvae.training.config import ObjectiveConfig
from condvae.training.initial import new_vae
from condvae.transport.hub import pin_hub_address
from condvae.transport.hub_address import is_hub_address
from pipelines.parameters import ModelConfig, WeightsConfig
from pipelines.runs.provenance import warn_of_seen_images

log = logging.getLogger(__name__)


def fetch_weights(
    image_store: dict[str, Any],
    weights: dict[str, Any],
    model: dict[str, Any],
    folders: dict[str, str],
    seed: int,
    objective: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return name, folder and hash of the VAE that is frozen, or trained by a joint objective."""
    joint = read_config(ObjectiveConfig, objective, "objective").name == "joint"
    config = read_config(WeightsConfig, weights, "weights")
    name = config.vae
    if config.vae == "random":
        folder = f"{folders['vae']}_untrained"
        shape = read_config(ModelConfig, model, "model")
        contract = shape.contract(image_store["training_mean"], image_store["training_std"])
        vae = new_vae(shape.vae_architecture, contract.mean, contract.std, seed, contract.bits)
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
    if is_hub_address(name):  # a branch moves on; the commit stays what it is
        name = pin_hub_address(name, cache_folder(config.cache))
    vae, card = load_vae(folder)
    if card.get("weights_source") is None and not (config.allow_untrained or joint):
        raise ConfigurationError(
            f"weights.vae = {config.vae!r} was never trained: conditioning it gives noise. Train one "
            "with `kedro run --pipeline=pretrain`, train it along with objective.name=joint, or set "
            "weights.allow_untrained=true"
        )
    warn_of_seen_images(f"VAE {config.vae}", card, image_store)
    expected = (vae.contract.channels, vae.contract.size)
    found = (image_store["channels"], image_store["image_size"])
    if expected != found:
        raise ConfigurationError(
            f"weights.vae = {config.vae!r} takes {expected[0]} x {expected[1]}² images, the data have "
            f"{found[0]} x {found[1]}²: set data.channels and data.image_size, or another VAE"
        )
    log.info("VAE %s: %d parameters, sha256 %s", name, card["parameters"], card["sha256"])
    return {"name": name, "folder": folder, "sha256": card["sha256"]}
