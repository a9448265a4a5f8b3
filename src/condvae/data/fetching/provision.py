"""What `data.path` names, or in its place the published data set of that name.

A path whose last part is the name of a published data set, such as ``data/01_raw/cifar10``, is also
where that set is fetched to and where its files are placed by hand. Any other path only holds what
someone has put there, but of shards it may be their address, and of several sources an address on the
hub, see `condvae.transport.hub`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from condvae.data.config import DataConfig
from condvae.data.fetching.cards import UNPACKED, DatasetCard, read_cards
from condvae.data.fetching.shards import fetch_shards, is_address, list_addresses
from condvae.data.fetching.store import LOCK_FILE, check_licence, fetch_dataset
from condvae.data.formats.files import EXTENSIONS
from condvae.data.sources import open_source
from condvae.ground.configuration import ConfigurationError
from condvae.transport.cache import cache_folder
from condvae.transport.download import Patience, Progress
from condvae.transport.hub import fetch_hub_files
from condvae.transport.hub_address import check_hub_address, is_hub_address

__all__ = ["check_obtainable", "provide_pictures"]

NAMED_IN_ERRORS = 3
# What is fetched from a data set on the hub: by source, files with these endings.
FROM_HUB = {
    "image_folder": EXTENSIONS,
    "photographs": EXTENSIONS,
    "npz": (".npz",),
    "webdataset": (".tar",),
}


def check_obtainable(config: DataConfig, base: Path = Path()) -> None:
    """Refuse a data set that is not there and cannot be fetched, or whose terms were not accepted.

    Args:
        config: The data set.
        base: Folder that a relative path starts at.

    Raises:
        ConfigurationError: Says what is missing and, of a published data set, how it gets there.
    """
    if config.path is None:
        return
    if is_hub_address(config.path):
        if config.source not in FROM_HUB:
            raise ConfigurationError(
                f"data.path = {config.path!r}: source {config.source!r} is not read from the hub; "
                f"expected one of {', '.join(FROM_HUB)}"
            )
        address = check_hub_address(config.path, "datasets")
        one = address.folder.lower().endswith(FROM_HUB[config.source])
        if one != (config.source == "npz"):
            what, form = ("a folder", "[/FOLDER]") if one else ("one file", "/FILE.npz")
            raise ConfigurationError(
                f"data.path = {config.path!r}: source {config.source!r} is {what}; expected "
                f"hf://datasets/OWNER/NAME[@REVISION]{form}"
            )
        return
    if is_address(config):
        list_addresses(config.path)
        return
    card = read_cards().get(config.source)
    if card is not None and card.terms is not None and not config.accept_licence:
        check_licence(config.source, accept_licence=False)
    path = base / config.path
    if path.exists() and (card is None or _has_content(path)):
        return
    missing = f"data.path = {config.path!r}: no such file or folder"
    if card is None:
        raise ConfigurationError(missing)
    if path.name != config.source:
        raise ConfigurationError(
            f"{missing}; {config.source} is only obtained for a path that ends in {config.source!r}"
        )
    if not all(file.address for file in card.files):
        names = [file.name for file in card.files]
        named = ", ".join(names[:NAMED_IN_ERRORS])
        named += f" and {len(names) - NAMED_IN_ERRORS} more" * (len(names) > NAMED_IN_ERRORS)
        raise ConfigurationError(
            f"{missing}; {config.source} cannot be fetched without a person: put {named} from "
            f"{card.page} there, as they are"
        )


def provide_pictures(
    config: DataConfig, *, patience: Patience | None = None, progress: Progress | None = None
) -> DataConfig:
    """Return the data set with the path of its pictures, which are there afterwards.

    What is at the path already is taken. Otherwise a published data set is fetched, or unpacked from
    the files placed there by hand, see `fetch_dataset`; of shards at an address see `fetch_shards`, of
    a data set on the hub `fetch_hub_files`.

    Args:
        config: The data set.
        patience: Timeouts and attempts of each download.
        progress: See `fetch_dataset`.

    Raises:
        ConfigurationError: See `check_obtainable` and these functions.
    """
    check_obtainable(config)
    if config.path is not None and is_hub_address(config.path):
        path = fetch_hub_files(
            config.path,
            FROM_HUB[config.source],
            cache_folder(),
            nested=config.source != "webdataset",  # of a folder, shards are what lies in it
            patience=patience,
            progress=progress,
        )
        return dataclasses.replace(config, path=str(path))
    if is_address(config):
        return fetch_shards(config, patience=patience, progress=progress)
    card = read_cards().get(config.source)
    if config.path is None or card is None:
        return config
    path = Path(config.path)
    if path.name != config.source or not _is_to_be_fetched(config, card, path):
        check_licence(config.source, config.accept_licence)
        return config
    obtained = fetch_dataset(
        config.source,
        path.parent,
        accept_licence=config.accept_licence,
        allow_unpinned=config.allow_unpinned,
        patience=patience,
        progress=progress,
    )
    return dataclasses.replace(config, path=str(obtained))


def _has_content(path: Path) -> bool:
    return not path.is_dir() or any(path.iterdir())


def _is_to_be_fetched(config: DataConfig, card: DatasetCard, home: Path) -> bool:
    """Whether nothing, or the published files but not yet the pictures themselves, are at `home`."""
    if not home.exists() or not _has_content(home) or (home / UNPACKED).exists():
        return True
    # Unfinished downloads lie beside a lock. Without any of these someone's own files are there, and
    # what is wrong with them is for the source to say.
    files = (file.name for file in card.files if file.unpack or not card.is_unpacked)
    signs = (".lock", LOCK_FILE, *files)
    if not any((home / sign).exists() for sign in signs):
        return False
    try:
        open_source(config)
    except ConfigurationError:
        return True
    return False
