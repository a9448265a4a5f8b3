"""Pictures that are files of their own."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from condvae.data.formats.source import ImageSource, SourceImage, hash_listing
from condvae.data.pictures import UnreadablePictureError, read_picture
from condvae.data.splits import OfficialSplit
from condvae.ground.configuration import ConfigurationError

__all__ = ["EXTENSIONS", "FileSource", "check_present", "find_pictures"]

logger = logging.getLogger(__name__)

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
NAMED_IN_ERRORS = 3


def find_pictures(folder: Path, inside: str = "") -> list[str]:
    """Return the image files below a folder as sorted paths relative to it.

    Args:
        folder: Where paths start.
        inside: Only what is below this folder in it.

    Raises:
        ConfigurationError: There are none.
    """
    found = []
    for path, folders, names in os.walk(folder / inside):
        # Names with a leading dot are leftovers of file managers, not pictures.
        folders[:] = [name for name in folders if not name.startswith(".")]
        parent = Path(path).relative_to(folder).as_posix()
        found += [
            name if parent == "." else f"{parent}/{name}"
            for name in names
            if name.lower().endswith(EXTENSIONS)
            and not name.startswith(".")
            and os.path.isfile(os.path.join(path, name))
        ]
    if not found:
        raise ConfigurationError(
            f"path = {str(folder / inside)!r}: no images found; expected files ending in "
            f"{', '.join(EXTENSIONS)}"
        )
    return sorted(found)


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
    ) -> None:
        super().__init__()
        self._folder, self._names, self._skip = folder, names, skip_unreadable
        self._labels, self._attributes, self._split = labels, attributes, split
        self._lists = lists
        self.class_names, self.attribute_names = class_names, attribute_names
        self.has_conditions = side_by_side
        self.validation_is_test = split is not None and split.validation_is_test
        self.count = len(names)

    def identity(self) -> str:
        """Return a hash of the listing: paths, sizes and times of change."""
        return hash_listing(self._folder, [*self._names, *self._lists])

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
                    raise
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
