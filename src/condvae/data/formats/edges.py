"""Edges to shoes and to handbags: a drawing on the left, its photo on the right of each picture.

The folders ``train`` and ``val`` (P. Isola, J.-Y. Zhu, T. Zhou, A. Efros 2017) hold 49,825 and 200
pictures of 512x256 for shoes, 138,567 and 200 for handbags. The photo is the image, the drawing its
condition. ``val`` is the test split; 5,000 of ``train``, whose files are taken in the order of their
paths, are the validation split (W. Harvey, S. Naderiparizi, F. Wood 2022).
"""

from __future__ import annotations

from condvae.data.config import DataConfig
from condvae.data.formats.files import FileSource, find_pictures
from condvae.data.formats.source import ImageSource, source_folder
from condvae.data.splits import assign_official, official_split

__all__ = ["open_edges"]


def open_edges(config: DataConfig) -> ImageSource:
    """Open the two folders in `config.path`, training pictures first.

    Raises:
        ConfigurationError: A folder is missing or empty.
    """
    folder = source_folder(config, config.source)
    train, val = find_pictures(folder, "train"), find_pictures(folder, "val")
    counts = [len(train.names), len(val.names)]
    split = None
    if config.split == "official":
        split = assign_official(official_split(config.source, counts), sum(counts))
    return FileSource(
        folder,
        train.names + val.names,
        skip_unreadable=config.unreadable == "skip",
        split=split,
        side_by_side=True,
        aside=train.aside | val.aside,
    )
