"""One's own pictures and masks: found, checked, brought to the model's canvas."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from condvae.completion.config import CompletionSettings
from condvae.completion.geometry import Placement, fill_hole
from condvae.data.canvas import convert_channels, fit_to_canvas
from condvae.data.formats.files import EXTENSIONS, is_text, list_pictures
from condvae.ground.configuration import ConfigurationError
from condvae.ground.files import sha256_of_file
from condvae.ground.images import DataContract, check_scale, odd_values
from condvae.ground.pictures import read_picture
from condvae.masks.files import POLARITIES, MaskFileError, find_masks, mask_shape, read_mask
from condvae.masks.kinds import Mask

__all__ = [
    "CanvasPicture",
    "PictureFiles",
    "RejectedPicture",
    "check_pictures",
    "find_pictures",
    "left_aside",
    "pair_masks",
    "read_input",
]

logger = logging.getLogger(__name__)

_ENDINGS = (*EXTENSIONS, ".gif")
LARGEST_HOLE = 0.9
"""Share of hidden pixels from which a mask is suspected of the other polarity."""
_MOST_SHOWN = 6


@dataclass(frozen=True)
class PictureFiles:
    """A picture that can be used, by its files.

    Attributes:
        picture: Its file.
        mask: Its mask's file.
        picture_sha256: Of the file's bytes.
        mask_sha256: Of the mask file's bytes.
    """

    picture: Path
    mask: Path
    picture_sha256: str
    mask_sha256: str

    @property
    def name(self) -> str:
        """Name of the results: that of the file without its ending."""
        return self.picture.stem

    @property
    def case_id(self) -> str:
        """What its completions' noise belongs to: nothing but its own bytes and its mask's."""
        return f"{self.picture_sha256[:16]}-{self.mask_sha256[:16]}"


@dataclass(frozen=True)
class RejectedPicture:
    """A picture that cannot be used, and why."""

    picture: Path
    message: str


@dataclass(frozen=True)
class CanvasPicture:
    """A picture as the model sees it.

    Attributes:
        pixels: uint8 (H,W,C), H = W = the model's size; values in the hole are not looked at.
        mask: bool (H,W), True = observed; at least one pixel is not.
        size: Width and height of the upright picture.
        box: Left, top, right and bottom edge of the part seen, in pixels of the upright picture.
        warnings: What a user should know about the way here.
    """

    pixels: NDArray[np.uint8]
    mask: Mask
    size: tuple[int, int]
    box: tuple[float, float, float, float]
    warnings: tuple[str, ...]


def find_pictures(images: Path) -> list[Path]:
    """List the pictures of a folder, sorted by name, or the one file.

    Sub-folders and names with a leading dot are left aside, and what else is no picture.

    Raises:
        ConfigurationError: No such file or folder, no pictures in it, or two that differ in nothing
            but the ending: masks and results go by the name without it.
    """
    images = Path(images)
    if images.is_file():
        _check_names([images])
        return [images]
    if not images.is_dir():
        raise ConfigurationError(f"images = {str(images)!r}: no such file or folder")
    _check_names(images.iterdir())
    listing = list_pictures(images, deep=False, endings=_ENDINGS)
    if listing.aside:
        logger.warning("%s: left aside: %s", images, listing.describe_aside())
    found = [images / name for name in listing.names]
    if not found:
        raise ConfigurationError(
            f"images = {str(images)!r}: no pictures found; expected files ending in "
            f"{', '.join(_ENDINGS)}"
        )
    names: dict[str, Path] = {}
    for path in found:
        # Some file systems do not tell upper from lower case.
        stem = unicodedata.normalize("NFC", path.stem).casefold()
        other = names.setdefault(stem, path)
        if other is not path:
            raise ConfigurationError(
                f"{images}: {other.name} and {path.name} differ in nothing but the ending; masks and "
                "results go by the name without it, rename one"
            )
    return found


def _check_names(paths: Iterable[Path]) -> None:
    """Refuse names that cannot be written into manifest, page and figures."""
    for path in paths:
        if not is_text(path.name):
            raise ConfigurationError(
                f"{str(path)!a}: a file name that is no UTF-8; rename it, or run with PYTHONUTF8=1"
            )


def left_aside(images: Path) -> dict[str, str]:
    """What `find_pictures` does not take -> why, by name; {} of a single file."""
    return list_pictures(images, deep=False, endings=_ENDINGS).aside if images.is_dir() else {}


def pair_masks(
    pictures: Sequence[Path], masks: Path
) -> tuple[list[tuple[Path, Path]], list[RejectedPicture]]:
    """Find the mask of every picture; see `condvae.masks.files.find_masks`.

    Returns:
        Picture and mask in the order of `pictures`, and the pictures that have none or several.

    Raises:
        MaskFileError: `masks` is neither a file nor a folder.
    """
    masks = Path(masks)
    if not masks.exists():
        raise MaskFileError(f"masks = {str(masks)!r}: no such file or folder")
    try:
        files = find_masks(masks, [path.stem for path in pictures])
        return [(path, files[path.stem]) for path in pictures], []
    except MaskFileError as error:
        if len(pictures) == 1:
            return [], [_reject(pictures[0], error)]
    # Halves, not one by one: every search lists the folder.
    middle = len(pictures) // 2
    pairs, rejected = pair_masks(pictures[:middle], masks)
    more_pairs, more_rejected = pair_masks(pictures[middle:], masks)
    return pairs + more_pairs, rejected + more_rejected


def check_pictures(
    images: Path,
    masks: Path,
    contract: DataContract,
    settings: CompletionSettings,
    *,
    on_check: Callable[[int, int], None] | None = None,
) -> tuple[list[PictureFiles], list[RejectedPicture]]:
    """Find all pictures and masks and read every one, so that mistakes show before any work.

    Args:
        images: A folder of pictures or one file.
        masks: One mask for all, or a folder with one per picture by name.
        contract: What the model expects of images.
        settings: `polarity`, `small` and `unreadable`.
        on_check: Called with the numbers of pictures read and to be read.

    Returns:
        Pictures to complete, and those left out, none with ``unreadable: stop``.

    Raises:
        ConfigurationError: See `find_pictures` and `pair_masks`; no picture can be used; or some
            cannot and `unreadable` is ``stop``: the first six are named together.
    """
    found = find_pictures(images)
    pairs, rejected = pair_masks(found, masks)
    usable = []
    mask_sha256: dict[Path, str] = {}
    for number, (picture, mask) in enumerate(pairs, start=1):
        if on_check is not None:
            on_check(number, len(pairs))
        try:
            _read_files(picture, mask, contract, settings)
        except ConfigurationError as error:
            rejected.append(_reject(picture, error))
            continue
        if mask not in mask_sha256:
            mask_sha256[mask] = sha256_of_file(mask)
        usable.append(PictureFiles(picture, mask, sha256_of_file(picture), mask_sha256[mask]))
    rejected.sort(key=lambda one: one.picture)
    if rejected and (settings.unreadable == "stop" or not usable):
        raise ConfigurationError(_listed(rejected, len(found), hint=bool(usable)))
    for one in rejected:
        logger.warning("skipped: %s", one.message)
    return usable, rejected


def read_input(
    picture: Path, mask: Path, contract: DataContract, settings: CompletionSettings
) -> CanvasPicture:
    """Read a picture and its mask and bring both to the model's canvas.

    Pictures of any mode are turned upright and become grey or colour as the model expects; short
    side to the model's size, centre cut out. Observed values do not depend on what is in the hole.

    Args:
        picture: Its file.
        mask: Of the size of the upright picture, which then goes the same way, or of the model's.
        contract: What the model expects of images.
        settings: `polarity` and `small`.

    Raises:
        ConfigurationError: A picture that cannot be read (`UnreadablePictureError`) or is too small,
            a mask that cannot be used (`MaskFileError`).
    """
    original, observed, canvas_mask, placement = _read_files(picture, mask, contract, settings)
    size = placement.width, placement.height
    shown = fit_to_canvas(original, contract.size, "resize")
    filled, reach = original.copy(), placement.reach
    filled[reach] = fill_hole(original[reach], observed[reach])
    fitted = fit_to_canvas(filled, contract.size, "resize")
    warnings = odd_values(original[None], "the picture")
    if placement.enlarges:
        warnings.append(f"enlarged from {size[0]} x {size[1]} pixels: smaller than the model")
    if not canvas_mask.any():
        warnings.append(
            "no pixel of the model is wholly observed: the completions ignore the picture"
            if observed.any()
            else "nothing is observed: the completions ignore the picture"
        )
    hidden = 1 - float(observed.mean())
    if LARGEST_HOLE < hidden < 1:
        warnings.append(
            f"the mask hides {100 * hidden:.0f} % of the picture: if it shows the hole the other way "
            f"round, set polarity to {_other(settings.polarity)}"
        )
    return CanvasPicture(
        np.where(canvas_mask[..., None], fitted, shown),
        canvas_mask,
        size,
        placement.box,
        tuple(warnings),
    )


def _read_files(
    picture: Path, mask: Path, contract: DataContract, settings: CompletionSettings
) -> tuple[NDArray[np.uint8], Mask, Mask, Placement]:
    """The picture, its mask, the mask of the canvas, and where the canvas lies; checked."""
    original = convert_channels(read_picture(picture), contract.channels)
    check_scale(int(original.max()), str(picture))
    placement = Placement(original.shape[0], original.shape[1], contract.size)
    size = placement.width, placement.height
    if placement.enlarges and settings.small == "refuse":
        raise ConfigurationError(
            f"{picture}: picture of {size[0]} x {size[1]} pixels (width x height); the model has "
            f"{contract.size} x {contract.size}, expected a short side of {contract.size} at least; "
            "take a larger picture or set small: enlarge"
        )
    observed, canvas_mask = _read_mask(mask, picture, placement, settings.polarity)
    return original, observed, canvas_mask, placement


def _read_mask(path: Path, picture: Path, placement: Placement, polarity: str) -> tuple[Mask, Mask]:
    """Mask of the picture and mask of the canvas, from a file of either size."""
    shape, canvas = (placement.height, placement.width), (placement.size, placement.size)
    found = mask_shape(path)
    if found is not None and found not in (shape, canvas):
        raise MaskFileError(
            f"{path}: mask of {found[1]} x {found[0]} pixels (width x height); expected "
            f"{shape[1]} x {shape[0]} as {picture.name}, or {canvas[1]} x {canvas[0]} as the model"
        )
    if found == canvas:
        canvas_mask = read_mask(path, canvas, polarity)
        return placement.enlarge_mask(canvas_mask), canvas_mask
    mask = read_mask(path, shape, polarity)
    canvas_mask = placement.shrink_mask(mask)
    if canvas_mask.all():
        left, top, right, bottom = placement.box
        raise MaskFileError(
            f"{path}: the hole lies outside the part of {picture.name} that the model sees (columns "
            f"{left:.0f} to {right:.0f}, rows {top:.0f} to {bottom:.0f} of {shape[1]} x {shape[0]}), "
            "where every pixel is observed; cut the picture around the hole"
        )
    return mask, canvas_mask


def _other(polarity: str) -> str:
    return next(other for other in POLARITIES if other != polarity)


def _reject(picture: Path, error: ConfigurationError) -> RejectedPicture:
    """Name the picture, whatever the message is about."""
    message = str(error)
    return RejectedPicture(
        picture, message if message.startswith(f"{picture}: ") else f"{picture}: {message}"
    )


def _listed(rejected: Sequence[RejectedPicture], count: int, *, hint: bool) -> str:
    lines = [f"{len(rejected)} of {count} pictures cannot be used; nothing was written"]
    lines += [f"  {one.message}" for one in rejected[:_MOST_SHOWN]]
    if len(rejected) > _MOST_SHOWN:
        lines.append(f"  ... and {len(rejected) - _MOST_SHOWN} more")
    if hint:
        lines.append("unreadable: skip goes on without them")
    return "\n".join(lines)
