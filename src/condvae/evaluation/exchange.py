"""Cases for other systems and their completions back: pictures in folders, or one array.

`export_cases` writes what another system needs to complete our cases, and no more: the truth behind
a mask stays here. `FileSource` reads what it made of them.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from condvae.data.canvas import convert_channels
from condvae.evaluation.cases import EvaluationCase, write_cases
from condvae.ground.configuration import ConfigurationError
from condvae.ground.files import fingerprint, open_atomic, sha256_of_file
from condvae.ground.images import check_scale, odd_values, to_nchw
from condvae.ground.pictures import read_picture

__all__ = ["MANIFEST", "FileSource", "export_cases"]

log = logging.getLogger(__name__)

MANIFEST = "cases.jsonl"
_MOST_NAMED = 5
_LOOKED_AT = 8  # cases whose values say what scale all are on
_READ_ME = """\
{count} cases of {size} x {size} pixels, {channels} channel(s).

<case_id>/observed.png   the picture with its hole filled in black
<case_id>/mask.png       the hole in white, what is observed in black
{manifest}              the cases

Give back, for every case, equally many completions of {size} x {size} pixels:
either <case_id>/0.png, 1.png, ... in a folder with a copy of {manifest}, or one
.npz file with the arrays samples (S,N,H,W,C) uint8, case_ids (N) and manifest, the
sha256 of {manifest} as text. Then run

    kedro run --pipeline=score --params=score.samples=PATH,score.name=NAME
"""


def export_cases(
    folder: str | Path, cases: Sequence[EvaluationCase], truths: Iterable[NDArray[np.uint8]]
) -> str:
    """Write every case as a picture with a hole and its mask, and the manifest last.

    Args:
        folder: Made when missing.
        cases: N cases.
        truths: Their N pictures, uint8 (H,W,C), taken one at a time; hidden pixels are written as 0.

    Returns:
        Hexadecimal sha256 of the manifest.

    Raises:
        ValueError: Another number of pictures than of cases.
    """
    folder = Path(folder)
    shape: tuple[int, ...] = ()
    for case, truth in zip(cases, truths, strict=True):
        shape = truth.shape
        _write_png(folder / case.case_id / "observed.png", truth * case.mask[..., None])
        _write_png(folder / case.case_id / "mask.png", np.where(case.mask, 0, 255)[..., None])
    text = _READ_ME.format(count=len(cases), size=shape[0], channels=shape[2], manifest=MANIFEST)
    with open_atomic(folder / "README.txt") as file:
        file.write(text.encode())
    return write_cases(folder / MANIFEST, cases)


def _write_png(path: Path, pixels: NDArray[np.generic]) -> None:
    content = BytesIO()
    values = pixels.astype(np.uint8)
    Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values).save(content, "png")
    with open_atomic(path) as file:
        file.write(content.getvalue())


class FileSource:
    """Completions made by another system.

    Args:
        path: A folder with ``<case_id>/<k>.png``, k = 0, 1, ..., or an ``.npz`` file with
            ``samples`` (S,N,H,W,C) uint8 and ``case_ids`` (N), which is held in memory. The manifest
            they were made for lies in the folder, or that of the file, as ``cases.jsonl``; an
            ``.npz`` file may have its sha256 as ``manifest`` instead.
        cases: The cases of the manifest; every one needs completions, as many as the others.
        size: Side of the pictures in pixels.
        channels: C of the pictures; grey pictures are taken for colour ones and the other way
            round only when nothing is lost.
        sha256: Of the manifest of `cases`.
        manifest: Where the manifest of the completions lies, when elsewhere.

    Raises:
        ConfigurationError: Nothing there, or nothing that says for which manifest the completions were
            made, or made for another (case ids do not tell manifests apart); cases without
            completions, other numbers or sizes; the message names the first few.
    """

    def __init__(
        self,
        path: str | Path,
        cases: Sequence[EvaluationCase],
        size: int,
        channels: int,
        *,
        sha256: str,
        manifest: str | Path | None = None,
    ) -> None:
        self.path = Path(path)
        self._shape = (size, size, channels)
        ids = [case.case_id for case in cases]
        proof = self.path / MANIFEST if self.path.is_dir() else self.path.with_name(MANIFEST)
        proof = proof if manifest is None else Path(manifest)
        if self.path.is_dir():
            _check_manifest(self.path, proof, sha256)
            self._files = _find_files(self.path, ids)
            self._array: NDArray[np.uint8] | None = None
            self.completions = len(self._files[0])
            hashes = [[sha256_of_file(file) for file in files] for files in self._files]
        elif self.path.is_file():
            arrays = _read_arrays(self.path)
            stated = arrays.get("manifest") if manifest is None else None
            _check_manifest(self.path, proof, sha256, None if stated is None else str(stated))
            self._array, self._order = _order_array(self.path, arrays, ids, self._shape)
            self.completions = len(self._array)
            hashes = [[sha256_of_file(self.path)]]
        else:
            raise ConfigurationError(f"{self.path}: no such file or folder of completions")
        if self.completions < 2:
            raise ConfigurationError(
                f"{self.path}: {self.completions} completion per case; diversity and calibration "
                "need at least 2"
            )
        self.identity = fingerprint({"samples": hashes})
        first = np.stack([pixels for pixels in self._first_cases(len(cases))])
        if first.max() <= 1 and self._array is not None:
            first = self._array  # all of them: a few may be dark
        check_scale(int(first.max()), str(self.path))
        for odd in odd_values(first.reshape(-1, *first.shape[-3:]), f"{self.path}, first cases"):
            log.warning("%s", odd)

    def _first_cases(self, count: int) -> Iterator[NDArray[np.uint8]]:
        """(S,H,W,C) of the first cases, enough to see what scale they are on."""
        for case in range(min(count, _LOOKED_AT)):
            if self._array is not None:
                yield self._array[:, self._order[case]]
            else:
                yield np.stack([self._read(file) for file in self._files[case]])

    def draw(self, start: int, stop: int) -> Tensor:
        """uint8 (S,B,C,H,W) as they were made."""
        if self._array is not None:
            chosen = self._array[:, self._order[start:stop]]
        else:
            rows = [[self._read(f) for f in files] for files in self._files[start:stop]]
            chosen = np.stack([np.stack(row) for row in rows], axis=1)
        flat = torch.from_numpy(np.ascontiguousarray(chosen)).flatten(0, 1)
        pixels = to_nchw(flat)
        return pixels.reshape(*chosen.shape[:2], *pixels.shape[1:])

    def bound(self, start: int, stop: int) -> None:
        """Files have no likelihood."""
        del start, stop

    def _read(self, file: Path) -> NDArray[np.uint8]:
        pixels = read_picture(file)
        found = pixels if pixels.ndim == 3 else pixels[..., None]
        if self._shape[2] == 1 and found.shape[2] == 3 and (found == found[..., :1]).all():
            found = found[..., :1]
        if self._shape[2] == 3:
            found = convert_channels(found, 3)
        if found.shape != self._shape:
            raise ConfigurationError(
                f"{file}: picture of shape {found.shape} (height, width, channels); expected "
                f"{self._shape}"
            )
        return found


def _check_manifest(path: Path, proof: Path, expected: str, stated: str | None = None) -> None:
    """Refuse completions that were made for another manifest, by `stated` or the file `proof`."""
    if stated is None and not proof.is_file():
        raise ConfigurationError(
            f"{path}: nothing says for which cases these completions were made. Expected the "
            f"{MANIFEST} of the export as {proof}, its path as score.manifest, or its sha256 as the "
            "array manifest of an .npz file"
        )
    found = sha256_of_file(proof) if stated is None else stated
    if found != expected:
        raise ConfigurationError(
            f"{path}: these completions were made for the cases of sha256 {found}, the cases to score "
            f"have sha256 {expected}. Export the cases again, or set evaluation.seed, score.size, "
            "masks and data back to those of the export"
        )


def _find_files(folder: Path, ids: Sequence[str]) -> list[list[Path]]:
    """The files of every case in the order of k."""
    found: list[list[Path]] = []
    for case_id in ids:
        files = {int(f.stem): f for f in (folder / case_id).glob("*.png") if f.stem.isdecimal()}
        found.append([files[k] for k in sorted(files)])
        if sorted(files) != list(range(len(files))):
            raise ConfigurationError(
                f"{folder / case_id}: completions {sorted(files)}; expected 0.png, 1.png, ... "
                "without gaps"
            )
    counts = [len(files) for files in found]
    if 0 in counts:
        missing = [case_id for case_id, count in zip(ids, counts, strict=True) if count == 0]
        raise ConfigurationError(
            f"{folder}: no completions of {len(missing)} of {len(ids)} cases: {_listed(missing)}; "
            "expected <case_id>/0.png, 1.png, ..."
        )
    if len(set(counts)) > 1:
        fewest = ids[int(np.argmin(counts))]
        raise ConfigurationError(
            f"{folder}: {min(counts)} to {max(counts)} completions per case (fewest: {fewest}); "
            "expected the same number of every case"
        )
    return found


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive}
    # TypeError: a single array is no archive.
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise ConfigurationError(f"{path}: cannot be read as an .npz file ({error})") from error


def _order_array(
    path: Path,
    arrays: Mapping[str, NDArray[Any]],
    ids: Sequence[str],
    shape: tuple[int, int, int],
) -> tuple[NDArray[np.uint8], list[int]]:
    """uint8 (S,M,H,W,C) as it is in the file, and which of the M each of `ids` is."""
    missing = [name for name in ("samples", "case_ids") if name not in arrays]
    if missing:
        raise ConfigurationError(
            f"{path}: no array {', '.join(missing)}; expected samples (S,N,H,W,C) uint8 "
            f"and case_ids (N), found {', '.join(arrays) or 'nothing'}"
        )
    samples, names = arrays["samples"], [str(name) for name in arrays["case_ids"]]
    expected = (len(names), *shape)
    if samples.dtype != np.uint8 or samples.shape[1:] != expected:
        raise ConfigurationError(
            f"{path}: samples are {samples.dtype} of shape {samples.shape}; expected uint8 (S, "
            f"{', '.join(map(str, expected))})"
        )
    place = {name: index for index, name in enumerate(names)}
    if len(place) < len(names):
        raise ConfigurationError(f"{path}: case_ids repeat: expected a different one for each case")
    lacking = [case_id for case_id in ids if case_id not in place]
    if lacking:
        raise ConfigurationError(
            f"{path}: no completions of {len(lacking)} of {len(ids)} cases: {_listed(lacking)}"
        )
    return samples, [place[case_id] for case_id in ids]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST_NAMED]) + (", ..." if len(names) > _MOST_NAMED else "")
