"""Published networks whose features metrics are defined on, with weights from files that are there.

The backbones of LPIPS (Zhang et al. 2018) are torchvision's; its learned channel weights are a file
of their own. The Inception network is torch-fidelity's, which reproduces that of Heusel et al. 2017.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from condvae.ground.configuration import ConfigurationError, check_choice

__all__ = ["BACKBONES", "InceptionNetwork", "LpipsBackbone", "read_heads"]

BACKBONES: Mapping[str, tuple[str, tuple[int, ...], int]] = {
    "alex": ("alexnet", (1, 4, 7, 9, 11), 31),
    "vgg": ("vgg16", (3, 8, 15, 22, 29), 16),
    "squeeze": ("squeezenet1_1", (1, 4, 7, 9, 10, 11, 12), 17),
}
"""LPIPS name -> torchvision's name, numbers of the layers compared, least image side in pixels."""

# LPIPS 0.1 shifts and scales images in [-1, 1] by these.
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)


class LpipsBackbone(nn.Module):
    """The layers of a torchvision network that LPIPS compares.

    Args:
        kind: ``alex``, ``vgg`` or ``squeeze``.
        path: torchvision's file of the network's weights, or one of its ``features`` only.

    Attributes:
        layers: Names of the layers, ``relu1`` and so on.

    Raises:
        ConfigurationError: Unknown kind, or a file of something else.
    """

    def __init__(self, kind: str, path: str | os.PathLike[str]) -> None:
        import torchvision

        super().__init__()
        check_choice("LPIPS network", kind, BACKBONES)
        name, self._taps, self._least_side = BACKBONES[kind]
        self.layers = tuple(f"relu{i + 1}" for i in range(len(self._taps)))
        state = {
            key.removeprefix("features."): value
            for key, value in _read_state(path).items()
            if key.startswith("features.")
        }
        # Neither memory nor randomness for weights that are replaced at once.
        with torch.device("meta"):
            network = torchvision.models.get_model(name, weights=None)
        self.features = network.features[: self._taps[-1] + 1]
        try:
            self.features.load_state_dict(state, assign=True)
        except RuntimeError as error:
            raise _foreign_file(path, f"the weights of torchvision's {name}", error) from None
        self.float().eval().requires_grad_(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the compared layers.

        Args:
            images: uint8 (B,C,H,W), C 3, or 1 to be repeated. Not resized.

        Returns:
            Layer -> (B,C',H',W'), not yet scaled to length one.

        Raises:
            ConfigurationError: Images of another type or shape, or too small.
        """
        pixels = _as_colour(images)
        if min(images.shape[2:]) < self._least_side:
            raise ConfigurationError(
                f"images of {images.shape[2]} x {images.shape[3]} pixels: this network needs at "
                f"least {self._least_side} a side"
            )
        shift, scale = pixels.new_tensor([_SHIFT, _SCALE], dtype=torch.float32)[:, :, None, None]
        x = (pixels.float() / 127.5 - 1 - shift) / scale
        found = []
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in self._taps:
                found.append(x)
        return dict(zip(self.layers, found, strict=True))


class InceptionNetwork(nn.Module):
    """torch-fidelity's Inception-v3, its pooled features (D = 2048).

    Images are resized to 299 x 299 as TensorFlow 1 does: bilinear, no antialiasing, pixel grids
    aligned at the corner.

    Args:
        path: torch-fidelity's file of the weights.

    Attributes:
        layers: ``("features",)``.

    Raises:
        ConfigurationError: A file of something else.
    """

    layers = ("features",)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        super().__init__()
        _read_state(path)  # torch-fidelity would run a malicious file, this refuses it
        with torch.random.fork_rng(devices=[]):
            try:
                self.network = FeatureExtractorInceptionV3(
                    "inception", ["2048"], feature_extractor_weights_path=str(path)
                )
            except RuntimeError as error:
                raise _foreign_file(
                    path, "the weights of torch-fidelity's Inception", error
                ) from None
        self.eval()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the features.

        Args:
            images: uint8 (B,C,H,W), C 3, or 1 to be repeated.

        Returns:
            ``features`` float32 (B,2048).

        Raises:
            ConfigurationError: Images of another type or shape.
        """
        return {"features": self.network(_as_colour(images))[0]}


def read_heads(path: str | os.PathLike[str], layers: int) -> list[NDArray[np.float32]]:
    """Read the learned channel weights of LPIPS.

    Args:
        path: A file of the lpips package, ``weights/v0.1/alex.pth`` say.
        layers: Number of layers expected.

    Returns:
        Weights (C,) per layer.

    Raises:
        ConfigurationError: A file of something else.
    """
    state = _read_state(path)
    names = [f"lin{i}.model.1.weight" for i in range(layers)]
    if sorted(state) != sorted(names):
        raise _foreign_file(path, f"LPIPS weights of {layers} layers", sorted(state))
    return [state[name].flatten().numpy() for name in names]


def _as_colour(images: Tensor) -> Tensor:
    """Return (B,3,H,W), grey images repeated."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ConfigurationError(
            f"images of type {images.dtype} and shape {tuple(images.shape)}: "
            "expected torch.uint8 and (B, C, H, W) with C 1 or 3"
        )
    return images.expand(-1, 3, -1, -1)


def _read_state(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read tensors by name, and nothing else."""
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise _foreign_file(path, "a file of weights", error) from None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise _foreign_file(path, "a file of weights", type(state).__name__)
    return state


def _foreign_file(path: str | os.PathLike[str], expected: str, found: object) -> ConfigurationError:
    reason = " ".join(str(found).split())[:200]
    return ConfigurationError(f"{Path(path)}: expected {expected} ({reason})")
