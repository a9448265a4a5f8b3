"""The digits that come with scikit-learn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from condvae.data.config import DataConfig
from condvae.data.formats.source import ImageSource, SourceImage
from condvae.ground.files import fingerprint

__all__ = ["DigitsSource"]


class DigitsSource(ImageSource):
    """scikit-learn's 1,797 scanned digits of 8x8 pixels (a copy of the UCI optical test set)."""

    def __init__(self, config: DataConfig) -> None:
        from sklearn.datasets import load_digits

        super().__init__()
        digits = load_digits()
        # Stored as 0..16; 16 becomes white.
        self._images = np.round(digits.images * (255 / 16)).astype(np.uint8)
        self._labels = digits.target
        self.class_names = tuple(map(str, range(10)))
        self.count = len(self._images)

    def identity(self) -> str:
        """Return a hash of the pixels."""
        return fingerprint(self._images.tobytes().hex())

    def read(self, chosen: Sequence[int]) -> Iterator[SourceImage]:
        """Yield grey pictures (8,8)."""
        for i in chosen:
            yield SourceImage(f"digits[{i}]", self._images[i], int(self._labels[i]))
