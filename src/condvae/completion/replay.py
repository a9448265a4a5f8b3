"""Repeating a run from its manifest, and telling whether the results are the same."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from condvae.completion.config import CompletionSettings
from condvae.completion.inputs import PictureFiles
from condvae.completion.run import (
    COMPLETED,
    FORMAT,
    MANIFEST,
    CompletionProgress,
    complete_pictures,
)
from condvae.ground.configuration import ConfigurationError, read_config
from condvae.ground.files import sha256_of_file, write_json
from condvae.models.folder import read_card
from condvae.posterior.image_posterior import ImagePosterior

__all__ = ["Replay", "find_replayed_model", "read_replay", "repeat_run"]

_MOST_SHOWN = 6

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Replay:
    """A run to repeat.

    Attributes:
        manifest: Its manifest.
        settings: Its settings.
        model_folder: Where its model was.
        model_sha256: Of its model's weights.
        pictures: Its pictures, checked.
        arrays_sha256: Name of a picture -> hash of its arrays.
        figures_sha256: Name of a picture -> hash of its other files.
    """

    manifest: Path
    settings: CompletionSettings
    model_folder: str
    model_sha256: str
    pictures: tuple[PictureFiles, ...]
    arrays_sha256: dict[str, str]
    figures_sha256: dict[str, str]


def read_replay(manifest: Path, output: Path) -> Replay:
    """Read a manifest and check that every picture and mask still is what it was.

    Args:
        manifest: Path of the ``manifest.json`` to repeat.
        output: Folder for the repetition.

    Raises:
        ConfigurationError: No readable manifest, its own folder as `output`, or files that are
            missing or changed: the first six are named.
    """
    manifest, output = Path(manifest), Path(output)
    content = _read_manifest(manifest)
    if output.resolve() == manifest.resolve().parent:
        raise ConfigurationError(
            f"output = {str(output)!r}: the folder of the manifest to replay; choose another one"
        )
    try:
        settings = read_config(CompletionSettings, content["settings"], "settings")
        entries = [
            PictureFiles(
                Path(one["picture"]), Path(one["mask"]), one["picture_sha256"], one["mask_sha256"]
            )
            for one in content["pictures"]
        ]
        arrays, figures = (
            {one["name"]: one[kind] for one in content["pictures"]}
            for kind in ("arrays_sha256", "figures_sha256")
        )
        folder, sha256 = str(content["model"]), content["model_sha256"]
    except (KeyError, TypeError) as error:
        raise ConfigurationError(f"{manifest}: no manifest of completions ({error!r})") from error
    _check_files(manifest, entries)
    return Replay(manifest, settings, folder, sha256, tuple(entries), arrays, figures)


def find_replayed_model(replay: Replay, folders: Sequence[str]) -> Path:
    """Return the first of some model folders that holds the model of the run.

    Raises:
        ConfigurationError: None does; the message says what they hold.
    """
    found = []
    for folder in dict.fromkeys(folders):
        try:
            sha256 = read_card(folder, "posterior")["sha256"]
        except ConfigurationError as error:
            found.append(f"  {error}")
            continue
        if sha256 == replay.model_sha256:
            return Path(folder).resolve()
        found.append(f"  {folder}: sha256 {sha256[:12]}...")
    raise ConfigurationError(
        "\n".join(
            [
                f"{replay.manifest}: its model, sha256 {replay.model_sha256[:12]}..., is not there; "
                "name its folder in weights.posterior",
                *found,
            ]
        )
    )


def repeat_run(
    posterior: ImagePosterior,
    replay: Replay,
    output: Path,
    *,
    model: str,
    facts: Mapping[str, Any] | None = None,
    progress: CompletionProgress | None = None,
) -> dict[str, Any]:
    """Repeat a run and compare the results that are made now; others prove nothing.

    Args:
        posterior: The run's model.
        replay: The run.
        output: Folder of the repetition.
        model: See `complete_pictures`.
        facts: See `complete_pictures`.
        progress: See `complete_pictures`.

    Returns:
        The manifest of the repetition; `replay` in it names the manifest repeated and four lists of
        pictures: `identical` and `differing` in their arrays, `figures_differing` in other files
        (which fonts and compression may change), and those `not_repeated`, whose results were in
        `output` before.

    Raises:
        ConfigurationError: Another model, or see `complete_pictures`.
    """
    found = posterior.card.get("sha256")
    if found != replay.model_sha256:
        raise ConfigurationError(
            f"model with sha256 {found!r}: {replay.manifest} was made with {replay.model_sha256!r}"
        )
    manifest = complete_pictures(
        posterior,
        replay.pictures,
        output,
        replay.settings,
        model=model,
        facts=facts,
        progress=progress,
    )
    repeated = [one for one in manifest["pictures"] if one["status"] == COMPLETED]
    outcome: dict[str, list[str]] = {
        "identical": [],
        "differing": [],
        "figures_differing": [],
        "not_repeated": [one["name"] for one in manifest["pictures"] if one not in repeated],
    }
    for one in repeated:
        name = one["name"]
        same = one["arrays_sha256"] == replay.arrays_sha256[name]
        outcome["identical" if same else "differing"].append(name)
        if one["figures_sha256"] != replay.figures_sha256[name]:
            outcome["figures_differing"].append(name)
    _log_outcome(replay, outcome)
    manifest["replay"] = {
        "manifest": str(replay.manifest.resolve()),
        "sha256": sha256_of_file(replay.manifest),
        **outcome,
    }
    write_json(Path(output) / MANIFEST, manifest)
    return manifest


def _log_outcome(replay: Replay, outcome: Mapping[str, list[str]]) -> None:
    """Say how many pictures are the same, and name those that are not."""
    same = bool(outcome["identical"]) and not outcome["differing"]
    logger.log(
        logging.INFO if same else logging.WARNING,
        "completions of %d of %d pictures made now are bit for bit those of %s",
        len(outcome["identical"]),
        len(outcome["identical"]) + len(outcome["differing"]),
        replay.manifest,
    )
    for kind, meaning in (
        ("differing", "not the same; other versions, device or threads round differently"),
        ("figures_differing", "pictures or figures are other files; see the versions"),
        ("not_repeated", "not repeated, results were there before; choose an empty output"),
    ):
        if outcome[kind]:
            more = ", ..." if len(outcome[kind]) > _MOST_SHOWN else ""
            logger.warning("%s%s: %s", ", ".join(outcome[kind][:_MOST_SHOWN]), more, meaning)


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"replay = {str(path)!r}: cannot be read ({error})") from error
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise ConfigurationError(f"{path}: format {found!r}, this version reads {FORMAT}")
    return dict(content)


def _check_files(manifest: Path, pictures: list[PictureFiles]) -> None:
    """Refuse files that are missing or changed."""
    expected = {files.picture: files.picture_sha256 for files in pictures}
    expected |= {files.mask: files.mask_sha256 for files in pictures}
    wrong = []
    for path, sha256 in expected.items():
        try:
            found = sha256_of_file(path)
        except OSError as error:
            wrong.append(f"  {path}: {error.strerror or error}")
            continue
        if found != sha256:
            wrong.append(f"  {path}: sha256 {found[:12]}..., the manifest says {sha256[:12]}...")
    if wrong:
        more = [f"  ... and {len(wrong) - _MOST_SHOWN} more"] if len(wrong) > _MOST_SHOWN else []
        raise ConfigurationError(
            "\n".join(
                [
                    f"{manifest}: {len(wrong)} files are not what they were; nothing was written",
                    *wrong[:_MOST_SHOWN],
                    *more,
                ]
            )
        )
