"""Square patches of photographs of any size.

Patches have the sides `image_size`, twice, four times that and so on, so that after resizing some show
detail and some whole objects. They lie in regions that are split as a whole: no pixel of a test patch
is in a training patch. With enough photographs a region is a photograph; with few, photographs are
divided into blocks. What is held out is then another part of a photograph that was trained on, and
looks more like the training patches than another photograph would.

Without a path the photographs are the two that come with scikit-learn.
"""

from __future__ import annotations

import bisect
import importlib.resources
import itertools
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from condvae.data.config import DataConfig
from condvae.data.formats.files import ADVICE, find_pictures
from condvae.data.formats.source import ImageSource, SourceImage, hash_listing, source_folder
from condvae.data.records import image_sha256
from condvae.ground.files import PICTURE_FORMATS
from condvae.ground.pictures import UnreadablePictureError, read_picture

__all__ = ["PhotographSource"]

logger = logging.getLogger(__name__)

# Regions are dealt to three splits at random; of far fewer, one split would often get none.
FEWEST_REGIONS = 20
# Along each axis of a region; bounds the patches of one photograph, whatever its size.
MOST_POSITIONS = 8

Size = tuple[int, int]


class PhotographSource(ImageSource):
    """Overlapping patches of every photograph below a folder, or of scikit-learn's two.

    Along each axis of a region the patches of one side are about a quarter of it apart, and at most
    eight, so that a large photograph gives about as many large patches as small ones. A photograph
    that is smaller than the smallest patch counts as unreadable.
    """

    def __init__(self, config: DataConfig) -> None:
        super().__init__()
        self._folder = _bundled_folder() if config.path is None else source_folder(config)
        self._names, self.aside = find_pictures(self._folder)
        self._smallest, self._skip = config.image_size, config.unreadable == "skip"
        self._sizes = [_measure(self._folder / name) for name in self._names]
        self._block = _choose_block([size for size in self._sizes if size], self._smallest)
        # What cannot be cut counts as one patch, so that reading it says what is wrong.
        counts = {size: max(1, sum(1 for _ in self._patches(size))) for size in set(self._sizes)}
        self._ends = list(itertools.accumulate(counts[size] for size in self._sizes))
        self.count = self._ends[-1]

    def identity(self) -> str:
        """Return a hash of the listing: paths, sizes and times of change."""
        return hash_listing(self._folder, self._names)

    def read(self, chosen: Sequence[int]) -> Iterator[SourceImage]:
        """Yield patches (side,side) or (side,side,3), holding one photograph at a time.

        The group of a patch follows from the pixels of its whole photograph, so that copies of a
        photograph share their splits.
        """
        for number, indices in itertools.groupby(
            chosen, lambda index: bisect.bisect_right(self._ends, index)
        ):
            start = self._ends[number - 1] if number else 0
            yield from self._cut(number, [index - start for index in indices])

    def _cut(self, number: int, chosen: Sequence[int]) -> Iterator[SourceImage]:
        """Yield the patches `chosen` of one photograph."""
        name = self._names[number]
        try:
            pixels = self._read(number)
        except UnreadablePictureError as error:
            if not self._skip:
                raise UnreadablePictureError(f"{error}; {ADVICE}") from None
            logger.warning("skipped: %s", error)
            self.unreadable += [name] * len(chosen)
            return
        height, width = pixels.shape[:2]
        patches = list(self._patches((height, width)))
        content = image_sha256(pixels)
        for patch in (patches[i] for i in chosen):
            # A copy: a view would keep the photograph while the next is read.
            cut = patch.cut(pixels).copy()
            yield SourceImage(patch.describe(name), cut, group=f"{content}:{patch.region}")

    def _read(self, number: int) -> npt.NDArray[np.uint8]:
        path, measured = self._folder / self._names[number], self._sizes[number]
        pixels = read_picture(path)
        height, width = pixels.shape[:2]
        if min(height, width) < self._smallest:
            raise UnreadablePictureError(
                f"{path}: {width}x{height} pixels; expected at least {self._smallest}x"
                f"{self._smallest}"
            )
        if measured not in ((height, width), (width, height)):
            raise UnreadablePictureError(f"{path}: changed while it was read")
        return pixels

    def _patches(self, size: Size | None) -> Iterator[_Patch]:
        """Yield all patches of a photograph, region by region, small to large."""
        if size is None:
            return
        edges = [_divide(extent, self._block) for extent in size]
        regions = itertools.product(*(itertools.pairwise(axis) for axis in edges))
        for region, ((top, bottom), (left, right)) in enumerate(regions):
            side = self._smallest
            while side <= min(bottom - top, right - left):
                for y in _spread(top, bottom, side):
                    for x in _spread(left, right, side):
                        yield _Patch(y, x, side, region)
                side *= 2


class _Patch(NamedTuple):
    """A square of a photograph; `region` counts the regions of that photograph."""

    top: int
    left: int
    side: int
    region: int

    def cut(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        return pixels[self.top : self.top + self.side, self.left : self.left + self.side]

    def describe(self, name: str) -> str:
        """Name the patch as one would slice the photograph: rows, then columns."""
        bottom, right = self.top + self.side, self.left + self.side
        return f"{name}[{self.top}:{bottom},{self.left}:{right}]"


def _bundled_folder() -> Path:
    """The folder of china.jpg and flower.jpg, which `load_sample_images` reads too."""
    return Path(str(importlib.resources.files("sklearn.datasets.images")))


def _measure(path: Path) -> Size | None:
    """Height and width of an image file as stored, `None` if it is broken.

    Not upright: a photograph has as many patches and blocks when it is turned, and looking for its
    orientation would decode every PNG file.
    """
    try:
        with Image.open(path, formats=PICTURE_FORMATS) as picture:
            return picture.height, picture.width
    # Reading it for its pixels says what is wrong.
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError):
        return None


def _choose_block(sizes: Sequence[Size], smallest: int) -> int | None:
    """Side of the blocks that photographs are divided into, `None` where they stay whole.

    The largest of `smallest` times a power of two that gives enough blocks, for large blocks hold
    large patches; `smallest` itself where none does.
    """
    usable = [size for size in sizes if min(size) >= smallest]
    if len(usable) >= FEWEST_REGIONS:
        return None
    block = smallest
    while _count_blocks(usable, 2 * block) >= FEWEST_REGIONS:
        block *= 2
    return block


def _count_blocks(sizes: Sequence[Size], block: int) -> int:
    return sum((height // block) * (width // block) for height, width in sizes)


def _divide(extent: int, block: int | None) -> list[int]:
    """Edges of equal parts of about `block` or slightly more; nothing is left over."""
    parts = 1 if block is None else max(1, extent // block)
    return [extent * part // parts for part in range(parts + 1)]


def _spread(start: int, stop: int, side: int) -> list[int]:
    """First pixels of patches spread evenly from edge to edge; a single one lies in the centre."""
    slack = stop - start - side
    positions = min(MOST_POSITIONS, 1 + round(4 * slack / side))
    if positions == 1:
        return [start + slack // 2]
    return [start + slack * i // (positions - 1) for i in range(positions)]
