"""Addresses on the Hugging Face hub.

``hf://OWNER/NAME[@REVISION][/FOLDER]`` is a model, ``hf://datasets/OWNER/NAME[@REVISION][/FOLDER]`` a
data set. A revision is a branch, a tag or a commit; a slash in its name is written ``%2F``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from importlib.util import find_spec
from urllib.parse import quote, unquote

from condvae.ground.configuration import ConfigurationError

__all__ = [
    "DATASETS",
    "MODELS",
    "HubAddress",
    "check_hub_address",
    "is_hub_address",
    "is_inside",
    "parse_hub_address",
]

MODELS, DATASETS = "models", "datasets"
FORMS = {
    MODELS: "hf://OWNER/NAME[@REVISION][/FOLDER]",
    DATASETS: "hf://datasets/OWNER/NAME[@REVISION][/FOLDER]",
}

# Owner and name may not hold "--" or "..", as on the hub itself; folders below the cache rely on it.
_NAME = r"(?![\w.-]*(?:--|\.\.))[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9_])?"
_ADDRESS = re.compile(
    rf"hf://(?P<datasets>datasets/)?(?!(?:datasets|models|spaces)/)(?P<owner>{_NAME})/(?P<name>{_NAME})"
    r"(?:@(?P<revision>[\w.%-]+))?(?:/(?P<folder>[^@\\\x00-\x1f]+))?",
    re.ASCII,
)


@dataclass(frozen=True)
class HubAddress:
    """Part of a repository on the hub.

    Attributes:
        kind: ``models`` or ``datasets``.
        owner: User or organisation.
        name: Of the repository.
        revision: Branch, tag or commit; None = the branch ``main``.
        folder: Inside the repository; empty for all of it.
    """

    kind: str
    owner: str
    name: str
    revision: str | None = None
    folder: str = ""

    def __str__(self) -> str:
        prefix = "datasets/" if self.kind == DATASETS else ""
        revision = f"@{quote(self.revision, safe='')}" if self.revision else ""
        folder = f"/{self.folder}" if self.folder else ""
        return f"hf://{prefix}{self.repository}{revision}{folder}"

    @property
    def repository(self) -> str:
        """``OWNER/NAME``."""
        return f"{self.owner}/{self.name}"

    def at_commit(self, commit: str) -> HubAddress:
        """The same part at one commit."""
        return replace(self, revision=commit)


def is_hub_address(text: str) -> bool:
    """Whether `text` is meant as an address on the hub; a wrong one is, too."""
    return text.startswith("hf:")


def parse_hub_address(text: str, kind: str) -> HubAddress:
    """Take an address apart.

    Args:
        text: The address.
        kind: ``models`` or ``datasets``, whichever will do.

    Raises:
        ConfigurationError: Any other form than the two of this module, or the other kind.
    """
    found = _ADDRESS.fullmatch(text)
    revision = unquote(found["revision"]) if found and found["revision"] else None
    if found is None or not _is_revision(revision) or not is_inside(found["folder"]):
        raise ConfigurationError(f"{text!r}: expected {FORMS[kind]}")
    kind_found = DATASETS if found["datasets"] else MODELS
    if kind_found != kind:
        what = {MODELS: "a model", DATASETS: "a data set"}
        raise ConfigurationError(
            f"{text!r} is the address of {what[kind_found]}; expected {what[kind]}, {FORMS[kind]}"
        )
    return HubAddress(kind, found["owner"], found["name"], revision, found["folder"] or "")


def check_hub_address(text: str, kind: str) -> HubAddress:
    """Parse an address, and refuse it where the optional extra is not installed.

    Raises:
        ConfigurationError: See `parse_hub_address`; or the extra is missing.
    """
    address = parse_hub_address(text, kind)
    if find_spec("huggingface_hub") is None:
        raise ConfigurationError(
            f'{text}: the package huggingface_hub is not installed; pip install "condvae[hub]"'
        )
    return address


def _is_revision(revision: str | None) -> bool:
    return revision is None or bool(re.fullmatch(r"(?!.*\.\.)[\w.-]+(/[\w.-]+)*", revision))


def is_inside(path: str | None) -> bool:
    """Whether a path stays below the folder it starts at; an empty one (None) does."""
    return path is None or not ({"", ".", ".."} & set(path.split("/")) or "\\" in path)
