"""Any folder of pictures."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from condvae.data.config import DataConfig
from condvae.data.formats.files import NAMED_IN_ERRORS, FileSource, find_pictures
from condvae.data.formats.source import ImageSource, source_folder

__all__ = ["open_image_folder"]

logger = logging.getLogger(__name__)


def open_image_folder(config: DataConfig) -> ImageSource:
    """All images below a folder, sorted by path; sub-folders are classes when they look like it.

    They do when there are at least two and every image is exactly one folder down.

    Raises:
        ConfigurationError: No such folder, or no images in it.
    """
    folder = source_folder(config)
    names, aside = find_pictures(folder)
    classes = _find_classes(names, folder)
    label = {name: i for i, name in enumerate(classes)}
    return FileSource(
        folder,
        names,
        skip_unreadable=config.unreadable == "skip",
        class_names=classes,
        labels=[label[name.split("/")[0]] for name in names] if classes else None,
        aside=aside,
        classes_are_folders=True,
    )


def _find_classes(names: Sequence[str], folder: Path) -> tuple[str, ...]:
    """Names of the class folders, () unless every image is exactly one folder down."""
    classes = tuple(sorted({name.split("/")[0] for name in names if name.count("/") == 1}))
    strays = [name for name in names if name.count("/") != 1]
    if strays and len(classes) >= 2:
        logger.warning(
            "%s: %d folders of pictures are taken for no classes, as %d pictures are not exactly one "
            "folder down (%s%s)",
            *(folder, len(classes), len(strays), ", ".join(strays[:NAMED_IN_ERRORS])),
            ", ..." if len(strays) > NAMED_IN_ERRORS else "",
        )
    return classes if len(classes) >= 2 and not strays else ()
