"""Evaluation cases: which image is completed behind which mask, fixed in a file with a hash.

The file is JSON lines. The first line says format, version, size of the masks and number of cases;
each further line is one case, its mask written as run lengths.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from condvae.ground.configuration import ConfigurationError, check_positive
from condvae.ground.files import open_atomic
from condvae.masks.kinds import OBSERVED_BINS, Mask, bin_of, decode_runs, encode_runs
from condvae.masks.sampling import MaskConfig, draw_mask_in_bin, usable_bins

__all__ = [
    "EvaluationCase",
    "build_cases",
    "build_cases_of_every_image",
    "read_cases",
    "write_cases",
]

_FORMAT = "condvae-evaluation-cases"
_VERSION = 1
_HEADER = {"format": str, "version": int, "size": int, "count": int}
_RECORD = {
    "case_id": str,
    "image_id": int,
    "image_sha256": str,
    "mask": list,
    "seed": int,
    "bin": int,
}


@dataclass(frozen=True, eq=False)
class EvaluationCase:
    """One image behind one mask.

    Attributes:
        case_id: Unique name, the same for ever; completions draw their noise from it.
        image_id: Row of the image in the image store.
        image_sha256: Hash of the image's pixels, to notice a store that has changed.
        mask: bool (H,W), True = observed; read-only.
        seed: Seed of the case's completions.
        bin: Index in `condvae.masks.kinds.OBSERVED_BINS`.
    """

    case_id: str
    image_id: int
    image_sha256: str
    mask: Mask
    seed: int
    bin: int

    def __post_init__(self) -> None:
        name = f"case {self.case_id!r}"
        if not self.case_id:
            raise ConfigurationError("case_id is empty: expected a unique name")
        if self.image_id < 0 or self.seed < 0:
            raise ConfigurationError(
                f"{name}: image_id {self.image_id} and seed {self.seed}: expected >= 0"
            )
        if not re.fullmatch("[0-9a-f]{64}", self.image_sha256):
            raise ConfigurationError(
                f"{name}: image_sha256 {self.image_sha256!r}: expected 64 hexadecimal digits"
            )
        if self.mask.dtype != np.bool_ or self.mask.ndim != 2:
            raise ConfigurationError(
                f"{name}: mask of type {self.mask.dtype} and shape {self.mask.shape}: "
                "expected bool (H, W)"
            )
        if self.mask.all():
            raise ConfigurationError(f"{name}: the mask hides nothing, there is nothing to predict")
        if self.bin != bin_of(self.observed_share):
            raise ConfigurationError(
                f"{name}: bin {self.bin} for an observed share of {self.observed_share:.4f}: "
                f"expected bin {bin_of(self.observed_share)}"
            )
        mask = self.mask.copy()
        mask.setflags(write=False)
        object.__setattr__(self, "mask", mask)

    @property
    def observed_share(self) -> float:
        """Share of observed pixels, 0 to 1."""
        return float(self.mask.mean())


def build_cases(
    image_rows: Sequence[int],
    image_sha256: Sequence[str],
    size: int,
    mask_config: MaskConfig,
    *,
    per_bin: int,
    seed: int,
    prefix: str = "q",
) -> tuple[EvaluationCase, ...]:
    """Choose images and draw masks, the same number in every bin of the observed share.

    Images are taken without replacement: none twice in a bin and none more than once more often
    than another, as long as there are enough of them. The bins alternate, so any first part of
    the cases is balanced over them too. Masks that are not stratified and leave bins out share the
    cases of these among the others: a task without masks has all cases in the first.

    Args:
        image_rows: Rows in the image store to choose from, no two the same.
        image_sha256: Hash of each of these images.
        size: Side of the masks in pixels.
        mask_config: Kinds and weights of masks.
        per_bin: A fifth of the number of cases.
        seed: Seed of the choice; the same arguments give the same cases.
        prefix: Start of the case ids, ``q`` in ``q-00012``.

    Returns:
        5 * per_bin cases.

    Raises:
        ConfigurationError: No images, repeated rows, or a bin that no kind of mask reaches.
    """
    rows = _checked_rows(image_rows, image_sha256)
    check_positive("per_bin", per_bin)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(rows)).tolist()
    bins, count = usable_bins(mask_config, size), len(OBSERVED_BINS) * per_bin
    # Bin by bin around one shuffled circle: as many neighbours on it are all different.
    turns = -(-count // len(bins))
    chosen = [
        (order[(place * turns + turn) % len(rows)], index)
        for turn in range(turns)
        for place, index in enumerate(bins)
    ][:count]
    return _draw_cases(chosen, rows, image_sha256, size, mask_config, rng, prefix)


def build_cases_of_every_image(
    image_rows: Sequence[int],
    image_sha256: Sequence[str],
    size: int,
    mask_config: MaskConfig,
    *,
    masks_per_image: int,
    seed: int,
    prefix: str = "f",
) -> tuple[EvaluationCase, ...]:
    """Take every image behind several masks, each of another bin of the observed share.

    The bins go around in a circle, so that they differ in size by one case at most; the images come
    in random order. Masks that are not stratified and leave bins out give every image as many masks
    as there are bins at most: one for a task without masks.

    Args:
        image_rows: Rows in the image store, no two the same.
        image_sha256: Hash of each of these images.
        size: Side of the masks in pixels.
        mask_config: Kinds and weights of masks.
        masks_per_image: 1 to 5.
        seed: Seed of order and masks; the same arguments give the same cases.
        prefix: Start of the case ids.

    Returns:
        len(image_rows) * masks_per_image cases at most, those of one image one after another.

    Raises:
        ConfigurationError: No images, repeated rows, another number of masks, or a bin that no kind
            of mask reaches.
    """
    rows = _checked_rows(image_rows, image_sha256)
    most = len(OBSERVED_BINS)
    if not 1 <= masks_per_image <= most:
        raise ConfigurationError(
            f"masks_per_image = {masks_per_image!r}: expected 1 to {most}, one per bin at most"
        )
    bins = usable_bins(mask_config, size)
    masks_per_image = min(masks_per_image, len(bins))
    rng = np.random.default_rng(seed)
    order = np.repeat(rng.permutation(len(rows)), masks_per_image).tolist()
    chosen = [(image, bins[number % len(bins)]) for number, image in enumerate(order)]
    return _draw_cases(chosen, rows, image_sha256, size, mask_config, rng, prefix)


def _checked_rows(image_rows: Sequence[int], image_sha256: Sequence[str]) -> list[int]:
    """The rows as integers.

    Raises:
        ConfigurationError: No rows, repeated rows, or another number of hashes.
    """
    rows = [int(row) for row in image_rows]
    if not rows or len(set(rows)) != len(rows) or len(image_sha256) != len(rows):
        raise ConfigurationError(
            f"{len(rows)} image rows ({len(set(rows))} different) and {len(image_sha256)} hashes: "
            "expected at least one row, all different, and a hash for each"
        )
    return rows


def _draw_cases(
    chosen: Sequence[tuple[int, int]],
    rows: Sequence[int],
    image_sha256: Sequence[str],
    size: int,
    mask_config: MaskConfig,
    rng: np.random.Generator,
    prefix: str,
) -> tuple[EvaluationCase, ...]:
    """One case for each pair of image number and bin."""
    return tuple(
        EvaluationCase(
            case_id=f"{prefix}-{number:05d}",
            image_id=rows[image],
            image_sha256=image_sha256[image],
            mask=draw_mask_in_bin(mask_config, size, index, rng),
            seed=int(rng.integers(2**31)),
            bin=index,
        )
        for number, (image, index) in enumerate(chosen)
    )


def write_cases(path: str | os.PathLike[str], cases: Sequence[EvaluationCase]) -> str:
    """Write cases as JSON lines, atomically.

    Args:
        path: File to write.
        cases: At least one, with different ids and masks of one size.

    Returns:
        Hexadecimal sha256 of the file's bytes.

    Raises:
        ConfigurationError: No cases, repeated ids, or masks of several sizes.
    """
    shapes = {case.mask.shape for case in cases}
    if len(shapes) != 1 or len({side for shape in shapes for side in shape}) != 1:
        raise ConfigurationError(f"masks of shapes {sorted(shapes)}: expected one square size")
    if len({case.case_id for case in cases}) != len(cases):
        raise ConfigurationError("case ids repeat: expected a different one for each case")
    header = {
        "format": _FORMAT,
        "version": _VERSION,
        "size": cases[0].mask.shape[0],
        "count": len(cases),
    }
    records = [
        {key: getattr(case, key) for key in _RECORD} | {"mask": encode_runs(case.mask)}
        for case in cases
    ]
    lines = [json.dumps(record, separators=(",", ":")) for record in (header, *records)]
    content = ("\n".join(lines) + "\n").encode()
    with open_atomic(path) as file:
        file.write(content)
    return hashlib.sha256(content).hexdigest()


def read_cases(
    path: str | os.PathLike[str], expected_sha256: str | None = None
) -> tuple[EvaluationCase, ...]:
    """Read the cases that `write_cases` wrote.

    Args:
        path: File to read.
        expected_sha256: Hash the file must have, `None` to take it as it is.

    Returns:
        The cases in the order of the file.

    Raises:
        ConfigurationError: Another hash, or a line that is not a valid case; the message names
            file and line.
    """
    path = Path(path)
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if expected_sha256 is not None and found != expected_sha256:
        raise ConfigurationError(f"{path}: sha256 is {found}, expected {expected_sha256}")
    lines = content.splitlines()
    header = _read_line(lines[0] if lines else b"", _HEADER, f"{path}, line 1")
    if (header["format"], header["version"]) != (_FORMAT, _VERSION):
        raise ConfigurationError(
            f"{path}, line 1: format {header['format']!r} version {header['version']}: "
            f"expected {_FORMAT!r} version {_VERSION}"
        )
    if header["count"] != len(lines) - 1:
        raise ConfigurationError(
            f"{path}: {len(lines) - 1} cases, line 1 announces {header['count']}"
        )
    cases: dict[str, EvaluationCase] = {}
    for number, line in enumerate(lines[1:], start=2):
        where = f"{path}, line {number}"
        record = _read_line(line, _RECORD, where)
        try:
            record["mask"] = decode_runs(record["mask"], header["size"])
            case = EvaluationCase(**record)
        except ConfigurationError as error:
            raise ConfigurationError(f"{where}: {error}") from None
        if case.case_id in cases:
            raise ConfigurationError(f"{where}: case_id {case.case_id!r} was used before")
        cases[case.case_id] = case
    return tuple(cases.values())


def _read_line(line: bytes, fields: dict[str, type], where: str) -> dict[str, Any]:
    """Parse one JSON object and check that it has these keys and types, no more and no less."""
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ConfigurationError(f"{where}: not JSON ({error})") from None
    if not isinstance(record, dict) or set(record) != set(fields):
        keys = sorted(record) if isinstance(record, dict) else type(record).__name__
        raise ConfigurationError(f"{where}: {keys}: expected the keys {sorted(fields)}")
    for key, kind in fields.items():
        if type(record[key]) is not kind:
            raise ConfigurationError(f"{where}: {key} = {record[key]!r}: expected {kind.__name__}")
    return record
