"""A small network that reads attributes off images: the judge of images asked for attributes.

It is the trunk of `condvae.scores.feature_network` with one output head per attribute, trained on
real images. Its errors on real images are in every score of generated ones, so its own scores on real
images are the ceiling. Scores compare only under the same weights, hence the hash in its card.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from condvae.ground.attributes import Attribute, check_conditions
from condvae.ground.configuration import ConfigurationError, check_positive, read_config
from condvae.ground.files import open_atomic, write_json
from condvae.scores.attribute_scores import ALL, score_attributes
from condvae.scores.extraction import extract_features
from condvae.scores.feature_network import FeatureNetwork

__all__ = [
    "AttributeCard",
    "AttributeNetwork",
    "AttributePredictions",
    "load_attribute_classifier",
    "predict_attributes",
    "save_attribute_classifier",
    "train_attribute_classifier",
]

_LARGEST_SHIFT = 2
_BATCH = 32
_RATE = 4e-3


@dataclass(frozen=True)
class AttributeCard:
    """What an attribute classifier is and how well it reads real images.

    Attributes:
        extractor: Name for tables, ``digits_attributes_f32``.
        attributes: What it reads.
        channels: Image channels.
        features: Feature count D.
        images: Number of training images.
        epochs: Passes over them.
        seed: Seed of the training.
        ceiling: Attribute -> accuracy on held-out real images, RMSE of a continuous attribute (in
            training standard deviations); without those that no held-out image has a value of.
        held_out: Number of held-out images.
        sha256: Hash of the weights file.
    """

    extractor: str
    attributes: tuple[Attribute, ...]
    channels: int
    features: int
    images: int
    epochs: int
    seed: int
    ceiling: dict[str, float]
    held_out: int
    sha256: str


@dataclass(frozen=True)
class AttributePredictions:
    """What the classifier reads off N images.

    Attributes:
        values: float64 (N,A): index of the likeliest value, or the mean of a continuous attribute.
        probabilities: Of each attribute float64 (N,K), `None` of a continuous one.
        features: float32 (N,D).
    """

    values: NDArray[np.float64]
    probabilities: tuple[NDArray[np.float64] | None, ...]
    features: NDArray[np.float32]


class AttributeNetwork(FeatureNetwork):
    """A feature network whose logits are cut into one head per attribute.

    A categorical attribute has a softmax over its K values, a continuous one the mean of a Gaussian of
    unit variance.

    Args:
        attributes: What it reads, at least one.
        channels: Image channels C.
        features: Feature count D, 1 to 32.
    """

    def __init__(self, attributes: Sequence[Attribute], channels: int, features: int = 32) -> None:
        if not attributes:
            raise ConfigurationError("attributes = (): expected at least one")
        sizes = [max(1, len(attribute.values)) for attribute in attributes]
        super().__init__(channels, sum(sizes), features)
        self.attributes = tuple(attributes)
        self._edges = (0, *np.cumsum(sizes).tolist())

    def heads(self, logits: Tensor) -> list[Tensor]:
        """Cut logits (B, sum of sizes) into one (B,K), or (B,1), per attribute."""
        return [logits[:, start:stop] for start, stop in pairwise(self._edges)]

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Mean negative log-likelihood per attribute, summed; unknown values do not count.

        Args:
            logits: (B, sum of sizes).
            y: float32 (B,A), nan = unknown.

        Returns:
            Scalar, nats up to a constant, with labels smoothed by 0.1.
        """
        total = logits.sum() * 0.0
        for attribute, head, column in zip(self.attributes, self.heads(logits), y.T, strict=True):
            known = ~column.isnan()
            if not known.any():
                continue
            if attribute.values:
                labels = column[known].long()
                total = total + F.cross_entropy(head[known], labels, label_smoothing=0.1)
            else:
                total = total + F.mse_loss(head[known, 0], column[known]) / 2
        return total


def train_attribute_classifier(
    images: Tensor,
    y: Tensor,
    attributes: Sequence[Attribute],
    *,
    name: str,
    features: int = 32,
    epochs: int = 20,
    seed: int = 0,
    device: torch.device | str = "cpu",
    held_out: tuple[Tensor, Tensor] | None = None,
    progress: Callable[[int, int, float], object] | None = None,
) -> tuple[AttributeNetwork, AttributeCard]:
    """Train an attribute classifier; on one CPU thread the same arguments give the same weights.

    Args:
        images: uint8 (N,C,H,W), N >= 2: real training images.
        y: float32 (N,A), nan = unknown; those do not train their head.
        attributes: A attributes.
        name: Name of the data, the first part of the extractor's name.
        features: Feature count D, 1 to 32.
        epochs: Passes over the images.
        seed: Seed of weights, order and shifts.
        device: Where to train; the network comes back there, in evaluation mode.
        held_out: Real images that did not train, and their y, for the ceiling in the card.
        progress: Called after each epoch with epochs done, epochs, mean loss.

    Raises:
        ConfigurationError: Images or y of the wrong type or shape, or a value that does not exist.
    """
    check_positive("epochs", epochs)
    _check_images(images, y, attributes)
    if held_out is not None:
        _check_images(*held_out, attributes)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):  # layers draw their weights from the global generator
        torch.default_generator.manual_seed(seed)
        network = AttributeNetwork(attributes, images.shape[1], features)
    network.to(device)
    _fit(network, images, y, epochs=epochs, generator=generator, progress=progress)
    card = AttributeCard(
        extractor=f"{name}_attributes_f{features}",
        attributes=tuple(attributes),
        channels=images.shape[1],
        features=features,
        images=len(images),
        epochs=epochs,
        seed=seed,
        ceiling={} if held_out is None else _ceiling(network, *held_out),
        held_out=0 if held_out is None else len(held_out[0]),
        sha256=hashlib.sha256(_weight_bytes(network)).hexdigest(),
    )
    return network, card


def predict_attributes(
    network: AttributeNetwork, images: NDArray[np.uint8] | Tensor, batch_size: int = 256
) -> AttributePredictions:
    """Read attributes and features off images.

    Args:
        network: In evaluation mode.
        images: uint8 (N,C,H,W), N >= 1.
        batch_size: Images at once; does not change the result beyond rounding.

    Raises:
        ConfigurationError: As `condvae.scores.extraction.extract_features`.
    """
    layers = extract_features(network, images, batch_size, ("features", "logits"))
    heads = network.heads(torch.from_numpy(layers["logits"]).double())
    values, probabilities = [], []
    for attribute, head in zip(network.attributes, heads, strict=True):
        values.append((head.argmax(dim=1) if attribute.values else head[:, 0]).double().numpy())
        probabilities.append(head.softmax(dim=1).numpy() if attribute.values else None)
    return AttributePredictions(np.stack(values, axis=1), tuple(probabilities), layers["features"])


def save_attribute_classifier(
    folder: str | os.PathLike[str], network: AttributeNetwork, card: AttributeCard
) -> None:
    """Write ``model.safetensors`` and, last, ``card.json`` into `folder`, each atomically.

    Raises:
        ConfigurationError: `card` belongs to other weights.
    """
    content = _weight_bytes(network)
    found = hashlib.sha256(content).hexdigest()
    if found != card.sha256:
        raise ConfigurationError(f"sha256 of the weights is {found}, their card says {card.sha256}")
    with open_atomic(Path(folder) / "model.safetensors") as file:
        file.write(content)
    write_json(Path(folder) / "card.json", asdict(card))


def load_attribute_classifier(
    folder: str | os.PathLike[str], device: torch.device | str = "cpu"
) -> tuple[AttributeNetwork, AttributeCard]:
    """Read what `save_attribute_classifier` wrote; the network is in evaluation mode.

    Raises:
        ConfigurationError: A missing file, an unreadable card, or weights with another hash than
            the card's.
    """
    card_path, weights_path = Path(folder) / "card.json", Path(folder) / "model.safetensors"
    for path in (card_path, weights_path):
        if not path.is_file():
            raise ConfigurationError(f"{path}: no such file, expected a saved attribute classifier")
    try:
        values: Any = json.loads(card_path.read_text())
    except ValueError as error:
        raise ConfigurationError(f"{card_path}: not JSON ({error})") from None
    card = read_config(AttributeCard, values, str(card_path))
    content = weights_path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != card.sha256:
        raise ConfigurationError(f"{weights_path}: sha256 is {found}, expected {card.sha256}")
    network = AttributeNetwork(card.attributes, card.channels, card.features)
    network.load_state_dict(safetensors.torch.load(content))
    return network.to(device).eval(), card


def _check_images(images: Tensor, y: Tensor, attributes: Sequence[Attribute]) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or len(images) < 2:
        raise ConfigurationError(
            f"images of type {images.dtype} and shape {tuple(images.shape)}: "
            "expected torch.uint8 and (N, C, H, W) with N >= 2"
        )
    if len(y) != len(images):
        raise ConfigurationError(
            f"{len(images)} images and {len(y)} conditions y: expected one each"
        )
    check_conditions(attributes, y)


def _fit(
    network: AttributeNetwork,
    images: Tensor,
    y: Tensor,
    *,
    epochs: int,
    generator: torch.Generator,
    progress: Callable[[int, int, float], object] | None,
) -> None:
    """Minimise the loss with AdamW under a warm-up and a cosine."""
    device = next(network.parameters()).device
    batches = math.ceil(len(images) / _BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, _RATE, total_steps=epochs * batches, pct_start=0.1, cycle_momentum=False
    )
    network.train()
    for epoch in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        total = 0.0
        for rows in order.tensor_split(batches):
            pixels = _shift(images[rows], generator).to(device)
            loss = network.loss(network(pixels)["logits"], y[rows].to(device))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += loss.item()
        if progress is not None:
            progress(epoch + 1, epochs, total / batches)
    network.eval()


def _shift(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Shift a batch by up to two pixels along each axis, repeating the border."""
    margin = _LARGEST_SHIFT
    height, width = pixels.shape[2:]
    top, left = torch.randint(2 * margin + 1, (2,), generator=generator).tolist()
    padded = F.pad(pixels.float(), (margin,) * 4, mode="replicate")
    return padded[:, :, top : top + height, left : left + width].to(torch.uint8)


def _ceiling(network: AttributeNetwork, images: Tensor, y: Tensor) -> dict[str, float]:
    """Accuracy, or RMSE, of each attribute on real images."""
    values = predict_attributes(network, images).values
    scores = score_attributes(values, y.cpu().numpy(), network.attributes)
    wanted = [s for s in scores if s.metric in ("accuracy", "rmse") and s.attribute != ALL]
    return {score.attribute: score.score.value for score in wanted}


def _weight_bytes(network: AttributeNetwork) -> bytes:
    """Return the weights file's content, which does not depend on the device."""
    state = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
    return bytes(safetensors.torch.save(state))
