"""Where pictures come from: the bundled digits, an npz file, a folder of images.

A source knows how many pictures it has before it reads any, so that a random subset can be chosen
first and nothing else is converted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from condvae.configuration import ConfigurationError
from condvae.data.arrays import ArrayStream, read_array, stream_array
from condvae.data.config import DataConfig
from condvae.data.pictures import UnreadablePictureError, read_picture
from condvae.files import fingerprint, sha256_of_file

__all__ = ["SOURCES", "ImageSource", "SourceImage", "open_source"]

logger = logging.getLogger(__name__)

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")


class SourceImage(NamedTuple):
    """One picture of a source.

    Attributes:
        origin: Unique inside the source: a path below the folder, or an index.
        pixels: uint8 (H,W), (H,W,1) or (H,W,3), as it was found.
        label: Class index, or `None`.
    """

    origin: str
    pixels: npt.NDArray[np.uint8]
    label: int | None


class ImageSource(Protocol):
    """What every source offers.

    Attributes:
        class_names: Name of each class index, () without labels.
        count: Number of pictures.
        unreadable: Origins of the pictures that `read` skipped so far.
    """

    class_names: tuple[str, ...]
    count: int
    unreadable: list[str]

    def identity(self) -> str:
        """Return a hash that changes when the source's content does."""
        ...

    def read(self, chosen: Sequence[int]) -> Iterator[SourceImage]:
        """Yield the pictures at the ascending indices `chosen`."""
        ...


class DigitsSource:
    """scikit-learn's 1,797 scanned digits of 8x8 pixels (a copy of the UCI optical test set)."""

    def __init__(self, config: DataConfig) -> None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        # Stored as 0..16; 16 becomes white.
        self._images = np.round(digits.images * (255 / 16)).astype(np.uint8)
        self._labels = digits.target
        self.class_names = tuple(map(str, range(10)))
        self.count = len(self._images)
        self.unreadable: list[str] = []

    def identity(self) -> str:
        """Return a hash of the pixels."""
        return fingerprint(self._images.tobytes().hex())

    def read(self, chosen: Sequence[int]) -> Iterator[SourceImage]:
        """Yield grey pictures (8,8)."""
        for i in chosen:
            yield SourceImage(f"digits[{i}]", self._images[i], int(self._labels[i]))


class NpzSource:
    """An npz file: `images` uint8 (N,H,W) or (N,H,W,C), optional `labels` (N,) and `classes`."""

    def __init__(self, config: DataConfig) -> None:
        self._path = Path(str(config.path))
        if not self._path.is_file():
            raise ConfigurationError(f"path = {config.path!r}: no such npz file")
        with stream_array(self._path, "images") as images:
            self._check_images(images)
            self.count = images.shape[0]
        self._labels = self._read_labels()
        self.class_names = self._read_class_names()
        self.unreadable: list[str] = []

    def identity(self) -> str:
        """Return the sha256 of the file."""
        return sha256_of_file(self._path)

    def read(self, chosen: Sequence[int]) -> Iterator[SourceImage]:
        """Yield pictures one at a time; the array is never held in memory as a whole."""
        with stream_array(self._path, "images") as images:
            for i, pixels in images.rows(chosen):
                label = None if self._labels is None else int(self._labels[i])
                yield SourceImage(f"images[{i}]", pixels, label)

    def _check_images(self, images: ArrayStream) -> None:
        shape = images.shape
        fits = len(shape) == 3 or (len(shape) == 4 and shape[-1] in (1, 3))
        if images.dtype != np.uint8 or not fits or 0 in shape:
            raise ConfigurationError(
                f"{self._path}: array 'images' has type {images.dtype} and shape {shape}; expected "
                "uint8 and (N, H, W), (N, H, W, 1) or (N, H, W, 3) with N >= 1"
            )

    def _read_labels(self) -> npt.NDArray[np.int64] | None:
        labels = read_array(self._path, "labels")
        if labels is None:
            return None
        if labels.dtype.kind not in "iu" or labels.shape != (self.count,):
            raise ConfigurationError(
                f"{self._path}: array 'labels' has type {labels.dtype} and shape {labels.shape}; "
                f"expected integers and ({self.count},), one per image"
            )
        if labels.min() < 0:
            raise ConfigurationError(f"{self._path}: label {labels.min()}; expected >= 0")
        return labels.astype(np.int64)

    def _read_class_names(self) -> tuple[str, ...]:
        if self._labels is None:
            return ()
        needed = int(self._labels.max()) + 1
        classes = read_array(self._path, "classes")
        if classes is None:
            return tuple(map(str, range(needed)))
        if classes.ndim != 1 or len(classes) < needed:
            raise ConfigurationError(
                f"{self._path}: array 'classes' has shape {classes.shape}; the labels go up to "
                f"{needed - 1}, expected a name for each"
            )
        return tuple(map(str, classes))


class FolderSource:
    """All images below a folder, sorted by path; sub-folders are classes when they look like it."""

    def __init__(self, config: DataConfig) -> None:
        self._folder = Path(str(config.path))
        if not self._folder.is_dir():
            raise ConfigurationError(f"path = {config.path!r}: no such folder")
        below = (path.relative_to(self._folder) for path in self._folder.rglob("*"))
        # Names with a leading dot are leftovers of file managers, not pictures.
        self._paths = sorted(
            (
                path
                for path in below
                if path.suffix.lower() in EXTENSIONS
                and not any(part.startswith(".") for part in path.parts)
                and (self._folder / path).is_file()
            ),
            key=Path.as_posix,
        )
        if not self._paths:
            raise ConfigurationError(
                f"path = {config.path!r}: no images found; expected files ending in "
                f"{', '.join(EXTENSIONS)}"
            )
        self._skip = config.unreadable == "skip"
        self.class_names = self._find_classes()
        self.count = len(self._paths)
        self.unreadable: list[str] = []

    def identity(self) -> str:
        """Return a hash of the listing: paths, sizes and times of change."""
        stats = [(path.as_posix(), (self._folder / path).stat()) for path in self._paths]
        return fingerprint([[path, stat.st_size, stat.st_mtime_ns] for path, stat in stats])

    def read(self, chosen: Sequence[int]) -> Iterator[SourceImage]:
        """Yield pictures, upright, on black where they were transparent."""
        for i in chosen:
            path = self._paths[i]
            try:
                pixels = read_picture(self._folder / path)
            except UnreadablePictureError as error:
                if not self._skip:
                    raise
                logger.warning("skipped: %s", error)
                self.unreadable.append(path.as_posix())
                continue
            label = self.class_names.index(path.parts[0]) if self.class_names else None
            yield SourceImage(path.as_posix(), pixels, label)

    def _find_classes(self) -> tuple[str, ...]:
        """Names of the class folders, () unless every image is exactly one folder down."""
        if any(len(path.parts) != 2 for path in self._paths):
            return ()
        names = tuple(sorted({path.parts[0] for path in self._paths}))
        return names if len(names) >= 2 else ()


SOURCES: dict[str, Callable[[DataConfig], ImageSource]] = {
    "digits": DigitsSource,
    "npz": NpzSource,
    "image_folder": FolderSource,
}


def open_source(config: DataConfig) -> ImageSource:
    """Open the source that `config` names.

    Raises:
        ConfigurationError: It is missing or does not look as expected.
    """
    return SOURCES[config.source](config)
