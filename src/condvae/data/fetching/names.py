"""Which names inside an archive may become files below a folder."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePosixPath

__all__ = ["ArchiveError", "NameBook", "checked_path"]

LONGEST_NAME, LONGEST_PART, DEEPEST = 1024, 255, 32


class ArchiveError(ValueError):
    """An archive that is damaged, or holds what must not be unpacked. Nothing of it is kept."""


def checked_path(name: str) -> PurePosixPath:
    """Turn a member's name into a relative path that stays below where it is put.

    The same names are refused on every platform: what is an ordinary name here may lead elsewhere
    on another one.

    Args:
        name: As the archive states it; ``./`` in front and doubled slashes are ignored.

    Returns:
        The path; ``.`` for the folder itself.

    Raises:
        ArchiveError: An absolute path, ``..``, a backslash, a drive, a control character, an
            undecodable byte, or a name that is too long or too deep.
    """
    shown = repr(name[:100])
    if len(name) > LONGEST_NAME:
        raise ArchiveError(f"member {shown}...: a name of {len(name)} characters")
    if name.startswith("/") or re.match("[A-Za-z]:", name):
        raise ArchiveError(f"member {shown}: an absolute path")
    if "\\" in name or any(unicodedata.category(c) in ("Cc", "Cs") for c in name):
        raise ArchiveError(f"member {shown}: a character that does not belong in a name")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ArchiveError(f"member {shown}: leads out of its folder")
    if len(parts) > DEEPEST or any(len(part.encode()) > LONGEST_PART for part in parts):
        raise ArchiveError(f"member {shown}: too deep, or a part of it is too long")
    return PurePosixPath(*parts)


class NameBook:
    """The names taken in one folder; each may be taken once, on file systems that ignore case too."""

    def __init__(self) -> None:
        self._taken: dict[str, tuple[str, bool]] = {}

    def add(self, path: PurePosixPath, *, is_folder: bool) -> None:
        """Take a name, and those of the folders it lies in; folders may be named again.

        Args:
            path: From `checked_path`.
            is_folder: Whether it is a folder.

        Raises:
            ArchiveError: A file's name is taken, or a name that differs only by case or by the
                Unicode form of its letters.
        """
        for folder in reversed(path.parents[:-1]):
            self._take(str(folder), is_folder=True)
        self._take(str(path), is_folder=is_folder)

    def _take(self, name: str, *, is_folder: bool) -> None:
        key = unicodedata.normalize("NFC", name.casefold())
        if key not in self._taken:
            self._taken[key] = (name, is_folder)
            return
        known, known_is_folder = self._taken[key]
        if known != name:
            raise ArchiveError(f"members {known!r} and {name!r} are one on some file systems")
        if not (is_folder and known_is_folder):
            raise ArchiveError(f"member {name!r} comes twice")
