"""Where pictures come from: the sources by name.

A source knows how many pictures it has before it reads any, so that a random subset can be chosen
first and nothing else is converted. Each reads what is already on disk.
"""

from __future__ import annotations

from collections.abc import Callable

from condvae.data.config import DataConfig
from condvae.data.formats.celeba import open_celeba
from condvae.data.formats.chest_xray import open_chest_xray
from condvae.data.formats.cifar10 import open_cifar10
from condvae.data.formats.digits import DigitsSource
from condvae.data.formats.edges import open_edges
from condvae.data.formats.faces import open_faces
from condvae.data.formats.idx import open_idx
from condvae.data.formats.image_folder import open_image_folder
from condvae.data.formats.imagenet import open_imagenet
from condvae.data.formats.npz import NpzSource
from condvae.data.formats.photographs import PhotographSource
from condvae.data.formats.source import ImageSource, SourceImage
from condvae.data.formats.webdataset import open_webdataset

__all__ = ["SOURCES", "ImageSource", "SourceImage", "open_source"]

SOURCES: dict[str, Callable[[DataConfig], ImageSource]] = {
    "digits": DigitsSource,
    "photographs": PhotographSource,
    "npz": NpzSource,
    "image_folder": open_image_folder,
    "webdataset": open_webdataset,
    "mnist": open_idx,
    "fashion_mnist": open_idx,
    "cifar10": open_cifar10,
    "imagenet32": open_imagenet,
    "imagenet64": open_imagenet,
    "ffhq": open_faces,
    "celeba": open_celeba,
    "celebahq": open_faces,
    "edges2shoes": open_edges,
    "edges2handbags": open_edges,
    "chest_xray14": open_chest_xray,
}


def open_source(config: DataConfig) -> ImageSource:
    """Open the source that `config` names.

    Raises:
        ConfigurationError: It is missing or does not look as expected.
    """
    return SOURCES[config.source](config)
