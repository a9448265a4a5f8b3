"""What is written for one picture: a folder that is whole or absent."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from condvae.completion.config import CompletionSettings
from condvae.completion.inputs import CanvasPicture, PictureFiles
from condvae.completion.modes import Mode
from condvae.ground.configuration import ConfigurationError
from condvae.ground.files import fingerprint, open_atomic, sha256_of_file, write_json
from condvae.plots.image_grid import deviation_ceiling
from condvae.plots.overview import hatch_unobserved, plot_deviation, plot_overview
from condvae.plots.style import png_bytes
from condvae.posterior.guidance import describe_guidance
from condvae.posterior.summaries import quantile_rank

__all__ = [
    "ARRAYS",
    "RECORD",
    "CompletedPicture",
    "check_folder",
    "read_record",
    "result_fingerprint",
    "write_result",
]

FORMAT = 2
RECORD = "record.json"
ARRAYS = "completions.npz"


@dataclass(frozen=True)
class CompletedPicture:
    """Completions of one picture and where they come from.

    Attributes:
        files: The picture and its mask.
        canvas: What the model saw.
        completions: uint8 (S,H,W,C).
        modes: Groups of completions.
        input_check: What was found about the observation.
        warnings: What a user should know about it.
        settings: Of the run.
        model_sha256: Of the model's weights.
        reference_sha256: Of what the input check compared with, see `result_fingerprint`.
        made_with: Versions, device and threads.
    """

    files: PictureFiles
    canvas: CanvasPicture
    completions: NDArray[np.uint8]
    modes: tuple[Mode, ...]
    input_check: str
    warnings: tuple[str, ...]
    settings: CompletionSettings
    model_sha256: str
    reference_sha256: str
    made_with: Mapping[str, Any]


def result_fingerprint(
    files: PictureFiles, settings: CompletionSettings, model_sha256: str, reference_sha256: str
) -> str:
    """Hash of everything that decides a result; batches and treatment of other pictures do not.

    Args:
        files: The picture and its mask.
        settings: Of the run.
        model_sha256: Of the model's weights.
        reference_sha256: Of the card's ``input_reference``, which may come later than the weights.
    """
    return fingerprint(
        {
            "format": FORMAT,
            "picture": files.picture_sha256,
            "mask": files.mask_sha256,
            "model": model_sha256,
            "input_reference": reference_sha256,
            "n": settings.n,
            "seed": settings.seed,
            "temperature": settings.temperature,
            "quantiles": list(settings.quantiles),
            "polarity": settings.polarity,
            "paste_observed": settings.paste_observed,
            # Results from before there was guidance stay valid.
            **describe_guidance(settings.guidance, settings.guidance_rule),
        }
    )


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return the record of a finished result, None when there is none or a file of it is missing."""
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_text())
        whole = all((folder / name).is_file() for name in record["files"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return record if whole else None


def check_folder(folder: Path) -> None:
    """Refuse to replace what was not written here.

    Raises:
        ConfigurationError: `folder` is not a folder of results, or holds other files besides.
    """
    if not folder.exists():
        return
    try:
        own = {*json.loads((folder / RECORD).read_text())["files"], RECORD}
        foreign = [path.name for path in folder.iterdir() if path.name not in own]
        foreign = sorted(name for name in foreign if not name.startswith("."))
    except (OSError, ValueError, TypeError, KeyError):
        raise ConfigurationError(
            f"{folder}: exists and holds no readable {RECORD}, so it was not written by this "
            "command; remove it or choose another output"
        ) from None
    if foreign:
        raise ConfigurationError(
            f"{folder}: would be replaced, but also holds {', '.join(foreign[:3])}, not written by "
            "this command; move that or choose another output"
        )


def write_result(folder: Path, result: CompletedPicture) -> dict[str, Any]:
    """Write a result as a whole: a folder that is there is finished.

    Args:
        folder: An older result there is replaced.
        result: The picture's completions.

    Returns:
        The record, which lists the files with their sha256.

    Raises:
        ConfigurationError: See `check_folder`.
    """
    check_folder(folder)
    settings, canvas = result.settings, result.canvas
    statistics = _Statistics(result.completions, settings)
    part, old = (folder.parent / f".{folder.name}.{ending}" for ending in ("part", "old"))
    for left_over in (part, old):
        shutil.rmtree(left_over, ignore_errors=True)
    for name, content in _draw_files(result, statistics).items():
        with open_atomic(part / name) as file:
            file.write(content)
    record = {
        "format": FORMAT,
        "fingerprint": result_fingerprint(
            result.files, settings, result.model_sha256, result.reference_sha256
        ),
        "made_with": dict(result.made_with),
        "sampled_from": settings.stamp or "the posterior (temperature 1)",
        "case_id": result.files.case_id,
        "picture": {
            "file": result.files.picture.name,
            "sha256": result.files.picture_sha256,
            "width": canvas.size[0],
            "height": canvas.size[1],
            "crop_box": [round(edge, 3) for edge in canvas.box],
        },
        "mask": {
            "file": result.files.mask.name,
            "sha256": result.files.mask_sha256,
            "polarity": settings.polarity,
            "observed_share": float(canvas.mask.mean()),
        },
        "model_sha256": result.model_sha256,
        "n": settings.n,
        "seed": settings.seed,
        "temperature": settings.temperature,
        "guidance": settings.guidance,
        "guidance_rule": settings.guidance_rule,
        "quantiles": list(settings.quantiles),
        "paste_observed": settings.paste_observed,
        "observed_pixels": settings.observed_pixels,
        "standard_deviation": {
            "largest_grey_levels": float(statistics.standard_deviation.max()),
            "brightest_colour_grey_levels": deviation_ceiling([statistics.standard_deviation]),
        },
        "modes": [{"completion": mode.medoid, "share": mode.share} for mode in result.modes],
        "input_check": result.input_check,
        "warnings": list(result.warnings),
        "arrays_sha256": _hash_arrays(part / ARRAYS),
        "files": {path.name: sha256_of_file(path) for path in sorted(part.iterdir())},
    }
    write_json(part / RECORD, record)
    # Renamed, not emptied: at no instant is there a folder of this name with a part of its files.
    if folder.exists():
        os.rename(folder, old)
    os.rename(part, folder)
    shutil.rmtree(old, ignore_errors=True)
    return record


class _Statistics:
    """Maps over completions, in the definitions of `condvae.posterior.summaries`."""

    def __init__(self, completions: NDArray[np.uint8], settings: CompletionSettings) -> None:
        n = len(completions)
        sums = completions.sum(axis=0, dtype=np.int64)
        squares = np.zeros_like(sums)
        for completion in completions:
            squares += np.square(completion, dtype=np.int64)
        variance = np.maximum(squares / n - (sums / n) ** 2, 0.0) * n / (n - 1)
        self.mean = (sums / n).astype(np.float32)
        self.standard_deviation = np.sqrt(variance).astype(np.float32)
        ordered = np.sort(completions, axis=0)
        self.quantiles = {
            level: ordered[quantile_rank(level, n) - 1] for level in settings.quantiles
        }


def _draw_files(result: CompletedPicture, statistics: _Statistics) -> dict[str, bytes]:
    """Every file but the record, by name."""
    settings, canvas = result.settings, result.canvas
    text = {
        "Software": "condvae",
        "case_id": result.files.case_id,
        "model_sha256": result.model_sha256,
        "seed": str(settings.seed),
        "temperature": f"{settings.temperature:g}",
        "n": str(settings.n),
    }
    if settings.stamp is not None:
        text["Comment"] = settings.stamp
    if not settings.paste_observed:
        text["observed_pixels"] = settings.observed_pixels

    def png(image: NDArray[Any], content: str) -> bytes:
        pixels = np.clip(np.rint(image), 0, 255).astype(np.uint8)
        picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        return _encode(picture, {**text, "content": content})

    white_is_hole = settings.polarity == "white_is_hole"
    mask = np.where(canvas.mask ^ white_is_hole, 255, 0)[..., None]
    observed = np.where(canvas.mask[..., None], canvas.pixels, 0).astype(np.uint8)
    digits = max(2, len(str(settings.n - 1)))
    files = {
        "input.png": png(canvas.pixels, "the picture as the model's canvas holds it"),
        "observed.png": png(hatch_unobserved(observed, canvas.mask), "observed pixels"),
        "mask.png": png(mask, f"mask, {settings.polarity}"),
        "mean.png": png(statistics.mean, "mean"),
    }
    for k, completion in enumerate(result.completions):
        files[f"completion_{k:0{digits}d}.png"] = png(completion, f"completion {k}")
    for level, values in statistics.quantiles.items():
        name = f"quantile_{settings.quantile_name(level)}.png"
        files[name] = png(values, f"quantile {level:g}")
    for place, mode in enumerate(result.modes, start=1):
        content = f"mode {place}: completion {mode.medoid}, share {mode.share:g}"
        files[f"mode_{place}.png"] = png(result.completions[mode.medoid], content)
    deviation = plot_deviation(statistics.standard_deviation)
    overview = _draw_overview(result, observed, statistics)
    for name, figure in (("standard_deviation", deviation), ("overview", overview)):
        with Image.open(io.BytesIO(png_bytes(figure))) as picture:
            content = name.replace("_", " ")
            files[f"{name}.png"] = _encode(picture.convert("RGB"), {**text, "content": content})
    files[ARRAYS] = _pack_arrays(result, observed, statistics)
    return files


def _draw_overview(
    result: CompletedPicture, observed: NDArray[np.uint8], statistics: _Statistics
) -> Any:
    settings = result.settings
    found = (
        f"{len(result.modes)} groups found, with their shares of the {settings.n} completions"
        if len(result.modes) > 1
        else f"no groups found among the {settings.n} completions"
    )
    colour = result.completions.shape[3] == 3
    over = " (root mean square over the colours)" if colour else ""
    note = [
        f"{settings.n} completions, seed {settings.seed}, temperature {settings.temperature:g}, "
        f"model {result.model_sha256[:12]}; {100 * result.canvas.mask.mean():.1f} % of the pixels "
        "observed, the others in teal stripes.",
        f"Mean, standard deviation{over} and quantiles over all completions; {found}.",
    ]
    if not settings.paste_observed:
        note.append(f"Observed pixels of the completions are {settings.observed_pixels}.")
    return plot_overview(
        result.files.name,
        observed,
        result.canvas.mask,
        result.completions,
        statistics.mean,
        statistics.standard_deviation,
        quantiles=statistics.quantiles,
        modes=[(mode.medoid, mode.share) for mode in result.modes],
        note=note,
        warnings=[f"Warning: {warning}." for warning in result.warnings],
        stamp=settings.stamp,
    )


def _pack_arrays(
    result: CompletedPicture, observed: NDArray[np.uint8], statistics: _Statistics
) -> bytes:
    quantiles = list(statistics.quantiles.values())
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        samples=result.completions,
        observed=observed,
        mask=result.canvas.mask,
        mean=statistics.mean,
        standard_deviation=statistics.standard_deviation,
        quantiles=np.stack(quantiles) if quantiles else np.empty((0, *observed.shape), np.uint8),
        quantile_levels=np.array(result.settings.quantiles, dtype=np.float64),
        modes=np.array([mode.medoid for mode in result.modes]),
        shares=np.array([mode.share for mode in result.modes]),
        case_id=np.array(result.files.case_id),
        model_sha256=np.array(result.model_sha256),
        seed=np.array(result.settings.seed),
        temperature=np.array(result.settings.temperature),
    )
    return buffer.getvalue()


def _hash_arrays(path: Path) -> str:
    """Hash of names, types, shapes and values, whatever they were compressed with."""
    hashed = hashlib.sha256()
    with np.load(path, allow_pickle=False) as arrays:
        for name in sorted(arrays):
            values = arrays[name]
            hashed.update(f"{name} {values.dtype.str} {values.shape}\n".encode())
            hashed.update(values.tobytes())
    return hashed.hexdigest()


def _encode(picture: Image.Image, text: dict[str, str]) -> bytes:
    """PNG bytes with lines of text in them."""
    information = PngImagePlugin.PngInfo()
    for key, value in text.items():
        information.add_text(key, value)
    buffer = io.BytesIO()
    picture.save(buffer, format="png", pnginfo=information)
    return buffer.getvalue()
