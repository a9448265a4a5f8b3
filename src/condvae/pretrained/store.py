"""Pretrained models by name.

A card in ``cards.yaml`` says where a model is, the sha256 of its weights, and what it is for. Models
of this version come with the package, so that everything works on a fresh clone.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import yaml

from condvae.configuration import ConfigurationError, read_config
from condvae.files import sha256_of_file

__all__ = ["PretrainedCard", "find_model", "read_cards"]


@dataclass(frozen=True)
class PretrainedCard:
    """One entry of ``cards.yaml``.

    Attributes:
        kind: ``vae`` or ``posterior``.
        folder: Model folder inside the package.
        sha256: Of its ``model.safetensors``.
        description: One sentence.
    """

    kind: str
    folder: str
    sha256: str
    description: str


def read_cards() -> dict[str, PretrainedCard]:
    """All registered models by name."""
    text = (files("condvae.pretrained") / "cards.yaml").read_text()
    entries = yaml.safe_load(text) or {}
    return {name: read_config(PretrainedCard, entry, name) for name, entry in entries.items()}


def find_model(name_or_path: str) -> Path:
    """Folder of a registered model, or of a path to a model folder.

    Raises:
        ConfigurationError: Neither; or a bundled file that does not have its sha256.
    """
    cards = read_cards()
    if name_or_path in cards:
        card = cards[name_or_path]
        folder = Path(str(files("condvae.pretrained") / card.folder))
        weights = folder / "model.safetensors"
        if not weights.is_file():
            raise ConfigurationError(f"{name_or_path}: {weights} is missing from the installation")
        found = sha256_of_file(weights)
        if found != card.sha256:
            raise ConfigurationError(
                f"{name_or_path}: {weights} has sha256 {found[:12]}..., expected "
                f"{card.sha256[:12]}...: the installation is damaged"
            )
        return folder
    folder = Path(name_or_path)
    if not folder.is_dir():
        raise ConfigurationError(
            f"model {name_or_path!r}: neither a registered name ({', '.join(sorted(cards))}) nor a "
            "model folder. A VAE of your own is made by `kedro run --pipeline=pretrain`"
        )
    return folder
