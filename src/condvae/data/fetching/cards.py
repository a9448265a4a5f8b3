"""Cards: what is known of every published data set before its files are there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePosixPath

import yaml

from condvae.data.fetching.archives import SUFFIXES
from condvae.ground.configuration import (
    ConfigurationError,
    check_choice,
    check_positive,
    read_config,
)

__all__ = ["UNPACKED", "DatasetCard", "DatasetFile", "card_named", "read_cards"]

UNPACKED = "unpacked"
DIGITS = {"sha256": 64, "md5": 32}


@dataclass(frozen=True)
class DatasetFile:
    """One published file of a data set.

    Attributes:
        name: Its name in the data set's folder.
        address: Where it is fetched; None where that takes a person (a login, a form, a host that
            only serves browsers).
        sha256: None where nobody states it.
        md5: None where nobody states it.
        megabytes: Its size, about, in 10^6 bytes.
        unpack: Whether it is an archive whose contents are needed.
    """

    name: str
    address: str | None = None
    sha256: str | None = None
    md5: str | None = None
    megabytes: float | None = None
    unpack: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w.-]*", self.name) or self.name == UNPACKED:
            raise ConfigurationError(f"name = {self.name!r}: expected a plain file name")
        if self.address is not None and not re.match("https?://", self.address):
            raise ConfigurationError(f"address = {self.address!r}: expected http:// or https://")
        for field, digits in DIGITS.items():
            value = getattr(self, field)
            if value is not None and not re.fullmatch(f"[0-9a-f]{{{digits}}}", value):
                raise ConfigurationError(
                    f"{field} = {value!r}: expected {digits} hexadecimal digits"
                )
        if self.megabytes is not None:
            check_positive("megabytes", self.megabytes)
        if self.unpack and not self.name.endswith(SUFFIXES):
            raise ConfigurationError(f"unpack: {self.name!r} does not end in {', '.join(SUFFIXES)}")


@dataclass(frozen=True)
class DatasetCard:
    """One entry of ``cards.yaml``.

    Attributes:
        description: One sentence.
        page: Where the data set is described, and where a person finds its files.
        licence: Name of the licence, or what is said in place of one.
        files: What is fetched or placed by hand.
        path: What a source is given: relative to the folder of the files, or, when any of them is
            unpacked, to the folder they are unpacked to.
        terms: What use is bound to; such a set needs consent. None where any use is allowed or
            nothing is said.
    """

    description: str
    page: str
    licence: str
    files: tuple[DatasetFile, ...]
    path: str = "."
    terms: str | None = None

    def __post_init__(self) -> None:
        names = [file.name.casefold() for file in self.files]
        if not names or len(set(names)) != len(names):
            raise ConfigurationError(f"files = {names}: expected at least one, each name once")
        path = PurePosixPath(self.path)
        if path.is_absolute() or ".." in path.parts:
            raise ConfigurationError(f"path = {self.path!r}: expected a relative path")

    @property
    def is_unpacked(self) -> bool:
        """Whether any file is an archive whose contents are needed."""
        return any(file.unpack for file in self.files)


def read_cards() -> dict[str, DatasetCard]:
    """All registered data sets by name."""
    text = (files("condvae.data.fetching") / "cards.yaml").read_text()
    entries = yaml.safe_load(text) or {}
    return {name: read_config(DatasetCard, entry, name) for name, entry in entries.items()}


def card_named(name: str) -> DatasetCard:
    """Return one card.

    Raises:
        ConfigurationError: The name is not registered; the message lists those that are.
    """
    cards = read_cards()
    check_choice("data set", name, sorted(cards))
    return cards[name]
