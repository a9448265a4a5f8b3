"""FFHQ and CelebA-HQ: pictures in (numbered) folders, or one npy file.

FFHQ (T. Karras, S. Laine, T. Aila 2019) is published as 70,000 PNG files in folders of 1,000. The
VDVAE's ``ffhq-256.npy``, uint8 (70000,256,256,3), is what its split counts through; files are taken in
the order of their paths, and it is not published whether the two orders agree. Of 70,000 the last
7,000 of the permutation are the validation and the test split at once, as published: whatever is
chosen by validation scores has seen the test pictures.

CelebA-HQ (T. Karras, T. Aila, S. Laine, J. Lehtinen 2018), 30,000 pictures, has no published split.
It is also read as it lies in CelebAMask-HQ (C.-H. Lee, Z. Liu, L. Wu, P. Luo 2020).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from condvae.data.arrays import check_pictures, stream_npy
from condvae.data.config import DataConfig
from condvae.data.formats.files import FileSource, find_pictures
from condvae.data.formats.shards import Shard, ShardSource
from condvae.data.formats.source import ImageSource, source_folder
from condvae.data.splits import OfficialSplit, assign_official, official_split

__all__ = ["open_faces"]

ARRAYS = {"ffhq": "ffhq-256.npy"}
# CelebAMask-HQ holds CelebA-HQ's pictures; beside them lie masks, which are pictures too.
FOLDERS = {"celebahq": "CelebAMask-HQ/CelebA-HQ-img"}


def open_faces(config: DataConfig) -> ImageSource:
    """Open `config.path`: an npy file, a folder with the official one, or a folder of pictures.

    Raises:
        ConfigurationError: Nothing of that kind is there, or the array does not hold pictures.
    """
    path = Path(str(config.path))
    if path.is_file():
        return _open_array(config, path)
    folder = source_folder(config, FOLDERS.get(config.source))
    if config.source in ARRAYS and (folder / ARRAYS[config.source]).is_file():
        return _open_array(config, folder / ARRAYS[config.source])
    names, aside = find_pictures(folder)
    return FileSource(
        folder,
        names,
        skip_unreadable=config.unreadable == "skip",
        split=_split(config, len(names)),
        aside=aside,
    )


def _open_array(config: DataConfig, path: Path) -> ImageSource:
    with stream_npy(path) as images:
        check_pictures(images, str(path))
        count = images.shape[0]

    def read(rows: Sequence[int]) -> Iterator[npt.NDArray[np.uint8]]:
        with stream_npy(path) as images:
            for _, pixels in images.rows(rows):
                yield pixels

    shard = Shard(path.name, count, read)
    return ShardSource(path.parent, [shard], split=_split(config, count))


def _split(config: DataConfig, count: int) -> OfficialSplit | None:
    if config.split != "official":
        return None
    return assign_official(official_split(config.source, [count]), count)
