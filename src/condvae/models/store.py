"""Pretrained models by name: where their files are, fetched once and checked every time.

A card in ``cards.yaml`` says where a model is, the sha256 of its weights, and what it is for. Some
models come with the package, so that everything works on a fresh clone; published checkpoints are
fetched into a cache folder. Their hashes are not published: the first file that is accepted under a
name is pinned in the folder's lock file, and nothing else is accepted under that name afterwards.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from condvae.ground.configuration import ConfigurationError
from condvae.ground.files import sha256_of_file
from condvae.models.registry import PretrainedCard, bundled_folder, card_named, read_cards
from condvae.transport.cache import CACHE_VARIABLE, cache_folder
from condvae.transport.download import DownloadError, Patience, Progress
from condvae.transport.hub import fetch_hub_model
from condvae.transport.hub_address import is_hub_address
from condvae.transport.lock import LOCK_FILE, held
from condvae.transport.published import PublishedFile, expected_sha256, obtain_file, pin_file

__all__ = ["fetch", "find_model"]


log = logging.getLogger(__name__)


def find_model(name_or_path: str, cache: str | os.PathLike[str] | None = None) -> Path:
    """Folder of a registered model, of a model on the hub, or of a path to a model folder.

    Args:
        name_or_path: Registered name, ``hf://OWNER/NAME[@REVISION][/FOLDER]`` (see
            `condvae.transport.hub`; fetched when it is not there yet), or a folder.
        cache: Where fetched models lie; see `cache_folder`.

    Raises:
        ConfigurationError: None of these; or a bundled file that does not have its sha256; or a
            published checkpoint, which is a file; or a model that cannot be fetched.
    """
    if is_hub_address(name_or_path):
        return fetch_hub_model(name_or_path, cache_folder(cache))
    cards = read_cards()
    if name_or_path in cards:
        return _bundled(name_or_path, cards[name_or_path])
    folder = Path(name_or_path)
    if not folder.is_dir():
        raise ConfigurationError(
            f"model {name_or_path!r}: neither a registered name ({', '.join(sorted(cards))}) nor a "
            "model folder, nor hf://OWNER/NAME. A VAE of your own is made by `kedro run "
            "--pipeline=pretrain`"
        )
    return folder


def _bundled(name: str, card: PretrainedCard) -> Path:
    """Folder of a model of the package, its weights checked."""
    if card.folder is None:
        raise ConfigurationError(
            f"model {name!r} is a published checkpoint in the official layout, not a model folder: "
            f"get it with condvae.models.fetch({name!r}, allow_unpinned=True) and load the file "
            f"with preset {card.preset!r}"
        )
    folder = bundled_folder(card)
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise ConfigurationError(f"{name}: {weights} is missing from the installation")
    found = sha256_of_file(weights)
    if found != card.sha256:
        raise ConfigurationError(
            f"{name}: {weights} has sha256 {found[:12]}..., expected "
            f"{str(card.sha256)[:12]}...: the installation is damaged"
        )
    return folder


def fetch(
    name: str,
    cache_dir: str | os.PathLike[str] | None = None,
    allow_unpinned: bool = False,
    *,
    patience: Patience | None = None,
    progress: Progress | None = None,
) -> Path:
    """Return the checked file of a published checkpoint, downloading it when it is not there.

    A file put in its place by hand is checked the same way. For a model of the package its folder is
    returned.

    Args:
        name: Registered name.
        cache_dir: See `cache_folder`.
        allow_unpinned: Accept a file whose sha256 nobody has stated yet, and pin it.
        patience: Timeouts and attempts of the download.
        progress: Called with bytes there and bytes in all; None shows a bar.

    Raises:
        ConfigurationError: Unknown name, no sha256 known and none allowed to be pinned, a file with
            another sha256, or a download that failed: then the message says which file goes where.
    """
    card = card_named(name)
    if card.folder is not None:
        return _bundled(name, card)
    if card.known_mismatch is not None:
        log.warning("%s: %s", name, card.known_mismatch)
    folder = cache_folder(cache_dir)
    target = folder / card.file_name
    file = PublishedFile(
        name, card.address, card.sha256, megabytes=card.megabytes, stated_by="the model's card"
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with held(folder):
            sha256, _ = expected_sha256(file, folder)
            if sha256 is None and not allow_unpinned:
                raise ConfigurationError(
                    f"{name}: nobody publishes its sha256, so the first file cannot be checked. Set "
                    f"allow_unpinned=true (`weights.allow_unpinned` of the pipelines) to accept it "
                    f"this once; its sha256 is then written to {folder / LOCK_FILE} and any "
                    "other file is refused from then on"
                )
            obtained = obtain_file(file, target, patience=patience, progress=progress)
            pin_file(file, target, obtained)
    except DownloadError as error:
        size = f" (about {card.megabytes} MB)" if card.megabytes is not None else ""
        raise ConfigurationError(
            f"{name} could not be fetched: {error}. By hand: get {card.address}{size} on a machine "
            f"that can, put it at {target} and run the same again; it is checked the same way"
        ) from error
    except OSError as error:
        raise ConfigurationError(
            f"cache folder {folder} cannot be used ({error.strerror or error}): give another one, "
            f"or set {CACHE_VARIABLE}"
        ) from error
    return target
