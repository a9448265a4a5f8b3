"""One npz file with all pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from condvae.data.arrays import check_pictures, read_array, stream_array
from condvae.data.config import DataConfig
from condvae.data.formats.source import ImageSource, SourceImage
from condvae.ground.configuration import ConfigurationError
from condvae.ground.files import sha256_of_file

__all__ = ["NpzSource"]


class NpzSource(ImageSource):
    """An npz file: `images` uint8 (N,H,W) or (N,H,W,C), and what it has of the following.

    `labels` (N,), classes; `classes`, their names; `attributes` (N,A) of 0 and 1; `attribute_names`
    (A,), their names.
    """

    def __init__(self, config: DataConfig) -> None:
        super().__init__()
        self._path = Path(str(config.path))
        if not self._path.is_file():
            raise ConfigurationError(f"path = {config.path!r}: no such npz file")
        with stream_array(self._path, "images") as images:
            check_pictures(images, f"{self._path}: array 'images'")
            self.count = images.shape[0]
        self._labels = self._read_labels()
        self.class_names = self._read_class_names()
        self._attributes = self._read_attributes()
        self.attribute_names = self._read_attribute_names()

    def identity(self) -> str:
        """Return the sha256 of the file."""
        return sha256_of_file(self._path)

    def read(self, chosen: Sequence[int]) -> Iterator[SourceImage]:
        """Yield pictures one at a time; the array is never held in memory as a whole."""
        with stream_array(self._path, "images") as images:
            for i, pixels in images.rows(chosen):
                label = None if self._labels is None else int(self._labels[i])
                attributes = None if self._attributes is None else self._attributes[i]
                yield SourceImage(f"images[{i}]", pixels, label, attributes=attributes)

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

    def _read_attributes(self) -> npt.NDArray[np.uint8] | None:
        attributes = read_array(self._path, "attributes")
        if attributes is None:
            return None
        where = f"{self._path}: array 'attributes'"
        if attributes.ndim != 2 or len(attributes) != self.count or attributes.shape[1] == 0:
            raise ConfigurationError(
                f"{where} has shape {attributes.shape}; expected ({self.count}, A), one row per image"
            )
        values = np.unique(attributes)
        if attributes.dtype.kind not in "iub" or not np.isin(values, (0, 1)).all():
            raise ConfigurationError(
                f"{where} has type {attributes.dtype} and values {values[:5].tolist()}; "
                "expected 0 and 1"
            )
        return attributes.astype(np.uint8)

    def _read_attribute_names(self) -> tuple[str, ...]:
        if self._attributes is None:
            return ()
        count = self._attributes.shape[1]
        names = read_array(self._path, "attribute_names")
        if names is None:
            return tuple(map(str, range(count)))
        if names.shape != (count,) or len(set(names.tolist())) < count:
            raise ConfigurationError(
                f"{self._path}: array 'attribute_names' has shape {names.shape} and names "
                f"{names.flatten()[:5].tolist()}; expected {count} different ones"
            )
        return tuple(map(str, names))
