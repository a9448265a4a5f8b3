"""Cards: what is known of every pretrained model before its weights are there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath

import yaml

from condvae.ground.configuration import (
    ConfigurationError,
    check_choice,
    check_positive,
    read_config,
)
from condvae.ground.images import DataContract

__all__ = ["PretrainedCard", "bundled_folder", "card_named", "read_cards"]

KINDS = ("vae", "posterior")


@dataclass(frozen=True)
class PretrainedCard:
    """One entry of ``cards.yaml``: a model folder in the package, or a checkpoint published elsewhere.

    Attributes:
        kind: ``vae`` or ``posterior``.
        description: One sentence.
        folder: Model folder inside the package; None for a published checkpoint.
        sha256: Of ``model.safetensors`` in `folder`, or of the published file; None where no hash
            is published.
        host: First part of the published file's address.
        path: The rest of it.
        preset: Name of the architecture and training settings the file was made with.
        data_contract: What the model expects of its images.
        licence: Of the published file.
        megabytes: Its size, about.
        expected_bits_per_dim: Published score.
        scored_on: The images of that score.
        known_mismatch: Why the file is expected not to fit its preset, None when nothing is known.
    """

    kind: str
    description: str
    folder: str | None = None
    sha256: str | None = None
    host: str | None = None
    path: str | None = None
    preset: str | None = None
    data_contract: DataContract | None = None
    licence: str | None = None
    megabytes: int | None = None
    expected_bits_per_dim: float | None = None
    scored_on: str | None = None
    known_mismatch: str | None = None

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, KINDS)
        if self.sha256 is not None and not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ConfigurationError(f"sha256 = {self.sha256!r}: expected 64 hexadecimal digits")
        for name in ("megabytes", "expected_bits_per_dim"):
            if (value := getattr(self, name)) is not None:
                check_positive(name, value)
        if self.folder is not None:
            if self.sha256 is None:
                raise ConfigurationError("sha256 = None: a model of the package needs its hash")
            if self.host is not None or self.path is not None:
                raise ConfigurationError("folder and host or path: expected one or the other")
            return
        for name in ("host", "path", "preset", "data_contract", "licence"):
            if getattr(self, name) is None:
                raise ConfigurationError(f"{name} = None: a published checkpoint needs it")

    @property
    def address(self) -> str:
        """Where the published file is. Only for cards without `folder`."""
        return f"{self.host}/{self.path}"

    @property
    def file_name(self) -> str:
        """Name of the published file in a cache folder. Only for cards without `folder`."""
        return PurePosixPath(str(self.path)).name


def read_cards() -> dict[str, PretrainedCard]:
    """All registered models by name."""
    text = (files("condvae.models") / "cards.yaml").read_text()
    entries = yaml.safe_load(text) or {}
    return {name: read_config(PretrainedCard, entry, name) for name, entry in entries.items()}


def card_named(name: str) -> PretrainedCard:
    """Return one card.

    Raises:
        ConfigurationError: The name is not registered; the message lists those that are.
    """
    cards = read_cards()
    check_choice("pretrained model", name, sorted(cards))
    return cards[name]


def bundled_folder(card: PretrainedCard) -> Path:
    """Where in the installation a model of the package is."""
    return Path(str(files("condvae.models") / str(card.folder)))
