"""Unpacked data sets: folders that are there whole, or not at all.

Everything goes to a folder of another name, which is renamed when it is whole. The last file written
to it says what it was made from. A run that is killed leaves the other folder behind; the next one
removes it and starts over.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from condvae.data.fetching.archives import ArchiveError, Limits, Unpacker
from condvae.ground.files import write_json
from condvae.transport.download import Progress
from condvae.transport.published import shown_progress

__all__ = ["MARKER", "is_whole", "unpack_tree"]

FORMAT = 1
MARKER = ".complete"


def is_whole(tree: Path, sources: Mapping[str, str]) -> bool:
    """Whether an unpacked tree is there; what is there must be the right one, and as it was made.

    The files are counted and their sizes added up; their bytes are not read again. Files whose names
    begin with a dot do not count.

    Args:
        tree: The folder.
        sources: sha256 of every file it is made from, by name.

    Raises:
        ArchiveError: The folder was made by something else, from other files, or was changed.
    """
    if not tree.exists():
        return False
    advice = "move it away to unpack again"
    try:
        facts: Any = json.loads((tree / MARKER).read_text())
        expected = facts["format"], facts["sources"], facts["files"], facts["bytes"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ArchiveError(
            f"{tree} has no readable {MARKER}: not unpacked here; {advice}"
        ) from None
    if expected[:2] != (FORMAT, dict(sources)):
        raise ArchiveError(f"{tree} was unpacked from other files than the present ones; {advice}")
    found = _measure(tree)
    if expected[2:] != found:
        raise ArchiveError(
            f"{tree} holds {found[0]} files of {found[1]} bytes, unpacked were {expected[2]} of "
            f"{expected[3]}: changed since; {advice}"
        )
    return True


def unpack_tree(
    tree: Path,
    archives: Sequence[Path],
    beside: Sequence[Path],
    sources: Mapping[str, str],
    *,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> None:
    """Make a tree of the contents of all archives, with other files beside them.

    Only one process at a time may do so.

    Args:
        tree: The folder; must not be there.
        archives: Their contents go to the tree together.
        beside: Files that go to its top as they are, as links where the file system has them.
        sources: sha256 of all of them, by name.
        limits: For all of them together.
        progress: Called with bytes read and bytes of the archive at hand; None shows a bar.

    Raises:
        ArchiveError: See `Unpacker.unpack`.
        OSError: The disk is full, say. Nothing is kept in either case.
    """
    unfinished = tree.with_name(f".{tree.name}.unfinished")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    unfinished.mkdir(parents=True)
    try:
        unpacker = Unpacker(unfinished, limits)
        unpacker.names.add(PurePosixPath(MARKER), is_folder=False)
        for archive in archives:
            with shown_progress(f"unpacking {archive.name}", progress) as show:
                unpacker.unpack(archive, show)
        for file in beside:
            unpacker.names.add(PurePosixPath(file.name), is_folder=False)
            _put(file, unfinished / file.name)
        count, size = _measure(unfinished)
        # One call in place of an fsync for each of 100,000 pictures.
        os.sync()
        facts = {"format": FORMAT, "sources": dict(sources), "files": count, "bytes": size}
        write_json(unfinished / MARKER, facts)
        os.rename(unfinished, tree)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _put(file: Path, target: Path) -> None:
    """The same file under another name, or a copy where that cannot be."""
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)


def _measure(tree: Path) -> tuple[int, int]:
    """Number of files whose names do not begin with a dot, and the sum of their sizes."""
    count = size = 0
    for folder, _, names in os.walk(tree):
        for name in names:
            if not name.startswith("."):
                count += 1
                size += os.lstat(os.path.join(folder, name)).st_size
    return count, size
