"""Completing many pictures: what is done already is left alone, what was done is listed."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import logging
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import PIL
import torch

from condvae.completion.config import CompletionSettings
from condvae.completion.inputs import PictureFiles, RejectedPicture, read_input
from condvae.completion.modes import find_modes
from condvae.completion.output import locked_output
from condvae.completion.record import (
    ARRAYS,
    RECORD,
    CompletedPicture,
    check_folder,
    read_record,
    result_fingerprint,
    write_result,
)
from condvae.ground.configuration import ConfigurationError
from condvae.ground.files import fingerprint, sha256_of_file, write_json
from condvae.ground.images import to_nchw
from condvae.posterior.guidance import guide_posterior
from condvae.posterior.image_posterior import ImagePosterior
from condvae.posterior.input_check import check_observations

__all__ = ["MANIFEST", "CompletionProgress", "complete_pictures"]

FORMAT = 2
MANIFEST = "manifest.json"
COMPLETED = "completed"

logger = logging.getLogger(__name__)


class CompletionProgress(Protocol):
    """What hears how far a run is."""

    def on_start(self, pictures: int, completions: int) -> None:
        """So many are to be made; pictures that are done already do not count."""
        ...

    def on_completions(self, count: int) -> None:
        """So many more completions are made."""
        ...

    def on_picture(self) -> None:
        """One more picture is written."""
        ...


def complete_pictures(
    posterior: ImagePosterior,
    pictures: Sequence[PictureFiles],
    output: Path,
    settings: CompletionSettings,
    *,
    model: str,
    rejected: Sequence[RejectedPicture] = (),
    facts: Mapping[str, Any] | None = None,
    progress: CompletionProgress | None = None,
) -> dict[str, Any]:
    """Complete pictures one by one and write a folder for each, then the manifest.

    A picture whose folder was made from the same picture, mask, model and settings is left as it is,
    so that a run that was killed goes on. No picture's result depends on the others. The completions
    of one picture are held in memory, not those of several.

    Args:
        posterior: A model with `sha256` in its card.
        pictures: What to complete, see `condvae.completion.inputs.check_pictures`.
        output: Folder of results; `NAME/` for each picture and `manifest.json`.
        settings: What decides the results.
        model: Folder or name that the posterior was loaded from, for the manifest.
        rejected: Pictures left out, for the manifest.
        facts: Anything else for the manifest.
        progress: Hears how far the run is.

    Returns:
        The manifest.

    Raises:
        ConfigurationError: A model of another task or without a sha256, an output that cannot be
            written or is in use, or a folder in the way that was not written here, before anything
            is sampled.
    """
    if not posterior.task.is_exact:
        raise ConfigurationError(
            f"task {posterior.task.name!r}: pictures are completed by a model of a task in which "
            "observed pixels are all there is, such as 'inpainting'"
        )
    model_sha256 = posterior.card.get("sha256")
    if not model_sha256:
        raise ConfigurationError("a posterior that was never saved: its sha256 names the results")
    output = Path(output)
    with locked_output(output):
        return _complete_waiting(
            posterior, pictures, output, settings, model_sha256, model, rejected, facts, progress
        )


def _complete_waiting(
    posterior: ImagePosterior,
    pictures: Sequence[PictureFiles],
    output: Path,
    settings: CompletionSettings,
    model_sha256: str,
    model: str,
    rejected: Sequence[RejectedPicture],
    facts: Mapping[str, Any] | None,
    progress: CompletionProgress | None,
) -> dict[str, Any]:
    """Do what `complete_pictures` says, in a folder that is this process's own."""
    reference_sha256 = fingerprint(posterior.card.get("input_reference"))
    made_with = {
        "versions": _versions(),
        "device": str(posterior.model.vae.device),
        "threads": torch.get_num_threads(),
    }
    fingerprints = {
        files: result_fingerprint(files, settings, model_sha256, reference_sha256)
        for files in pictures
    }
    records = {files: read_record(output / files.name) for files in pictures}
    waiting = [
        files
        for files in pictures
        if (records[files] or {}).get("fingerprint") != fingerprints[files]
    ]
    for files in waiting:
        check_folder(output / files.name)
        if records[files] is not None:
            logger.info("%s: made anew, picture, mask, model or settings differ", files.name)
    if len(waiting) < len(pictures):
        logger.info("%d of %d pictures are done", len(pictures) - len(waiting), len(pictures))
    started = time.perf_counter()
    if progress is not None:
        progress.on_start(len(waiting), len(waiting) * settings.n)
    for files in waiting:
        result = _complete(
            posterior, files, settings, model_sha256, reference_sha256, made_with, progress
        )
        records[files] = write_result(output / files.name, result)
        for warning in result.warnings:
            logger.warning("%s: %s", files.name, warning)
        if progress is not None:
            progress.on_picture()
    seconds = time.perf_counter() - started
    manifest = {
        "format": FORMAT,
        **(facts or {}),
        **made_with,
        "model": model,
        "model_sha256": model_sha256,
        "settings": dataclasses.asdict(settings) | {"quantiles": list(settings.quantiles)},
        "sampled_from": settings.stamp or "the posterior (temperature 1)",
        "completed_now": len(waiting),
        "seconds": seconds,
        "completions_per_second": len(waiting) * settings.n / seconds if waiting else None,
        "pictures": [
            _describe(files, records[files] or {}, output, done=files not in waiting)
            for files in pictures
        ],
        "rejected": [
            {"picture": str(one.picture.resolve()), "reason": one.message} for one in rejected
        ],
    }
    write_json(output / MANIFEST, manifest)
    return manifest


def _complete(
    posterior: ImagePosterior,
    files: PictureFiles,
    settings: CompletionSettings,
    model_sha256: str,
    reference_sha256: str,
    made_with: Mapping[str, Any],
    progress: CompletionProgress | None,
) -> CompletedPicture:
    """Sample, check and group the completions of one picture."""
    canvas = read_input(files.picture, files.mask, posterior.contract, settings)
    pixels = to_nchw(torch.from_numpy(np.ascontiguousarray(canvas.pixels))[None])
    mask = torch.from_numpy(canvas.mask)[None, None]
    observation = posterior.observe(pixels, mask, (files.case_id,))
    completions = np.empty((settings.n, *canvas.pixels.shape), dtype=np.uint8)
    # The check below is of y and not of the sampling: its reference belongs to guidance 1.
    guided = guide_posterior(posterior, settings.guidance, settings.guidance_rule)
    for _, numbers, drawn in guided.stream(
        observation,
        settings.n,
        temperature=settings.temperature,
        seed=settings.seed,
        paste_observed=settings.paste_observed,
        batch_size=settings.batch_size,
    ):
        completions[numbers.numpy()] = drawn.permute(0, 2, 3, 1).numpy()
        if progress is not None:
            progress.on_completions(len(numbers))
    (verdict,) = check_observations(posterior, observation, batch_size=settings.batch_size)
    return CompletedPicture(
        files=files,
        canvas=canvas,
        completions=completions,
        modes=tuple(find_modes(completions, canvas.mask)),
        input_check=verdict.message,
        warnings=(*canvas.warnings, *([verdict.message] if verdict.unusual else [])),
        settings=settings,
        model_sha256=model_sha256,
        reference_sha256=reference_sha256,
        made_with=made_with,
    )


def _describe(
    files: PictureFiles, record: Mapping[str, Any], output: Path, *, done: bool
) -> dict[str, Any]:
    """One picture's entry in the manifest."""
    return {
        "name": files.name,
        "picture": str(files.picture.resolve()),
        "picture_sha256": files.picture_sha256,
        "mask": str(files.mask.resolve()),
        "mask_sha256": files.mask_sha256,
        "case_id": files.case_id,
        "crop_box": record["picture"]["crop_box"],
        "observed_share": record["mask"]["observed_share"],
        "modes": record["modes"],
        "input_check": record["input_check"],
        "warnings": record["warnings"],
        "made_with": record["made_with"],
        "status": "done before" if done else COMPLETED,
        "record_sha256": sha256_of_file(output / files.name / RECORD),
        "arrays_sha256": record["arrays_sha256"],
        "figures_sha256": fingerprint(
            {name: sha256 for name, sha256 in record["files"].items() if name != ARRAYS}
        ),
    }


def _versions() -> dict[str, str]:
    """Of everything that results may depend on."""
    try:
        own = importlib.metadata.version("condvae")
    except importlib.metadata.PackageNotFoundError:
        own = "not installed"
    return {
        "condvae": own,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "matplotlib": importlib.metadata.version("matplotlib"),
    }
