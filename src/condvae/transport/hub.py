"""Models and pictures from the Hugging Face hub (optional extra ``hub``).

The hub says which commit an address is, which files it has and what hashes these have; the files are
then fetched like all others: resumed, checked, never half there. Only files that are asked for by name
or ending are fetched, never code and never pickles.

What was fetched lies in a folder named after the hashes of its files, so that a commit that changes
none of them costs nothing. A record beside it says which commit an address was last: with it the same
address opens without a network, and one with a commit as its revision never needs it again.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

from condvae.ground.configuration import ConfigurationError, read_config
from condvae.ground.files import fingerprint, write_json
from condvae.transport.download import (
    DownloadError,
    Patience,
    Progress,
    RefusedError,
    download_file,
)
from condvae.transport.hub_address import (
    DATASETS,
    MODELS,
    HubAddress,
    check_hub_address,
    is_inside,
    parse_hub_address,
)
from condvae.transport.lock import held
from condvae.transport.published import shown_progress

__all__ = [
    "fetch_hub_files",
    "fetch_hub_model",
    "pin_hub_address",
]

MODEL_FILES = ("card.json", "model.safetensors")
FORMAT = 1
PARALLEL = 8
ANSWER_SECONDS = 10.0
NOT_GRANTED = (
    "access must be granted on the page of the repository first, to the account of `hf auth login` "
    "(or HF_TOKEN)"
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _HubFile:
    """Size in bytes and hash: 64 digits are a sha256 of the content, 40 its git object id (sha1)."""

    size: int
    hash: str


@dataclass(frozen=True)
class _Record:
    """What an address was when the hub was last asked, and fetched.

    Attributes:
        commit: 40 hexadecimal digits.
        files: By path in the repository.
        licence: The repository's licence tags; empty where it has none.
        format: Of this record.
    """

    commit: str
    files: dict[str, _HubFile]
    licence: str = ""
    format: int = FORMAT


class _UnreachableError(Exception):
    """The hub gave no answer, or none that says anything about the address."""


def fetch_hub_model(
    text: str,
    cache: Path,
    *,
    patience: Patience | None = None,
    progress: Progress | None = None,
) -> Path:
    """Return the model folder at an address, fetching what is not there yet.

    Args:
        text: ``hf://OWNER/NAME[@REVISION][/FOLDER]``.
        cache: What is fetched lies in ``hub`` below it.
        patience: Timeouts and attempts of each download.
        progress: Called with bytes there and bytes in all; None shows a bar.

    Raises:
        ConfigurationError: A wrong address, a missing extra, no such repository, revision or model,
            a file with another hash than the hub says, or no network and no copy.
    """
    address = check_hub_address(text, MODELS)
    top = f"{address.folder}/" if address.folder else ""
    wanted = [f"{top}{name}" for name in MODEL_FILES]
    tree = _obtain(
        address, wanted, lambda path: path in wanted, cache, patience, progress, needed=wanted
    )
    return tree / address.folder


def fetch_hub_files(
    text: str,
    endings: tuple[str, ...],
    cache: Path,
    *,
    nested: bool = True,
    patience: Patience | None = None,
    progress: Progress | None = None,
) -> Path:
    """Return a folder with the files of a data set that have one of the endings, or one such file.

    The repository's licence is logged before anything is fetched.

    Args:
        text: ``hf://datasets/OWNER/NAME[@REVISION][/FOLDER]``; one file is named in place of the
            folder.
        endings: Lower case, such as ``.png``; files and folders with a leading dot are left out.
        cache: See `fetch_hub_model`.
        nested: Also those in folders of the folder.
        patience: See `fetch_hub_model`.
        progress: See `fetch_hub_model`.

    Raises:
        ConfigurationError: See `fetch_hub_model`; also no such files.
    """
    address = check_hub_address(text, DATASETS)
    one = address.folder.lower().endswith(endings)
    top = f"{address.folder}/" if address.folder else ""

    def is_wanted(path: str) -> bool:
        if one:
            return path == address.folder
        inside = path.startswith(top) and (nested or "/" not in path.removeprefix(top))
        hidden = any(part.startswith(".") for part in path.split("/"))
        return inside and not hidden and path.lower().endswith(endings)

    needed = [address.folder] if one else []
    key = [*endings, *([] if nested else ["outside of sub-folders"])]
    tree = _obtain(address, key, is_wanted, cache, patience, progress, needed=needed)
    return tree / address.folder


def pin_hub_address(text: str, cache: Path) -> str:
    """The address of a model that was fetched, with the commit that it was; see `fetch_hub_model`."""
    address = parse_hub_address(text, MODELS)
    top = f"{address.folder}/" if address.folder else ""
    record = _read_record(_record_path(address, [f"{top}{name}" for name in MODEL_FILES], cache))
    return text if record is None else str(address.at_commit(record.commit))


def _obtain(
    address: HubAddress,
    key: list[str],
    is_wanted: Callable[[str], bool],
    cache: Path,
    patience: Patience | None,
    progress: Progress | None,
    *,
    needed: list[str],
) -> Path:
    """Folder that the repository's paths start at, all wanted files in it.

    `key` tells the files wanted here from others of the same address, `needed` must be among them.
    """
    record_path = _record_path(address, key, cache)
    home = record_path.parent
    try:
        home.mkdir(parents=True, exist_ok=True)
        with held(home):
            known = _read_record(record_path)
            record = _current(address, is_wanted, known, needed, key)
            tree = home / fingerprint({p: asdict(f) for p, f in record.files.items()})[:16]
            missing = {
                path: file
                for path, file in record.files.items()
                if not (tree / path).is_file() or (tree / path).stat().st_size != file.size
            }
            licence = record.licence or "none stated"
            log.info("%s is commit %s, licence: %s", address, record.commit, licence)
            if missing:
                _download(address.at_commit(record.commit), missing, tree, patience, progress)
            if record != known:
                write_json(record_path, asdict(record))
    except RefusedError as error:  # repositories with terms list their files to everyone
        raise ConfigurationError(f"{address}: {NOT_GRANTED}; {error}") from error
    except DownloadError as error:
        raise ConfigurationError(f"{address} could not be fetched: {error}") from error
    except OSError as error:
        raise ConfigurationError(
            f"{address}: folder {home} cannot be used ({error.strerror or error})"
        ) from error
    return tree


def _record_path(address: HubAddress, key: list[str], cache: Path) -> Path:
    home = cache / "hub" / f"{address.kind}--{address.owner}--{address.name}"
    digest = fingerprint([address.revision, address.folder, *key])
    return home / f"{digest[:16]}.json"


def _read_record(path: Path) -> _Record | None:
    """The record of an address; None when there is none that can be read."""
    try:
        record = read_config(_Record, json.loads(path.read_bytes()), str(path))
    except (OSError, ValueError):  # only a copy of what the hub says: asked for again
        return None
    return record if record.format == FORMAT and all(map(is_inside, record.files)) else None


def _current(
    address: HubAddress,
    is_wanted: Callable[[str], bool],
    known: _Record | None,
    needed: list[str],
    key: list[str],
) -> _Record:
    """What the hub says now, or without a network what it said before."""
    if known is not None and address.revision == known.commit:
        return known
    try:
        record = _ask_hub(address, is_wanted)
    except _UnreachableError as error:
        if known is None:
            raise ConfigurationError(
                f"{address}: the hub cannot be reached ({error}), and there is no copy of it"
            ) from error
        log.warning(
            "%s: the hub cannot be reached (%s); taking commit %s, which was fetched before",
            *(address, error, known.commit),
        )
        return known
    lacking = [path for path in needed if path not in record.files]
    if lacking or not record.files:
        named = ", ".join(lacking) or f"no files that end in {', '.join(key)}"
        raise ConfigurationError(
            f"{address} (commit {record.commit[:12]}): {named}"
            + (" is missing" if lacking else "")
            + (": not a model folder of condvae" if address.kind == MODELS else "")
        )
    return record


def _ask_hub(address: HubAddress, is_wanted: Callable[[str], bool]) -> _Record:
    """Commit, licence and wanted files of an address."""
    from huggingface_hub import HfApi, errors
    from huggingface_hub.hf_api import RepoFile

    # The base of the hub's errors and of those of its HTTP library, which is another one by version.
    http_error = errors.HfHubHTTPError.__mro__[1]
    where = {"repo_id": address.repository, "repo_type": address.kind.removesuffix("s")}
    parent = address.folder
    if "." in parent.rsplit("/", 1)[-1]:  # perhaps one file: listed with its folder
        parent = parent.rpartition("/")[0]
    try:
        api = HfApi()
        info = api.repo_info(**where, revision=address.revision, timeout=ANSWER_SECONDS)
        listed = api.list_repo_tree(**where, path_in_repo=parent, recursive=True, revision=info.sha)
        files = {
            entry.path: _HubFile(entry.size, entry.lfs.sha256 if entry.lfs else entry.blob_id)
            for entry in listed
            if isinstance(entry, RepoFile) and is_wanted(entry.path)
        }
    except errors.GatedRepoError:
        raise ConfigurationError(f"{address}: {NOT_GRANTED}") from None
    except errors.RepositoryNotFoundError:
        raise ConfigurationError(
            f"{address}: no such repository on the hub; a private one needs `hf auth login` (or "
            "HF_TOKEN)"
        ) from None
    except errors.RevisionNotFoundError:
        raise ConfigurationError(
            f"{address}: the repository has no revision {address.revision!r}"
        ) from None
    except errors.EntryNotFoundError:
        raise ConfigurationError(f"{address}: the repository has no folder {parent!r}") from None
    except (http_error, OSError, ValueError) as error:
        raise _UnreachableError(
            str(error).strip().split("\n")[0] or type(error).__name__
        ) from error
    for path in files:
        if not is_inside(path):
            raise ConfigurationError(f"{address}: file {path!r} would lie outside of its folder")
    licence = ", ".join(t.split(":", 1)[1] for t in info.tags or () if t.startswith("license:"))
    return _Record(info.sha, files, licence)


def _download(
    address: HubAddress,
    files: Mapping[str, _HubFile],
    tree: Path,
    patience: Patience | None,
    progress: Progress | None,
) -> None:
    """Fetch files to their places, several at a time; each is checked before it is there."""
    from huggingface_hub import HfApi, hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    endpoint, headers = HfApi().endpoint, build_hf_headers(library_name="condvae")
    total = sum(file.size for file in files.values())
    lock, stopped = threading.Lock(), threading.Event()
    done = dict.fromkeys(files, 0)
    sum_done = 0

    def fetch(path: str, show: Progress) -> None:
        def advance(there: int, _: int) -> None:
            nonlocal sum_done
            if stopped.is_set():
                raise DownloadError("stopped")
            with lock:
                sum_done, done[path] = sum_done + there - done[path], there
                show(sum_done, total)

        file = files[path]
        url = hf_hub_url(
            address.repository,
            path,
            repo_type=address.kind.removesuffix("s"),
            revision=address.revision,
            endpoint=endpoint,
        )
        sha256 = file.hash if len(file.hash) == 64 else None
        git_id = file.hash if sha256 is None else None
        download_file(
            url,
            tree / path,
            sha256=sha256,
            git_id=git_id,
            patience=patience,
            progress=advance,
            headers=headers,
        )

    with shown_progress(str(address), progress) as show, ThreadPoolExecutor(PARALLEL) as pool:
        waiting = [pool.submit(fetch, path, show) for path in files]
        try:
            for future in as_completed(waiting):
                future.result()
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
