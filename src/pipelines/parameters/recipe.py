"""The parameter `recipe`: the tuned settings of this project, or the published ones."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from condvae.ground.configuration import read_config
from condvae.models import find_model, read_cards
from condvae.models.folder import read_card
from condvae.models.presets import PRESETS
from condvae.training.config import ObjectiveConfig, TrainingConfig
from pipelines.parameters import ModelConfig, WeightsConfig
from pipelines.parameters.overlay import leaves, override

__all__ = ["apply_recipe"]

# These do not decide what is trained on, or only as far as rounding goes, or where a run would end.
KEPT = ("precision", "checkpoint_every", "log_every", "validate_every", "max_restarts")
COMMON = "cifar10"
LARGEST_START = 0.05  # share of the start in the averaged weights that is passed over

log = logging.getLogger(__name__)


def apply_recipe(
    parameters: Mapping[str, Any], given: Mapping[str, Any], project: Path | None = None
) -> dict[str, Any]:
    """Return the parameters that a run goes by.

    With ``recipe: tuned`` they are those of the configuration. ``published`` replaces what defines the
    published method (Child 2021 for the VAE, Harvey et al. 2022 for the partial encoder):

    - `training` by the conditional settings of the frozen VAE's preset: `weights.preset`, else the
      preset on the card of `weights.vae`, else `model.architecture` where that is a preset's name;
    - `pretraining` by the unconditional settings of `model.architecture` where that is a preset's
      name, else of the same preset;
    - `model.mean`, `model.std` and `model.bits` of a new VAE by those of `model.architecture` where
      that is a preset's name, `model.latent_std` by its own there;
    - `model.initialisation` by ``random``, for the objective ``ipa_r`` by ``copy``;
    - `masks` by the published free-form masks alone, not stratified.

    Where nobody has published settings (a model that is no preset, or the partial encoder of
    ``ffhq1024``) those of ``cifar10`` hold, except for `steps`, which stay as configured. `precision`,
    `max_restarts`, `checkpoint_every`, `log_every`, `validate_every` and `masks.pool` always do. What
    `given` holds wins over the recipe; kinds of masks given there come beside the published one.

    Args:
        parameters: All of them, checked; `given` is in them already.
        given: Those of the command line, nested like `parameters`.
        project: Folder that relative paths start at; None = the current one.

    Raises:
        ConfigurationError: `weights.vae` has no card to read the preset from.
    """
    if parameters["recipe"] != "published":
        return dict(parameters)
    frozen = _preset_of_frozen_vae(parameters, project or Path())
    architecture = read_config(ModelConfig, parameters["model"], "model").architecture
    new = architecture if architecture in PRESETS else None
    reverse = read_config(ObjectiveConfig, parameters.get("objective"), "objective").name == "ipa_r"
    published: dict[str, Any] = {
        "training": _conditional_settings(frozen),
        "pretraining": _unconditional_settings(new or frozen),
        "model": {"initialisation": "copy" if reverse else "random", **_contract(new)},
        "masks": {"kinds": {"free_form_published": 1.0}, "stratified": False},
    }
    log.info(
        "recipe published, frozen VAE of preset %s, new VAE of preset %s: %s",
        frozen or "none",
        new or "none",
        _list_changes(published, given),
    )
    replaced = {
        section: {**parameters[section], **settings} for section, settings in published.items()
    }
    effective = override({**parameters, **replaced}, given)
    _warn_of_random_start(effective)
    return effective


def _warn_of_random_start(parameters: Mapping[str, Any]) -> None:
    """Published averages have no warm-up: after few steps they are mostly what training began with."""
    for section in ("training", "pretraining"):
        values = parameters[section]
        left = float(values["ema_decay"]) ** int(values["steps"])
        if left > LARGEST_START and not values["ema_warmup"]:
            log.warning(
                "recipe published: %.0f %% of the averaged weights are still the random start after "
                "%s.steps = %d; raise it, or give %s.ema_warmup=true or a smaller %s.ema_decay",
                *(100 * left, section, values["steps"], section, section),
            )


def _preset_of_frozen_vae(parameters: Mapping[str, Any], project: Path) -> str | None:
    """Name of the preset the frozen VAE belongs to."""
    weights = read_config(WeightsConfig, parameters["weights"], "weights")
    if weights.preset is not None:
        return weights.preset if isinstance(weights.preset, str) else None
    architecture = read_config(ModelConfig, parameters["model"], "model").architecture
    for name in (_preset_on_card(weights.vae, project, weights.cache), architecture):
        if name in PRESETS:
            return name
    return None


def _preset_on_card(vae: str, project: Path, cache: str | None) -> str | None:
    """The preset that a published name or a model folder states."""
    card = read_cards().get(vae)
    if card is not None and card.folder is None:
        return card.preset
    if vae == "random":
        return None
    folder = project / vae
    if card is not None or not folder.exists():
        folder = find_model(vae, cache)
    preset: str | None = read_card(folder, "vae").get("preset")
    return preset


def _conditional_settings(preset: str | None) -> dict[str, Any]:
    config = PRESETS[preset].conditional if preset is not None else None
    common = PRESETS[COMMON].conditional
    assert common is not None
    return _settings(config, common)


def _unconditional_settings(preset: str | None) -> dict[str, Any]:
    config = PRESETS[preset].unconditional if preset is not None else None
    common = PRESETS[COMMON].unconditional
    assert common is not None
    return _settings(config, common)


def _settings(config: TrainingConfig | None, common: TrainingConfig) -> dict[str, Any]:
    """Published settings by name; where there are none, the common ones without `steps`."""
    kept = KEPT if config is not None else (*KEPT, "steps")
    settings = asdict(config or common)
    settings["betas"] = list(settings["betas"])
    return {name: value for name, value in settings.items() if name not in kept}


def _contract(preset: str | None) -> dict[str, Any]:
    if preset is None:
        return {}
    contract = PRESETS[preset].contract
    return {
        "bits": contract.bits,
        "mean": contract.mean,
        "std": contract.std,
        "latent_std": None,
    }


def _list_changes(published: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """What the recipe sets, section by section, and what it would have set."""
    kept = dict(leaves(given))
    parts = []
    for section, settings in published.items():
        values = dict(leaves(settings))
        shown = (f"{k} {v}" for k, v in values.items() if f"{section}.{k}" not in kept)
        parts.append(f"{section} ({', '.join(shown)})")
    as_given = [name for name, _ in leaves(published) if name in kept]
    return "; ".join([*parts, *([f"as given: {', '.join(as_given)}"] if as_given else [])])
