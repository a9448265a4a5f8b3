"""The network that reads attributes off images, for tasks whose y says attributes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from condvae.data.store import PreparedImages, open_images
from condvae.ground.attributes import BINARY, Attribute
from condvae.ground.devices import resolve_device
from condvae.ground.files import fingerprint
from condvae.ground.images import to_nchw
from condvae.scores.attribute_classifier import (
    load_attribute_classifier,
    save_attribute_classifier,
    train_attribute_classifier,
)
from condvae.tasks import Subject, Task
from pipelines.runs import tracking

__all__ = ["describe_asked", "find_asked", "train_reader"]

MOST_NAMED = 2
LONGEST = 16  # what has room beside a row of pictures


def train_reader(
    image_folder: Path,
    folder: Path,
    task: Task,
    *,
    features: int,
    epochs: int,
    seed: int,
    device: str,
) -> dict[str, Any] | None:
    """Train the network once per data set and settings; describe it.

    Args:
        image_folder: Of a data set, whose training images train it, all attributes at once.
        folder: Of feature networks.
        task: Whether any attributes are asked for, and which.
        features: Feature count D.
        epochs: Passes over the images.
        seed: Of the training.
        device: Where to train.

    Returns:
        ``folder, extractor, sha256, held_out`` and ``accuracy``, the share of the attributes that y
        says which it reads off test images as they are; None where y says none.
    """
    if "attributes" not in task.needs:
        return None
    images = open_images(image_folder)
    asked = find_asked(task, images, images.indices("test"))
    if asked is None or images.attributes is None:
        return None
    identity = {"features": features, "epochs": epochs, "data": images.fingerprint, "seed": seed}
    place = folder / f"attributes-{fingerprint(identity)[:12]}"
    if not (place / "card.json").is_file():
        parts = []
        for rows in (images.indices("train"), images.indices("test")):
            pixels = to_nchw(torch.from_numpy(images.pixels[rows]))
            parts.append((pixels, torch.from_numpy(images.attributes[rows]).float()))
        with tracking.progress_bar("attribute network", epochs, unit="epoch") as bar:
            network, card = train_attribute_classifier(
                *parts[0],
                [Attribute(name, BINARY) for name in images.attribute_names],
                name=images.config.name,
                features=features,
                epochs=epochs,
                seed=seed,
                device=resolve_device(device),
                held_out=parts[1],
                progress=lambda *_: bar.update(),
            )
        save_attribute_classifier(place, network, card)
    _, card = load_attribute_classifier(place)
    said = np.flatnonzero((asked >= 0).any(axis=0))
    accuracy = float(np.mean([card.ceiling[card.attributes[i].name] for i in said]))
    tracking.log_metrics({f"features/accuracy/{card.extractor}": accuracy})
    return {
        "folder": str(place),
        "extractor": card.extractor,
        "sha256": card.sha256,
        "accuracy": accuracy,
        "held_out": card.held_out,
    }


def find_asked(
    task: Task, images: PreparedImages, rows: NDArray[np.int64]
) -> NDArray[np.int64] | None:
    """Attributes (N,A) that y says of some images, -1 for others; None where it says none.

    Args:
        task: Makes y.
        images: The data set.
        rows: (N,) images.
    """
    if "attributes" not in task.needs or images.attributes is None:
        return None
    known = torch.from_numpy(images.attributes[rows].astype(np.int64))
    asked = task.asked_attributes(Subject(attributes=known))
    return None if asked is None else asked.numpy()


def describe_asked(asked: NDArray[np.int64], names: Sequence[str]) -> str:
    """A few words for the attributes (A,) that y says: those present, or all where they are few."""
    said = [(names[i], bool(asked[i])) for i in np.flatnonzero(asked >= 0).tolist()]
    if len(said) > MOST_NAMED:
        count, said = len(said), [(name, present) for name, present in said if present]
        if not said:
            return f"none of {count}"
    words = [name if present else f"no {name}" for name, present in said]
    more = f" +{len(words) - MOST_NAMED}" if len(words) > MOST_NAMED else ""
    text, room = ", ".join(words[:MOST_NAMED]), LONGEST - len(more)
    return (text if len(text) <= room else f"{text[: room - 1]}…") + more
