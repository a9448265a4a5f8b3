"""Which images a run works on, and how they are brought to one shape."""

from __future__ import annotations

import re
from dataclasses import dataclass

from condvae.configuration import ConfigurationError, check_choice, check_positive

__all__ = ["FITS", "SOURCE_NAMES", "DataConfig"]

SOURCE_NAMES = ("digits", "npz", "image_folder")
FITS = ("pad", "resize")


@dataclass(frozen=True)
class DataConfig:
    """Parameters of a data set.

    Attributes:
        name: Name of the data set; also the name of its folder, so a plain file name.
        source: ``digits`` (bundled with scikit-learn), ``npz`` or ``image_folder``.
        path: The npz file or the folder of images; needed by those two sources only.
        image_size: Height and width of the stored images, in pixels.
        channels: 1 or 3. Colour becomes grey by ITU-R 601 luma, grey becomes three equal channels.
        fit: ``pad`` centres a picture on a black canvas; ``resize`` brings its short side to
            `image_size` and cuts out the centre. Digits are always resized.
        limit: Size of a random subset of the source, `None` for all. Duplicates and unreadable
            pictures are dropped from the subset, so fewer images may remain.
        validation_share: Expected share of images in the validation split, in (0, 1).
        test_share: Expected share of images in the test split, in (0, 1).
        seed: Of the subset and of the split.
        unreadable: ``stop`` at a picture that cannot be read, or ``skip`` it and say so in the log.
    """

    name: str = "digits"
    source: str = "digits"
    path: str | None = None
    image_size: int = 16
    channels: int = 1
    fit: str = "pad"
    limit: int | None = None
    validation_share: float = 0.1
    test_share: float = 0.2
    seed: int = 0
    unreadable: str = "stop"

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
                "(did you mean source npz or image_folder?)"
            )
        if self.source != "digits" and not self.path:
            raise ConfigurationError(f"path = {self.path!r}: source {self.source!r} needs a path")
        check_positive("image_size", self.image_size)
        check_choice("channels", self.channels, (1, 3))
        check_choice("fit", self.fit, FITS)
        if self.limit is not None:
            check_positive("limit", self.limit)
        check_positive("validation_share", self.validation_share)
        check_positive("test_share", self.test_share)
        if self.validation_share + self.test_share >= 1:
            raise ConfigurationError(
                f"validation_share + test_share = {self.validation_share + self.test_share:g}: "
                "expected less than 1, the rest is for training"
            )
        check_positive("seed", self.seed, zero=True)
        check_choice("unreadable", self.unreadable, ("stop", "skip"))
