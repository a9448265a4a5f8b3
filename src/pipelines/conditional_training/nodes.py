"""Train the partial encoder and write the posterior's folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from condvae.data import fetching
from condvae.data.store import PreparedImages, open_images
from condvae.ground.configuration import read_config
from condvae.ground.devices import resolve_device
from condvae.masks.sampling import MaskConfig
from condvae.models import read_cards
from condvae.models.card import write_model_card
from condvae.models.conditional_run import ConditionalRun, ConditionalSettings
from condvae.models.folder import load_vae
from condvae.tasks import describe_task
from condvae.training import ObjectiveConfig, TrainingConfig
from condvae.training.start import StartConfig
from pipelines.parameters import ModelConfig, TaskConfig
from pipelines.runs.provenance import check_weights, warn_of_seen_start
from pipelines.runs.shortcomings import VAE_SHORTCOMINGS, list_shortcomings
from pipelines.runs.tracking import command, progress_bar, training_callbacks


def train_partial_encoder(
    image_store: dict[str, Any],
    pretrained_vae: dict[str, Any],
    model: dict[str, Any],
    task: dict[str, Any],
    masks: dict[str, Any],
    training: dict[str, Any],
    start: dict[str, Any],
    folders: dict[str, str],
    device: str,
    seed: int,
    objective: dict[str, Any] | None = None,
    recipe: str | None = None,
) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """Train (or go on training) c(z | y); return the posterior's description and the history."""
    shape = read_config(ModelConfig, model, "model")
    settings = ConditionalSettings(
        task=read_config(TaskConfig, task, "task").make(),
        training=read_config(TrainingConfig, training, "training"),
        masks=read_config(MaskConfig, masks, "masks"),
        objective=read_config(ObjectiveConfig, objective, "objective"),
        initialisation=shape.initialisation,
        flows=shape.flows,
        flow_layers=shape.flow_layers,
        first_groups=shape.first_groups,
        seed=seed,
    )
    images = open_images(Path(image_store["folder"]))
    vae, vae_card = load_vae(pretrained_vae["folder"], resolve_device(device))
    check_weights(pretrained_vae, vae_card)
    run = ConditionalRun(
        settings,
        vae,
        pretrained_vae["sha256"],
        images,
        Path(folders["inpaint"]),
        read_config(StartConfig, start, "start"),
    )
    warn_of_seen_start(run.start, image_store)
    result = run.train(training_callbacks(run.start))
    trained_along = settings.objective.trained == "all"
    facts = {
        "name": image_store["name"],
        "vae": pretrained_vae["name"],
        VAE_SHORTCOMINGS: [] if trained_along else list_shortcomings(vae_card),
        **({"recipe": recipe} if recipe else {}),
        "licences": _list_licences(images, pretrained_vae["name"], vae_card),
    }
    card = run.save(facts, {"command": command()}, progress_bar)
    write_model_card(run.folder / "posterior")
    description = {
        "folder": str(run.folder / "posterior"),
        "sha256": card["sha256"],
        **describe_task(settings.task),
        "vae": pretrained_vae["name"],
        "vae_sha256": card.get("vae_sha256", pretrained_vae["sha256"]),
        "start": run.start.identity["start"],
        "command": command(),
        "images_per_second": result.images_per_second,
    }
    return description, result.history


def _list_licences(images: PreparedImages, vae: str, vae_card: Mapping[str, Any]) -> dict[str, str]:
    """Licences of what a posterior is made from, as far as cards state them."""
    data, model = fetching.read_cards().get(images.config.source), read_cards().get(vae)
    found = {
        "data": data and data.licence,
        "vae": (model and model.licence) or vae_card.get("licence"),
    }
    return {name: licence for name, licence in found.items() if licence}
