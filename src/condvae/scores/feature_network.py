"""A small convolutional network whose features serve offline metrics.

Published metrics rest on Inception or VGG weights, which are made for photographs and have to be
fetched. This network is trained on the data at hand in seconds: on class labels, or without labels
on telling the four rotations of an image apart (Gidaris et al. 2018, Unsupervised Representation
Learning by Predicting Image Rotations). Its numbers are comparable only under the same weights,
hence the hash in its card.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condvae.ground.configuration import ConfigurationError, check_positive, read_config
from condvae.ground.files import open_atomic, write_json

__all__ = [
    "LAYERS",
    "FeatureCard",
    "FeatureNetwork",
    "load_feature_network",
    "save_feature_network",
    "train_feature_network",
]

LAYERS = ("block1", "block2", "block3", "features", "logits")
"""What the network returns, from the pixels to the classes."""

_CHANNELS = (16, 32, 64)
_LARGEST_SHIFT = 2
_BATCH = 32
_RATE = 4e-3


@dataclass(frozen=True)
class FeatureCard:
    """What a feature network is and how well it does its own task.

    Attributes:
        extractor: Name for tables, ``digits_classifier_f32``.
        task: ``classifier`` or ``rotation``.
        channels: Image channels.
        features: Feature count D.
        classes: Number of classes, 4 for rotations.
        images: Number of training images.
        epochs: Passes over them.
        seed: Seed of the training.
        accuracy: Share of held-out images classified correctly (every rotation of each counts);
            `None` without held-out images.
        held_out: Number of held-out images.
        sha256: Hash of the weights file.
    """

    extractor: str
    task: str
    channels: int
    features: int
    classes: int
    images: int
    epochs: int
    seed: int
    accuracy: float | None
    held_out: int
    sha256: str


class FeatureNetwork(nn.Module):
    """Three convolution blocks, pooled features, class logits.

    Args:
        channels: Image channels C.
        classes: Number of classes.
        features: Feature count D, 1 to 32: a Frechet distance needs at least 2 * D images.
    """

    def __init__(self, channels: int, classes: int, features: int = 32) -> None:
        super().__init__()
        if not 1 <= features <= 32:
            raise ConfigurationError(f"features = {features!r}: expected 1 to 32")
        self.channels, self.classes, self.feature_count = channels, classes, features
        first, second, third = _CHANNELS
        self.block1 = _block(channels, first)
        self.block2 = _block(first, second)
        self.block3 = _block(second, third)
        self.embed = nn.Linear(4 * third, features)
        self.classify = nn.Linear(features, classes)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the value of every layer.

        Args:
            images: uint8 (B,C,H,W), H and W at least 8.

        Returns:
            ``block1`` (B,16,H,W), ``block2`` (B,32,H/2,W/2), ``block3`` (B,64,H/4,W/4), all >= 0;
            ``features`` (B,D); ``logits`` (B,classes).

        Raises:
            ConfigurationError: Images of another type or shape.
        """
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ConfigurationError(
                f"images of type {images.dtype} and shape {tuple(images.shape)}: "
                "expected torch.uint8 and (B, C, H, W)"
            )
        if images.shape[1] != self.channels or min(images.shape[2:]) < 8:
            raise ConfigurationError(
                f"images of shape {tuple(images.shape)}: the feature network expects "
                f"{self.channels} channels and at least 8 pixels a side"
            )
        x = images.to(self.embed.weight.dtype) / 127.5 - 1.0
        block1 = self.block1(x)
        block2 = self.block2(F.max_pool2d(block1, 2))
        block3 = self.block3(F.max_pool2d(block2, 2))
        features = self.embed(F.adaptive_avg_pool2d(block3, 2).flatten(1))
        logits = self.classify(F.relu(features))
        return dict(zip(LAYERS, (block1, block2, block3, features, logits), strict=True))


def train_feature_network(
    images: Tensor,
    labels: Tensor | None,
    *,
    name: str,
    features: int = 32,
    epochs: int = 20,
    seed: int = 0,
    device: torch.device | str = "cpu",
    held_out: tuple[Tensor, Tensor | None] | None = None,
    progress: Callable[[int, int, float], object] | None = None,
) -> tuple[FeatureNetwork, FeatureCard]:
    """Train a feature network; on one CPU thread the same arguments give the same weights.

    Args:
        images: uint8 (N,C,H,W), N >= 2.
        labels: Integers (N,) from 0, or `None` to learn rotations (square images only).
        name: Name of the data, the first part of the extractor's name.
        features: Feature count D, 1 to 32.
        epochs: Passes over the images.
        seed: Seed of weights, order and shifts.
        device: Where to train; the network comes back there, in evaluation mode.
        held_out: Images and labels (`None` for rotations) for the accuracy in the card. Classes that
            only they have are classes of the network too.
        progress: Called after each epoch with epochs done, epochs, mean loss.

    Returns:
        The network and its card.

    Raises:
        ConfigurationError: Images or labels of the wrong type or shape.
    """
    _check_training_set(images, labels)
    check_positive("epochs", epochs)
    if held_out is not None:
        _check_training_set(held_out[0], held_out[1])
        if (held_out[1] is None) != (labels is None):
            raise ConfigurationError(
                "labels of the training and held-out images: expected both or none"
            )
    classes = 4
    if labels is not None:
        # A small set may hold classes out that it has no training image of.
        known = [labels] if held_out is None or held_out[1] is None else [labels, held_out[1]]
        classes = 1 + max(int(some.max()) for some in known)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):  # layers draw their weights from the global generator
        torch.default_generator.manual_seed(seed)
        network = FeatureNetwork(images.shape[1], classes, features)
    network.to(device)
    _fit(network, images, labels, epochs=epochs, generator=generator, progress=progress)
    task = "rotation" if labels is None else "classifier"
    card = FeatureCard(
        extractor=f"{name}_{task}_f{features}",
        task=task,
        channels=images.shape[1],
        features=features,
        classes=classes,
        images=len(images),
        epochs=epochs,
        seed=seed,
        accuracy=None if held_out is None else _accuracy(network, *held_out),
        held_out=0 if held_out is None else len(held_out[0]),
        sha256=hashlib.sha256(_weight_bytes(network)).hexdigest(),
    )
    return network, card


def save_feature_network(
    folder: str | os.PathLike[str], network: FeatureNetwork, card: FeatureCard
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


def load_feature_network(
    folder: str | os.PathLike[str], device: torch.device | str = "cpu"
) -> tuple[FeatureNetwork, FeatureCard]:
    """Read what `save_feature_network` wrote; the network is in evaluation mode.

    Raises:
        ConfigurationError: A missing file, an unreadable card, or weights with another hash than
            the card's.
    """
    card_path, weights_path = Path(folder) / "card.json", Path(folder) / "model.safetensors"
    for path in (card_path, weights_path):
        if not path.is_file():
            raise ConfigurationError(f"{path}: no such file, expected a saved feature network")
    try:
        values: Any = json.loads(card_path.read_text())
    except ValueError as error:
        raise ConfigurationError(f"{card_path}: not JSON ({error})") from None
    card = read_config(FeatureCard, values, str(card_path))
    content = weights_path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != card.sha256:
        raise ConfigurationError(f"{weights_path}: sha256 is {found}, expected {card.sha256}")
    network = FeatureNetwork(card.channels, card.classes, card.features)
    network.load_state_dict(safetensors.torch.load(content))
    return network.to(device).eval(), card


def _block(inputs: int, outputs: int) -> nn.Sequential:
    """Convolution, normalisation, rectifier: the size stays."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def _check_training_set(images: Tensor, labels: Tensor | None) -> None:
    """Raise `ConfigurationError` unless images and labels can be learned from."""
    if images.dtype != torch.uint8 or images.ndim != 4 or len(images) < 2:
        raise ConfigurationError(
            f"images of type {images.dtype} and shape {tuple(images.shape)}: "
            "expected torch.uint8 and (N, C, H, W) with N >= 2"
        )
    if labels is None:
        if images.shape[2] != images.shape[3]:
            raise ConfigurationError(
                f"images of {images.shape[2]} x {images.shape[3]} pixels: "
                "learning rotations needs square ones"
            )
    elif labels.shape != images.shape[:1] or labels.is_floating_point() or labels.min() < 0:
        raise ConfigurationError(
            f"labels of type {labels.dtype} and shape {tuple(labels.shape)}: "
            f"expected integers >= 0 and ({len(images)},)"
        )


def _fit(
    network: FeatureNetwork,
    images: Tensor,
    labels: Tensor | None,
    *,
    epochs: int,
    generator: torch.Generator,
    progress: Callable[[int, int, float], object] | None,
) -> None:
    """Minimise the cross-entropy with AdamW under a warm-up and a cosine."""
    device = next(network.parameters()).device
    optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=0.02)
    batches = math.ceil(len(images) / _BATCH)
    steps = epochs * batches
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: (
            min((step + 1) / (0.1 * steps), 1.0) * (1 + math.cos(math.pi * step / steps)) / 2
        ),
    )
    network.train()
    for epoch in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        total = 0.0
        for rows in order.tensor_split(batches):
            pixels = _shift(images[rows], generator)
            pixels, targets = _examples(pixels, None if labels is None else labels[rows])
            logits = network(pixels.to(device))["logits"]
            loss = F.cross_entropy(logits, targets.to(device), label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += loss.item()
        if progress is not None:
            progress(epoch + 1, epochs, total / batches)
    network.eval()


def _examples(pixels: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return images with their classes; without labels, all four rotations of each image."""
    if labels is not None:
        return pixels, labels.long()
    turned = torch.cat([torch.rot90(pixels, turns, (2, 3)) for turns in range(4)])
    return turned, torch.arange(4).repeat_interleave(len(pixels))


def _shift(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each image by up to two pixels along each axis, repeating the border."""
    count, _, height, width = pixels.shape
    offsets = torch.randint(-_LARGEST_SHIFT, _LARGEST_SHIFT + 1, (2, count, 1), generator=generator)
    rows = (torch.arange(height) + offsets[0]).clamp_(0, height - 1)
    columns = (torch.arange(width) + offsets[1]).clamp_(0, width - 1)
    images = torch.arange(count)[:, None, None]
    shifted = pixels.permute(0, 2, 3, 1)[images, rows[:, :, None], columns[:, None, :]]
    return shifted.permute(0, 3, 1, 2).contiguous()


@torch.inference_mode()
def _accuracy(network: FeatureNetwork, images: Tensor, labels: Tensor | None) -> float:
    """Return the share of images (or of their rotations) classified correctly."""
    device = next(network.parameters()).device
    correct = total = 0
    for start in range(0, len(images), 256):
        rows = slice(start, start + 256)
        pixels, targets = _examples(images[rows], None if labels is None else labels[rows])
        predicted = network(pixels.to(device))["logits"].argmax(1).cpu()
        correct += int((predicted == targets).sum())
        total += len(targets)
    return correct / total


def _weight_bytes(network: FeatureNetwork) -> bytes:
    """Return the weights file's content, which does not depend on the device."""
    state = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
    return bytes(safetensors.torch.save(state))
