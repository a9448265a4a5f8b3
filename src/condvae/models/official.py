"""Official checkpoints as model folders, and whatever names a model as one.

A ``.th`` file is converted once, into a folder named after the first 12 digits of its sha256; a
half-written folder is made again.
"""

from __future__ import annotations

import logging
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from condvae.ground.configuration import ConfigurationError, check_choice
from condvae.ground.files import sha256_of_file
from condvae.ipa.model import ConditionalModel
from condvae.models.efficient_vdvae import load_efficient_vae
from condvae.models.folder import read_card, save_posterior, save_vae
from condvae.models.official_layout import (
    load_official_conditional,
    load_official_vae,
    preset_of_state,
    read_official,
)
from condvae.models.presets import Preset, StatedModel, check_stated, preset_named
from condvae.models.registry import KINDS, read_cards
from condvae.models.store import fetch, find_model
from condvae.posterior.image_posterior import ImagePosterior
from condvae.tasks import Inpainting
from condvae.transport.cache import cache_folder
from condvae.transport.hub_address import is_hub_address

__all__ = ["convert_official", "resolve_posterior", "resolve_vae"]

SUFFIX = ".th"
FIRST_WEIGHT = "part_encoder.in_conv.weight"

log = logging.getLogger(__name__)


def resolve_vae(
    name_or_path: str,
    preset: str | StatedModel | None = None,
    cache: str | os.PathLike[str] | None = None,
    *,
    allow_unpinned: bool = False,
    folder: str | os.PathLike[str] | None = None,
) -> Path:
    """Return the model folder of a VAE, fetching and converting what has to be.

    Args:
        name_or_path: Name of a model of the package or of a published checkpoint, an address on the
            hub (``hf://``), a model folder, or an official checkpoint (``.th``).
        preset: The published model a ``.th`` belongs to, or what its tensors do not say of a model of
            your own; published names know theirs.
        cache: Where fetched files lie; see `cache_folder`.
        allow_unpinned: Accept a file whose sha256 nobody has stated yet; see `fetch`.
        folder: Converted models lie here; None = ``converted`` in the cache folder.

    Raises:
        ConfigurationError: See `find_model`, `fetch` and `convert_official`.
    """
    if is_hub_address(name_or_path):
        return find_model(name_or_path, cache)
    parent = Path(folder) if folder is not None else cache_folder(cache) / "converted"
    card = read_cards().get(name_or_path)
    if card is not None and card.folder is None:
        file = fetch(name_or_path, cache, allow_unpinned)
        return convert_official(file, str(card.preset), parent)
    if name_or_path.endswith(SUFFIX):
        return convert_official(name_or_path, check_stated(preset, name_or_path), parent)
    return find_model(name_or_path)


def resolve_posterior(
    name_or_path: str,
    preset: str | StatedModel | None = None,
    cache: str | os.PathLike[str] | None = None,
    *,
    folder: str | os.PathLike[str] | None = None,
) -> Path:
    """Return the model folder of a posterior, converting an official checkpoint.

    Args:
        name_or_path: Name of a model of the package, an address on the hub (``hf://``), a model
            folder, or an official conditional checkpoint (``.th``).
        preset: See `resolve_vae`.
        cache: See `cache_folder`.
        folder: Converted models lie here; None = ``converted`` in the cache folder.

    Raises:
        ConfigurationError: See `find_model` and `convert_official`; also a published VAE's name.
    """
    if is_hub_address(name_or_path):
        return find_model(name_or_path, cache)
    if name_or_path.endswith(SUFFIX):
        parent = Path(folder) if folder is not None else cache_folder(cache) / "converted"
        return convert_official(
            name_or_path, check_stated(preset, name_or_path), parent, "posterior"
        )
    card = read_cards().get(name_or_path)
    if card is not None and card.kind != "posterior":
        raise ConfigurationError(
            f"{name_or_path!r} is a VAE, expected a posterior: condition it with "
            f"`kedro run --params=weights.vae={name_or_path}`"
        )
    return find_model(name_or_path)


def convert_official(
    file: str | os.PathLike[str],
    preset: str | StatedModel,
    parent: str | os.PathLike[str],
    kind: str = "vae",
) -> Path:
    """Make a model folder of an official checkpoint, unless it is there already.

    Args:
        file: A ``.th`` file: an unconditional VAE, or a VAE with its partial encoder for inpainting.
        preset: What it must fit: a published name, or what its tensors do not say.
        parent: The folder is made here.
        kind: ``vae`` or ``posterior``.

    Returns:
        The model folder.

    Raises:
        ConfigurationError: The file is missing, damaged, of the other kind, or does not fit the
            preset; a partial encoder that takes something else than an image and its mask.
    """
    check_choice("kind", kind, KINDS)
    file = Path(file)
    known = preset_named(preset) if isinstance(preset, str) else preset
    if not file.is_file():
        raise ConfigurationError(f"checkpoint {file}: no such file")
    sha256 = sha256_of_file(file)
    folder = Path(parent) / sha256[:12]
    if _is_converted(folder, known, sha256, kind):
        return folder
    log.info("converting %s, once, to %s", file, folder)
    facts: dict[str, Any] = {"weights_source": {"official": file.name, "sha256": sha256}}
    try:
        fitting = known
        if isinstance(fitting, StatedModel):
            fitting = preset_of_state(read_official(file), fitting, str(file))
        facts["origin"] = fitting.source
        if isinstance(preset, StatedModel):
            facts["test_bits_per_dim"] = preset.test_bits_per_dim
        else:
            facts["preset"] = preset
        if kind == "vae":
            load = load_efficient_vae if fitting.shape.is_efficient else load_official_vae
            save_vae(folder, load(file, fitting), facts)
        else:
            vae, partial = load_official_conditional(file, fitting)
            posterior = ImagePosterior(ConditionalModel(vae, partial), Inpainting())
            save_posterior(folder, posterior, {**facts, "vae": file.name})
    except ConfigurationError as error:
        raise ConfigurationError(f"{error}{_reason(file, preset, kind)}") from error
    return folder


def _is_converted(folder: Path, known: Preset | StatedModel, sha256: str, kind: str) -> bool:
    """Whether `folder` holds the whole conversion of the file with this hash by what is known of it."""
    try:
        card = read_card(folder, kind)
    except ConfigurationError:  # not there, or left half-written
        return False
    if (card.get("weights_source") or {}).get("sha256") != sha256:
        return False
    shape, contract = card["architecture"], card["data_contract"]
    if isinstance(known, StatedModel):
        found = {**card, **shape, **contract}
        return all(found.get(name) == value for name, value in asdict(known).items())
    # Efficient-VDVAE's checkpoints say their own architecture.
    fits = known.shape.is_efficient or shape == known.shape.facts()
    return bool(fits and contract == asdict(known.contract))


def _reason(file: Path, preset: str | StatedModel, kind: str) -> str:
    """What is known of a file that was refused, beyond the list of entries; may be empty."""
    try:
        first = read_official(file).get(FIRST_WEIGHT)
    except ConfigurationError:  # damaged: the error says so already
        return ""
    if kind == "vae" and first is not None:
        return "\nIt is a conditional model (IPA): give it as a posterior (`weights.posterior`)"
    if kind == "posterior" and first is None:
        return "\nIt is a VAE without a partial encoder: give it as a VAE (`weights.vae`)"
    if not isinstance(preset, str):
        return ""
    wanted = preset_named(preset).contract.channels + 1
    if first is not None and first.shape[1] != wanted:
        return (
            f"\nIts partial encoder takes {first.shape[1]} condition channels; inpainting takes "
            f"{wanted}, the image and its mask. Models of other tasks (edges to photos has 3) are "
            "not supported"
        )
    known = {c.known_mismatch for c in read_cards().values() if c.preset == preset} - {None}
    return "".join(f"\nThe published file of preset {preset} is {reason}" for reason in known)
