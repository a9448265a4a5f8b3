"""Any folder of pictures."""

from __future__ import annotations

from collections.abc import Sequence

from condvae.data.config import DataConfig
from condvae.data.formats.files import FileSource, find_pictures
from condvae.data.formats.source import ImageSource, source_folder

__all__ = ["open_image_folder"]


def open_image_folder(config: DataConfig) -> ImageSource:
    """All images below a folder, sorted by path; sub-folders are classes when they look like it.

    They do when there are at least two and every image is exactly one folder down.

    Raises:
        ConfigurationError: No such folder, or no images in it.
    """
    folder = source_folder(config)
    names = find_pictures(folder)
    classes = _find_classes(names)
    label = {name: i for i, name in enumerate(classes)}
    return FileSource(
        folder,
        names,
        skip_unreadable=config.unreadable == "skip",
        class_names=classes,
        labels=[label[name.split("/")[0]] for name in names] if classes else None,
    )


def _find_classes(names: Sequence[str]) -> tuple[str, ...]:
    """Names of the class folders, () unless every image is exactly one folder down."""
    if any(name.count("/") != 1 for name in names):
        return ()
    classes = tuple(sorted({name.split("/")[0] for name in names}))
    return classes if len(classes) >= 2 else ()
