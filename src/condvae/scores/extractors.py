"""Feature networks by name, with weights from files whose hashes are checked; nothing is fetched.

A score means something only beside the name of what produced its features. Names end in the first
eight digits of the sha256 of the weights, and a published name is given to published weights only.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from condvae.ground.configuration import ConfigurationError, check_choice, check_positive
from condvae.ground.files import sha256_of_file
from condvae.scores.extraction import extract_features
from condvae.scores.feature_network import load_feature_network
from condvae.scores.perceptual import perceptual_embedding
from condvae.scores.published_networks import (
    BACKBONES,
    InceptionNetwork,
    LpipsBackbone,
    read_heads,
)
from condvae.transport.cache import cache_folder

__all__ = [
    "WEIGHTS",
    "Extractor",
    "WeightsCard",
    "extractor_names",
    "load_extractor",
    "register_extractor",
]

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class WeightsCard:
    """A published file of weights.

    Attributes:
        file: Its name in the cache folder.
        sha256: Of its content; `None` where nobody publishes it.
        source: Where to get it.
    """

    file: str
    sha256: str | None
    source: str


_TORCHVISION = "https://download.pytorch.org/models/"
_LPIPS = "the package lpips (pip install lpips), lpips/weights/v0.1/"

WEIGHTS: Mapping[str, WeightsCard] = {
    "inception": WeightsCard(
        "weights-inception-2015-12-05-6726825d.pth",
        "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
        "weights-inception-2015-12-05-6726825d.pth",
    ),
    "alex": WeightsCard(
        "alexnet-owt-7be5be79.pth",
        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        _TORCHVISION + "alexnet-owt-7be5be79.pth",
    ),
    "vgg": WeightsCard(
        "vgg16-397923af.pth",
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        _TORCHVISION + "vgg16-397923af.pth",
    ),
    "squeeze": WeightsCard(
        "squeezenet1_1-b8a52dc0.pth",
        "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
        _TORCHVISION + "squeezenet1_1-b8a52dc0.pth",
    ),
    "alex_heads": WeightsCard(
        "lpips-v0.1-alex.pth",
        "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
        _LPIPS + "alex.pth",
    ),
    "vgg_heads": WeightsCard(
        "lpips-v0.1-vgg.pth",
        "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
        _LPIPS + "vgg.pth",
    ),
    "squeeze_heads": WeightsCard(
        "lpips-v0.1-squeeze.pth",
        "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76",
        _LPIPS + "squeeze.pth",
    ),
}
"""Files of weights by the name of what they belong to; ``*_heads`` are LPIPS' channel weights."""


@dataclass(frozen=True)
class Extractor:
    """A network and what metrics take from it.

    Attributes:
        name: What tables call it, with the hash of its weights.
        resizer: How images are brought to the network's size, ``none`` if they are not.
        network: uint8 (B,C,H,W) -> dict of layers, in evaluation mode.
        feature_layer: Layer (B,D) for scores of sets; `None` when it is for distances only.
        map_layers: Layers (B,C,H,W) for perceptual distances; empty when it is for features only.
        map_weights: Layer -> (C,) weights of the distance, `None` for 1.
        sha256: Of the weights, with a comma between those of LPIPS' backbone and channel weights;
            `None` where it is not known.
    """

    name: str
    resizer: str
    network: nn.Module
    feature_layer: str | None = None
    map_layers: tuple[str, ...] = ()
    map_weights: Mapping[str, NDArray[np.float32]] | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", self.name):
            raise ConfigurationError(
                f"extractor name {self.name!r}: expected letters, digits, '_', '.' and '-'"
            )

    def features(
        self, images: NDArray[np.uint8] | Tensor, batch_size: int = 64
    ) -> NDArray[np.float32]:
        """Return the features of images.

        Args:
            images: uint8 (N,C,H,W).
            batch_size: Images at once.

        Returns:
            float32 (N,D).

        Raises:
            ConfigurationError: An extractor without features, or images that it does not take.
        """
        if self.feature_layer is None:
            raise ConfigurationError(f"extractor {self.name} gives perceptual distances only")
        layer = self.feature_layer
        return extract_features(self.network, images, batch_size, (layer,))[layer]

    def embed(
        self, images: NDArray[np.uint8] | Tensor, batch_size: int = 64
    ) -> NDArray[np.float32]:
        """Return vectors whose squared Euclidean distance is the perceptual distance of images.

        They are large: of a 256 x 256 image 2 MB with AlexNet and 33 MB with VGG.

        Args:
            images: uint8 (N,C,H,W).
            batch_size: Images at once.

        Returns:
            float32 (N,E).

        Raises:
            ConfigurationError: An extractor without distances, or images that it does not take.
        """
        if not self.map_layers:
            raise ConfigurationError(f"extractor {self.name} gives features only, no distances")
        check_positive("batch_size", batch_size)
        found = np.empty((0, 0), np.float32)
        for start in range(0, max(len(images), 1), batch_size):
            part = images[start : start + batch_size]
            maps = extract_features(self.network, part, batch_size, self.map_layers)
            rows = perceptual_embedding(maps, self.map_weights)
            if start == 0:  # joining the parts at the end would hold all of them twice
                found = np.empty((len(images), rows.shape[1]), np.float32)
            found[start : start + len(rows)] = rows
        return found


Build = Callable[[Path | None, torch.device], Extractor]
_registered: dict[str, Build] = {}


def register_extractor(name: str, build: Build) -> None:
    """Make an extractor of one's own available as ``load_extractor(name)``.

    Args:
        name: Its name in configurations. A name registered here before is replaced.
        build: Given the path of the weights (`None` when none is set) and the device, returns the
            extractor.

    Raises:
        ConfigurationError: The name of a built-in extractor.
    """
    if name in _BUILT_IN:
        raise ConfigurationError(f"extractor {name!r} is built in: expected another name")
    _registered[name] = build


def extractor_names() -> tuple[str, ...]:
    """Names that `load_extractor` takes."""
    return (*_BUILT_IN, *_registered)


def load_extractor(
    name: str,
    weights: PathLike | None = None,
    *,
    sha256: str | None = None,
    heads: PathLike | None = None,
    heads_sha256: str | None = None,
    device: torch.device | str = "cpu",
) -> Extractor:
    """Load an extractor from files that are there.

    Published weights are looked for in the cache folder (``$CONDVAE_CACHE``, else
    ``~/.cache/condvae``), LPIPS' channel weights in the installed package lpips too. Other weights of
    the same layout are taken when their hash is stated; the name then says ``like``.

    Args:
        name: ``inception``, ``lpips_alex``, ``lpips_vgg``, ``lpips_squeeze``, ``feature_network``,
            or a registered name.
        weights: File of the weights, folder of a ``feature_network``; `None` for the cache folder.
        sha256: Of `weights`, when they are not the published ones.
        heads: File of LPIPS' channel weights; `None` to look for it.
        heads_sha256: Of `heads`, when they are not the published ones.
        device: Where the network runs.

    Raises:
        ConfigurationError: Unknown name, an argument the extractor does not take, a missing file
            (the message says which, its sha256 and where it goes), another sha256, or a file of
            something else.
    """
    check_choice("extractor", name, extractor_names())
    device = torch.device(device)
    path = None if weights is None else Path(weights)
    takes = {"sha256": name in _PUBLISHED, "heads": name in _LPIPS_NAMES}
    takes["heads_sha256"] = takes["heads"]
    given = {"sha256": sha256, "heads": heads, "heads_sha256": heads_sha256}
    for argument, value in given.items():
        if value is not None and not takes[argument]:
            raise ConfigurationError(f"{argument} = {value!r}: extractor {name} does not take it")
    if name in _registered:
        return _registered[name](path, device)
    if name == "feature_network":
        return _load_feature_network(path, device)
    if name == "inception":
        found = _find(name, WEIGHTS["inception"], path, sha256)
        return Extractor(
            f"inception{found.like}_{found.digits}",
            "tf1_bilinear_299",
            InceptionNetwork(found.path).to(device),
            feature_layer="features",
            sha256=found.sha256,
        )
    return _load_lpips(
        name, path, sha256, None if heads is None else Path(heads), heads_sha256, device
    )


_LPIPS_NAMES = tuple(f"lpips_{kind}" for kind in BACKBONES)
_PUBLISHED = ("inception", *_LPIPS_NAMES)
_BUILT_IN = (*_PUBLISHED, "feature_network")


@dataclass(frozen=True)
class _Found:
    """A file that is there and has the hash it should have."""

    path: Path
    sha256: str
    like: str

    @property
    def digits(self) -> str:
        return self.sha256[:8]


def _find(
    owner: str, card: WeightsCard, path: Path | None, sha256: str | None, also: Path | None = None
) -> _Found:
    """Find and check a file: `path`, else that of the cache folder, else `also`."""
    place = path if path is not None else cache_folder() / card.file
    if path is None and not place.is_file() and also is not None and also.is_file():
        place = also
    if not place.is_file():
        raise ConfigurationError(
            f"{owner} needs {card.file} (sha256 {card.sha256 or 'not published'}), and there is no "
            f"file {place}. Get it from {card.source} and put it there, or give its path"
        )
    found = sha256_of_file(place)
    expected = sha256 or card.sha256
    if expected is not None and found != expected:
        stated = "as stated" if sha256 else "of the published file; state another to use it"
        raise ConfigurationError(
            f"{owner}: {place} has sha256 {found}, expected {expected} ({stated})"
        )
    return _Found(place, found, "" if found == card.sha256 else "_like")


def _load_lpips(
    name: str,
    weights: Path | None,
    sha256: str | None,
    heads: Path | None,
    heads_sha256: str | None,
    device: torch.device,
) -> Extractor:
    kind = name.removeprefix("lpips_")
    backbone = _find(name, WEIGHTS[kind], weights, sha256)
    calibration = _find(
        f"{name} also", WEIGHTS[f"{kind}_heads"], heads, heads_sha256, _packaged_heads(kind)
    )
    network = LpipsBackbone(kind, backbone.path).to(device)
    values = read_heads(calibration.path, len(network.layers))
    like = backbone.like or calibration.like
    digits = backbone.digits + (f"_{calibration.digits}" if like else "")
    return Extractor(
        f"lpips{like}_{kind}_{digits}",
        "none",
        network,
        map_layers=network.layers,
        map_weights=dict(zip(network.layers, values, strict=True)),
        sha256=f"{backbone.sha256},{calibration.sha256}",
    )


def _packaged_heads(kind: str) -> Path | None:
    """The file in the package lpips, which is not imported: it would fetch backbones."""
    package = importlib.util.find_spec("lpips")
    if package is None or not package.submodule_search_locations:
        return None
    return Path(package.submodule_search_locations[0]) / "weights" / "v0.1" / f"{kind}.pth"


def _load_feature_network(folder: Path | None, device: torch.device) -> Extractor:
    if folder is None:
        raise ConfigurationError(
            "weights = None: feature_network expects the folder of a saved feature network"
        )
    network, card = load_feature_network(folder, device)
    return Extractor(
        f"{card.extractor}_{card.sha256[:8]}",
        "none",
        network,
        feature_layer="features",
        map_layers=("block1", "block2", "block3"),
        sha256=card.sha256,
    )
