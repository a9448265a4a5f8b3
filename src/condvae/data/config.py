"""Which images a run works on, and how they are brought to one shape."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from condvae.ground.configuration import (
    ConfigurationError,
    check_choice,
    check_positive,
    check_seed,
)

__all__ = [
    "DUPLICATE_RULES",
    "FITS",
    "OFFICIAL_SOURCES",
    "SIDE_INFORMATION_SOURCES",
    "SOURCE_NAMES",
    "DataConfig",
]

# Those with a published split.
OFFICIAL_SOURCES = (
    *("mnist", "fashion_mnist", "cifar10", "imagenet32", "imagenet64", "ffhq", "celeba"),
    *("edges2shoes", "edges2handbags", "chest_xray14"),
)
SOURCE_NAMES = (
    *("digits", "photographs", "npz", "image_folder", "webdataset", "celebahq"),
    *OFFICIAL_SOURCES,
)
# What is known of the images besides pixels; npz files, folders and shards may have it or not.
SIDE_INFORMATION_SOURCES = {
    "labels": (
        *("digits", "npz", "image_folder", "webdataset", "mnist", "fashion_mnist", "cifar10"),
        *("imagenet32", "imagenet64"),
    ),
    "attributes": ("npz", "celeba", "chest_xray14"),
    "paired": ("edges2shoes", "edges2handbags"),
}
FITS = ("pad", "resize")
DUPLICATE_RULES = ("drop", "keep", "stop")


@dataclass(frozen=True)
class DataConfig:
    """Parameters of a data set.

    Attributes:
        name: Name of the data set; also the name of its folder, so a plain file name.
        source: ``digits`` (bundled with scikit-learn), ``photographs`` (square patches of pictures of
            any size), ``npz``, ``image_folder``, ``webdataset`` (tar shards), or a known data set in
            its official layout, see `condvae.data.formats`.
        path: The file or folder that holds the pictures; needed by every source but ``digits`` and
            ``photographs``, which is scikit-learn's two photographs without it. Of ``webdataset`` also
            an address, ``https://host/train-{0000..0099}.tar``.
        image_size: Height and width of the stored images, in pixels.
        channels: 1 or 3. Colour becomes grey by ITU-R 601 luma, grey becomes three equal channels.
        fit: ``pad`` centres a picture on a black canvas; ``resize`` brings its short side to
            `image_size` and cuts out the centre. Digits and patches are always resized.
        crop: Side of the square that is cut out of the centre of each picture first, `None` for the
            whole picture. Not for ``photographs``.
        limit: Size of a random subset of the source, `None` for all. Duplicates and unreadable
            pictures are dropped from the subset, so fewer images may remain.
        split: ``random`` (by content, seed and the two shares; of patches by the content of their
            photograph), or ``official``: the published one, whatever the shares and the seed.
        validation_share: Expected share of images in the validation split, in (0, 1).
        test_share: Expected share of images in the test split, in (0, 1).
        seed: Of the subset and of the split.
        unreadable: ``stop`` at a picture that cannot be read, or ``skip`` it and say so in the log.
        duplicates: ``drop`` a picture that is identical to an earlier one, ``keep`` both, or ``stop``
            with an error. `None` = ``drop`` from a random split and ``keep`` in an official one, whose
            lists would not be the published ones otherwise. All are counted and logged.
        accept_licence: Consent to the terms of a restricted data set.
        allow_unpinned: Accept fetched files whose hash nobody has stated yet, and pin them. The two
            decide what may be done, not what comes out: configurations that differ in nothing else
            are equal.
    """

    name: str = "digits"
    source: str = "digits"
    path: str | None = None
    image_size: int = 16
    channels: int = 1
    fit: str = "pad"
    crop: int | None = None
    limit: int | None = None
    split: str = "random"
    validation_share: float = 0.1
    test_share: float = 0.2
    seed: int = 0
    unreadable: str = "stop"
    duplicates: str | None = None
    accept_licence: bool = field(default=False, compare=False)
    allow_unpinned: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w.-]*", self.name):
            raise ConfigurationError(
                f"name = {self.name!r}: expected letters, digits, '_', '-' and '.' only, "
                "because it names a folder"
            )
        check_choice("source", self.source, SOURCE_NAMES)
        if self.source == "digits" and self.path is not None:
            raise ConfigurationError(
                f"path = {self.path!r}: source 'digits' is bundled and takes no path "
                "(did you mean another source?)"
            )
        bundled = self.source == "digits" or (self.source == "photographs" and self.path is None)
        if not bundled and not self.path:
            raise ConfigurationError(f"path = {self.path!r}: source {self.source!r} needs a path")
        check_positive("image_size", self.image_size)
        check_choice("channels", self.channels, (1, 3))
        check_choice("fit", self.fit, FITS)
        if self.crop is not None:
            check_positive("crop", self.crop)
            if self.source == "photographs":
                raise ConfigurationError(
                    f"crop = {self.crop!r}: source 'photographs' cuts patches of its own; expected null"
                )
        if self.limit is not None:
            check_positive("limit", self.limit)
        check_positive("validation_share", self.validation_share)
        check_positive("test_share", self.test_share)
        if self.validation_share + self.test_share >= 1:
            raise ConfigurationError(
                f"validation_share + test_share = {self.validation_share + self.test_share:g}: "
                "expected less than 1, the rest is for training"
            )
        check_seed("seed", self.seed)
        check_choice("unreadable", self.unreadable, ("stop", "skip"))
        check_choice("split", self.split, ("random", "official"))
        if self.split == "official" and self.source not in OFFICIAL_SOURCES:
            raise ConfigurationError(
                f"split = 'official': source {self.source!r} has no published split; expected "
                f"random, or one of {', '.join(OFFICIAL_SOURCES)}"
            )
        if self.duplicates is not None:
            check_choice("duplicates", self.duplicates, DUPLICATE_RULES)

    @property
    def duplicate_rule(self) -> str:
        """What is done with identical pictures: ``drop``, ``keep`` or ``stop``."""
        return self.duplicates or ("keep" if self.split == "official" else "drop")
