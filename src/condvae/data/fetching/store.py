"""Published data sets by name: fetched or placed by hand, checked, unpacked, never half there.

The files of a data set lie in a folder of its name, with their lock file; what is unpacked lies below
that in ``unpacked/``. Once that is whole, the archives are not looked at again and may be removed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from condvae.data.fetching.cards import UNPACKED, DatasetCard, DatasetFile, card_named
from condvae.data.fetching.names import ArchiveError
from condvae.data.fetching.trees import is_whole, unpack_tree
from condvae.ground.configuration import ConfigurationError
from condvae.transport.download import DownloadError, Patience, Progress
from condvae.transport.lock import held
from condvae.transport.published import PublishedFile, expected_sha256, obtain_file, pin_file

__all__ = ["LOCK_FILE", "check_licence", "fetch_dataset"]

LOCK_FILE = "files.lock.json"

log = logging.getLogger(__name__)


def fetch_dataset(
    name: str,
    folder: str | os.PathLike[str],
    *,
    accept_licence: bool = False,
    allow_unpinned: bool = False,
    patience: Patience | None = None,
    progress: Progress | None = None,
) -> Path:
    """Return the path of a published data set, fetching and unpacking what is not there yet.

    Files put in their places by hand are checked the same way as fetched ones. A run that is
    interrupted is continued by the same call: a download from where it was cut, unpacking from the
    start.

    Args:
        name: Registered name.
        folder: Where all data sets lie; this one's files go to ``folder/name``.
        accept_licence: Consent to the terms of a restricted data set.
        allow_unpinned: Accept files whose hash nobody has stated yet, and pin them.
        patience: Timeouts and attempts of each download.
        progress: Called with bytes done and bytes in all, for each file that is fetched and then for
            each that is unpacked; None shows bars.

    Returns:
        What a data source is given as its path.

    Raises:
        ConfigurationError: Unknown name, terms that were not accepted, a file with another hash than
            expected, an archive that is damaged or evil; or files that are missing and could not be
            fetched: then the message says which file goes where.
    """
    card = card_named(name)
    check_licence(name, accept_licence)
    home = Path(folder) / name
    try:
        home.mkdir(parents=True, exist_ok=True)
        with held(home):
            return _provide(name, card, home, allow_unpinned, patience, progress) / card.path
    except OSError as error:
        raise ConfigurationError(
            f"{name}: folder {home} cannot be used ({error.strerror or error})"
        ) from error


def check_licence(name: str, accept_licence: bool) -> None:
    """Say under which terms a data set may be used; stop when they need consent that is not given.

    Args:
        name: Registered name.
        accept_licence: Consent.

    Raises:
        ConfigurationError: The data set is restricted and there is no consent; the message shows the
            licence. Or the name is unknown.
    """
    card = card_named(name)
    if card.terms is None:
        log.info("%s: licence: %s (%s)", name, card.licence, card.page)
        return
    said = f"licence: {card.licence}. {card.terms} ({card.page})"
    if not accept_licence:
        raise ConfigurationError(
            f"{name} is restricted; {said}. Set data.accept_licence: true (accept_licence=True) if "
            "your use is within these terms"
        )
    log.warning("%s: terms accepted; %s", name, said)


def _provide(
    name: str,
    card: DatasetCard,
    home: Path,
    allow_unpinned: bool,
    patience: Patience | None,
    progress: Progress | None,
) -> Path:
    """Folder of the files, or of what they were unpacked to. The caller holds `home`."""
    places = {file: home / file.name for file in card.files}
    published = {file: _published(name, file) for file in card.files}
    known = {file: expected_sha256(one, home)[0] for file, one in published.items()}
    tree = home / UNPACKED
    try:
        stated = {file.name: sha256 for file, sha256 in known.items() if sha256 is not None}
        if card.is_unpacked and len(stated) == len(known) and is_whole(tree, stated):
            return tree
        missing = [file for file, place in places.items() if not place.exists()]
        if not all(file.address for file in missing):
            raise ConfigurationError(
                f"{name}: files are missing, and not all of them can be fetched without a person. "
                + _advice(card, home, missing)
            )
        _check_hashes_are_known(name, known, allow_unpinned)
        obtained = {
            file: obtain_file(one, places[file], patience=patience, progress=progress)
            for file, one in published.items()
        }
        sources = {file.name: one.sha256 for file, one in obtained.items()}
        if card.is_unpacked and not is_whole(tree, sources):
            archives = [place for file, place in places.items() if file.unpack]
            beside = [place for file, place in places.items() if not file.unpack]
            unpack_tree(tree, archives, beside, sources, progress=progress)
        # Not before it is unpacked: a damaged archive must not be what is accepted from then on.
        for file, one in published.items():
            pin_file(one, places[file], obtained[file])
        return tree if card.is_unpacked else home
    except DownloadError as error:
        missing = [file for file, place in places.items() if not place.exists()]
        raise ConfigurationError(
            f"{name} could not be fetched: {error}. {_advice(card, home, missing)}"
        ) from error
    except ArchiveError as error:
        raise ConfigurationError(
            f"{name}: {error}. Nothing was unpacked; a file that is at fault has to be replaced"
        ) from error


def _published(name: str, file: DatasetFile) -> PublishedFile:
    return PublishedFile(
        f"{name}/{file.name}",
        file.address,
        file.sha256,
        file.md5,
        file.megabytes,
        "the data set's card",
        LOCK_FILE,
    )


def _check_hashes_are_known(
    name: str, known: Mapping[DatasetFile, str | None], allowed: bool
) -> None:
    """Raise unless every file can be checked, or need not be this once."""
    unknown = [f.name for f, sha256 in known.items() if sha256 is None and f.md5 is None]
    if unknown and not allowed:
        raise ConfigurationError(
            f"{name}: nobody publishes a hash of {', '.join(unknown)}, so the first files cannot be "
            "checked. Set data.allow_unpinned: true (allow_unpinned=True) to accept them this once; "
            f"their sha256 are then written to {LOCK_FILE} and any others are refused from then on"
        )


def _advice(card: DatasetCard, home: Path, missing: Sequence[DatasetFile]) -> str:
    """Which file is to be got where, what it must be, and where it goes; a line for each."""
    lines = [
        f"By hand: get these files from {card.page} on a machine that can, put them in their places "
        "and run the same again; they are checked the same way"
    ]
    for file in missing:
        facts = [f"about {file.megabytes:g} MB"] if file.megabytes is not None else []
        hashes = [("sha256", file.sha256), ("md5", file.md5)]
        facts += [f"{kind} {value}" for kind, value in hashes if value is not None][:1]
        facts += [] if file.sha256 or file.md5 else ["no hash is published"]
        origin = file.address or file.name
        lines.append(f"  {origin} ({', '.join(facts)}) -> {home / file.name}")
    return "\n".join(lines)
