"""Pictures that are files of their own."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from condvae.data.formats.source import ImageSource, SourceImage, hash_listing
from condvae.data.splits import OfficialSplit
from condvae.ground.configuration import ConfigurationError
from condvae.ground.pictures import UnreadablePictureError, read_picture

__all__ = [
    "ADVICE",
    "EXTENSIONS",
    "FileSource",
    "Listing",
    "check_present",
    "find_pictures",
    "is_text",
    "list_pictures",
]

logger = logging.getLogger(__name__)

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
NAMED_IN_ERRORS = 3
HIDDEN = "hidden, or left by file managers"
QUIET = {
    HIDDEN,
    *(f"ending {ending}" for ending in (".txt", ".md", ".py", ".csv", ".json", ".html")),
}
"""Reasons that nobody wonders about."""
ADVICE = "remove it or set unreadable: skip"
"""What may be done about a picture that cannot be read."""


class Listing(NamedTuple):
    """What is in a folder of pictures.

    Attributes:
        names: Pictures, as sorted paths relative to the folder.
        aside: Everything else -> why it is left aside.
    """

    names: list[str]
    aside: dict[str, str]

    def describe_aside(self) -> str:
        """Reasons with counts and examples, in one line; empty where nothing is left aside."""
        reasons: dict[str, list[str]] = {}
        for name, reason in self.aside.items():
            reasons.setdefault(reason, []).append(name)
        return "; ".join(
            f"{len(names)} {reason} ({', '.join(names[:NAMED_IN_ERRORS])}"
            f"{', ...' if len(names) > NAMED_IN_ERRORS else ''})"
            for reason, names in reasons.items()
        )


def list_pictures(
    folder: Path, inside: str = "", *, deep: bool = True, endings: Sequence[str] = EXTENSIONS
) -> Listing:
    """Sort the entries of a folder into pictures and what is left aside.

    Links are followed, to folders too.

    Args:
        folder: Where paths start.
        inside: Only what is below this folder in it.
        deep: Look into folders; False leaves them aside.
        endings: Of the names of pictures, in lower case.
    """
    names: list[str] = []
    aside: dict[str, str] = {}
    seen: set[Path] = set()
    waiting = [folder / inside] if (folder / inside).is_dir() else []
    while waiting:
        where = waiting.pop()
        seen.add(where.resolve())
        entries = sorted(where.iterdir())
        if not entries and where != folder / inside:
            aside[where.relative_to(folder).as_posix()] = "empty folders"
        for entry in entries:
            name = entry.relative_to(folder).as_posix()
            reason = _why_aside(entry, name, endings, deep=deep)
            if reason:
                aside[name if is_text(name) else ascii(name)] = reason
            elif not entry.is_dir():
                names.append(name)
            elif entry.resolve() in seen:
                aside[name] = "links back"
            else:
                waiting.append(entry)
    return Listing(sorted(names), dict(sorted(aside.items())))


def _why_aside(entry: Path, name: str, endings: Sequence[str], *, deep: bool) -> str:
    """Why an entry is neither a picture nor a folder to look into; empty for these."""
    if not is_text(name):
        return "names that are no UTF-8"
    if entry.name.startswith((".", "__MACOSX")) or entry.name in ("Thumbs.db", "desktop.ini"):
        return HIDDEN
    if entry.is_dir():
        return "" if deep else "folders"
    if not entry.is_file():
        return "no files" if entry.exists() else "broken links"
    if not entry.name.lower().endswith(tuple(endings)):
        return f"ending {entry.suffix.lower() or 'without a dot'}"
    return ""


def is_text(name: str) -> bool:
    """Whether a file's name can be written into tables, pages and figures."""
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes that the file system's encoding does not know
        return False
    return True


def find_pictures(folder: Path, inside: str = "") -> Listing:
    """List the image files below a folder; what is left aside is logged.

    Args:
        folder: Where paths start.
        inside: Only what is below this folder in it.

    Raises:
        ConfigurationError: There are none.
    """
    found = list_pictures(folder, inside)
    if found.aside:
        told = logging.INFO if set(found.aside.values()) <= QUIET else logging.WARNING
        logger.log(told, "%s: left aside: %s", folder / inside, found.describe_aside())
    if not found.names:
        raise ConfigurationError(
            f"path = {str(folder / inside)!r}: no images found; expected files ending in "
            f"{', '.join(EXTENSIONS)}"
        )
    return found


def check_present(folder: Path, inside: str, names: Sequence[str], listed_in: str) -> None:
    """Refuse a list that names pictures which are not there.

    Args:
        folder: Of the data set.
        inside: Folder of the pictures in it.
        names: File names that must be there.
        listed_in: File that lists them, for the message.

    Raises:
        ConfigurationError: Says how many are missing and names some.
    """
    if not (folder / inside).is_dir():
        raise ConfigurationError(f"{folder}: no folder {inside!r} with the pictures")
    present = {entry.name for entry in os.scandir(folder / inside)}
    missing = [name for name in names if name not in present]
    if missing:
        named = ", ".join(missing[:NAMED_IN_ERRORS])
        more = ", ..." if len(missing) > NAMED_IN_ERRORS else ""
        raise ConfigurationError(
            f"{folder / inside}: {len(missing)} of the {len(names)} pictures in {listed_in} are "
            f"missing ({named}{more}); unpack all archives of the data set"
        )


class FileSource(ImageSource):
    """A list of image files with what is known about each.

    Args:
        folder: Where paths start.
        names: Paths below it, the order of the source.
        skip_unreadable: Go on after a picture that cannot be read.
        class_names: Name of each class.
        labels: Class index of each picture.
        attribute_names: Name of each attribute.
        attributes: uint8 (N,A) of 0 and 1.
        split: Published split of each picture.
        lists: Other files below the folder that decide the content (labels, partition).
        side_by_side: Each file holds two squares: the condition on the left, the picture on the right.
        aside: What else is in the folder, and why it is left aside.
        classes_are_folders: A class is a folder, and none where no picture of it can be used.
    """

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        *,
        skip_unreadable: bool,
        class_names: tuple[str, ...] = (),
        labels: Sequence[int] | None = None,
        attribute_names: tuple[str, ...] = (),
        attributes: npt.NDArray[np.uint8] | None = None,
        split: OfficialSplit | None = None,
        lists: Sequence[str] = (),
        side_by_side: bool = False,
        aside: Mapping[str, str] | None = None,
        classes_are_folders: bool = False,
    ) -> None:
        super().__init__()
        self.aside = dict(aside or {})
        self.classes_are_folders = classes_are_folders
        self._folder, self._names, self._skip = folder, names, skip_unreadable
        self._labels, self._attributes, self._split = labels, attributes, split
        self._lists = lists
        self.class_names, self.attribute_names = class_names, attribute_names
        self.has_conditions = side_by_side
        self.validation_is_test = split is not None and split.validation_is_test
        self.count = len(names)

    def identity(self) -> str:
        """Return a hash of the listing: paths, sizes and times of change."""
        found = hash_listing(self._folder, [*self._names, *self._lists])
        # Stores of before labels were those of the pictures used are not what is meant today.
        return f"{found}, labels of used pictures" if self.classes_are_folders else found

    def label_of(self, index: int) -> int | None:
        """Class of a picture before it is read."""
        return None if self._labels is None else self._labels[index]

    def read(self, chosen: Sequence[int]) -> Iterator[SourceImage]:
        """Yield pictures, upright, on black where they were transparent."""
        for i in chosen:
            path = self._folder / self._names[i]
            try:
                pixels = read_picture(path)
                condition = None
                if self.has_conditions:
                    condition, pixels = _split_halves(pixels, path)
            except UnreadablePictureError as error:
                if not self._skip:
                    raise UnreadablePictureError(f"{error}; {ADVICE}") from None
                logger.warning("skipped: %s", error)
                self.unreadable.append(self._names[i])
                continue
            yield SourceImage(
                self._names[i],
                pixels,
                label=None if self._labels is None else self._labels[i],
                split=None if self._split is None else self._split.name(i),
                attributes=None if self._attributes is None else self._attributes[i],
                condition=condition,
            )


def _split_halves(
    pixels: npt.NDArray[np.uint8], path: Path
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Two squares side by side -> left, right."""
    height, width = pixels.shape[:2]
    if width != 2 * height:
        raise UnreadablePictureError(
            f"{path}: {width}x{height} pixels; expected two squares side by side, {2 * height}x"
            f"{height}"
        )
    return pixels[:, :height], pixels[:, height:]
