"""From images to features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from condvae.ground.configuration import ConfigurationError, check_choice, check_positive
from condvae.scores.feature_network import LAYERS

__all__ = ["extract_features"]


@torch.inference_mode()
def extract_features(
    network: nn.Module,
    images: NDArray[np.uint8] | Tensor,
    batch_size: int = 256,
    layers: Sequence[str] = ("features",),
) -> dict[str, NDArray[np.float32]]:
    """Run images through a feature network.

    Args:
        network: A `FeatureNetwork`, or any module that turns uint8 (B,C,H,W) into a dict of layers
            and names them in its attribute ``layers``. In evaluation mode, so that no image depends
            on the others of its batch.
        images: uint8 (N,C,H,W).
        batch_size: Images at once; does not change the result beyond rounding.
        layers: Names out of the network's layers.

    Returns:
        Layer name -> float32 (N,...), in the order of `layers`.

    Raises:
        ConfigurationError: No images, unknown layer, network in training mode, or images the
            network does not take.
    """
    check_positive("batch_size", batch_size)
    for layer in layers:
        check_choice("layers", layer, getattr(network, "layers", LAYERS))
    if network.training:
        raise ConfigurationError("the feature network is in training mode: call its eval() first")
    if len(images) == 0:
        raise ConfigurationError("no images: expected at least one")
    device = next(network.parameters()).device
    parts: dict[str, list[NDArray[np.float32]]] = {layer: [] for layer in layers}
    for start in range(0, len(images), batch_size):
        batch = torch.as_tensor(np.asarray(images[start : start + batch_size]))
        output = network(batch.to(device))
        for layer in layers:
            parts[layer].append(output[layer].float().cpu().numpy())
    return {layer: np.concatenate(values) for layer, values in parts.items()}
