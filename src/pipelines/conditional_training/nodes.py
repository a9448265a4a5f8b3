"""Train the partial encoder against the frozen VAE and write the posterior's folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from condvae.conditional import ConditionalModel, PartialEncoder, heads_for, initialise
from condvae.configuration import ConfigurationError, read_config
from condvae.data import fetching
from condvae.data.records import SPLITS
from condvae.data.store import PreparedImages, open_images
from condvae.input_check import input_reference, most_observations
from condvae.model_card import write_model_card
from condvae.model_folder import load_vae, posterior_source, save_posterior
from condvae.posterior import ImagePosterior
from condvae.pretrained import read_cards
from condvae.tasks import task_named
from condvae.tasks.mask_sampling import MaskConfig, draw_masks
from condvae.training import TrainingConfig, fit
from condvae.training.acceleration import explain_out_of_memory, place, resolve_device
from condvae.training.conditioning import ForwardKL
from condvae.training.start import Source, StartConfig, find_start
from condvae.vdvae.checkpoints import load_strictly
from pipelines.parameters import ModelConfig, TaskConfig
from pipelines.provenance import warn_of_seen_start
from pipelines.tracking import command, progress_bar, training_callbacks


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
) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """Train (or go on training) c(z | y); return the posterior's description and the history."""
    images = open_images(Path(image_store["folder"]))
    vae, vae_card = load_vae(pretrained_vae["folder"], resolve_device(device))
    config = read_config(TrainingConfig, training, "training")
    mask_config = read_config(MaskConfig, masks, "masks")
    how = read_config(ModelConfig, model, "model").initialisation
    heads = heads_for(how)
    conditional_task = task_named(read_config(TaskConfig, task, "task").name)
    identity = {
        "training": config.facts(),
        "masks": asdict(mask_config),
        "initialisation": how,
        "heads": heads,
        "task": conditional_task.name,
        "vae": pretrained_vae["sha256"],
        "data": images.fingerprint,
        "seed": seed,
    }
    root = Path(folders["inpaint"])
    chosen = find_start(
        read_config(StartConfig, start, "start"),
        identity,
        root / "training",
        lambda name: posterior_source(name, vae, conditional_task.name, heads),
        shared=("vae", "task", "heads"),
    )
    warn_of_seen_start(chosen, image_store)
    partial = PartialEncoder(vae, conditional_task.condition_channels(vae.contract), heads)
    initialise(partial, vae, how, seed)
    place(partial, vae.device)
    train, validation = images.indices("train"), images.indices("validation")
    size = vae.contract.size
    objective = ForwardKL(
        vae,
        partial,
        conditional_task,
        images.pixels,
        train,
        validation,
        draw_masks(mask_config, size, mask_config.pool, seed),
        draw_masks(mask_config, size, len(validation), seed + 1),
        config,
        seed,
    )
    run = chosen.fingerprint
    result = fit(
        config,
        objective,
        root / "training" / run[:12],
        run,
        start=chosen,
        callbacks=training_callbacks(),
    )
    load_strictly(partial, result.weights, "averaged weights")
    folder = root / "posterior"
    known = _known_card(
        partial, run, lambda: posterior_source(str(folder), vae, conditional_task.name, heads)
    )
    posterior = ImagePosterior(ConditionalModel(vae, partial.eval()), conditional_task)
    facts = {
        "name": image_store["name"],
        "weights_source": {"command": command(), "run": run, **chosen.identity},
        "vae": pretrained_vae["name"],
        "data": _describe_data(images),
        "licences": _list_licences(images, pretrained_vae["name"], vae_card),
        "validation": {
            k: v for record in result.history[-1:] for k, v in record.items() if "validation" in k
        },
        # What came to the card after the weights holds as long as they are the same.
        **{name: known[name] for name in ("scores", "licence") if name in known},
        "input_reference": known.get("input_reference")
        or _score_validation_images(posterior, images, mask_config, config.batch_size, seed),
    }
    card = save_posterior(folder, posterior, facts)
    write_model_card(folder)
    description = {
        "folder": str(folder),
        "sha256": card["sha256"],
        "task": conditional_task.name,
        "vae": pretrained_vae["name"],
        "vae_sha256": pretrained_vae["sha256"],
        "start": chosen.identity["start"],
        "images_per_second": result.images_per_second,
    }
    return description, result.history


def _known_card(
    partial: PartialEncoder, run: str, open_written: Callable[[], Source]
) -> Mapping[str, Any]:
    """The card that this run has written before, empty unless it is of these very weights."""
    try:
        written = open_written()
    except ConfigurationError:
        return {}
    own = partial.state_dict()
    same = (
        written.made_by == run and not written.differences and own.keys() == written.weights.keys()
    )
    if not same or any(
        not torch.equal(value.cpu(), written.weights[n]) for n, value in own.items()
    ):
        return {}
    return written.card


def _describe_data(images: PreparedImages) -> dict[str, Any]:
    return {
        "fingerprint": images.fingerprint,
        "source": images.config.source,
        "split": images.config.split,
        "images": {split: len(images.indices(split)) for split in SPLITS},
    }


def _list_licences(images: PreparedImages, vae: str, vae_card: Mapping[str, Any]) -> dict[str, str]:
    """Licences of what a posterior is made from, as far as cards state them."""
    data, model = fetching.read_cards().get(images.config.source), read_cards().get(vae)
    found = {
        "data": data and data.licence,
        "vae": (model and model.licence) or vae_card.get("licence"),
    }
    return {name: licence for name, licence in found.items() if licence}


def _score_validation_images(
    posterior: ImagePosterior, images: PreparedImages, masks: MaskConfig, batch_size: int, seed: int
) -> dict[str, Any]:
    rows = images.indices("validation")
    with (
        progress_bar("scoring observations", most_observations(len(rows))) as bar,
        explain_out_of_memory("training.batch_size", batch_size),
    ):
        return input_reference(
            posterior,
            images.pixels,
            rows,
            masks,
            seed=seed,
            batch_size=batch_size,
            progress=bar.update,
        )
