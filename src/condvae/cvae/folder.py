"""Flat models on disk: a folder with ``model.safetensors`` and ``card.json``, as in `model_folder`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from condvae.cvae.config import CvaeConfig
from condvae.cvae.model import FlatVAE, new_cvae
from condvae.ground.attributes import Attribute
from condvae.ground.configuration import ConfigurationError, read_config
from condvae.ground.devices import place
from condvae.ground.files import open_atomic, sha256_of_file, write_json
from condvae.ground.images import DataContract
from condvae.ground.state_dicts import load_strictly
from condvae.models.folder import CARD, FORMAT, WEIGHTS, read_card

__all__ = ["KIND", "load_cvae", "save_cvae"]

KIND = "cvae"


def save_cvae(folder: str | Path, model: FlatVAE, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write a model: weights, the std that scores, the prior's standardisation, and a card.

    Args:
        folder: Made when missing; an older model there is replaced.
        model: The model.
        facts: Anything else for the card; ``weights_source`` None marks it as never trained.

    Returns:
        The card, written last: it has the sha256 of the weights.
    """
    folder = Path(folder)
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with open_atomic(folder / WEIGHTS) as file:
        file.write(save(state))
    # Facts may be another model's card: what is true of this one overrides them.
    card = {
        **facts,
        "format": FORMAT,
        "kind": KIND,
        "model": dataclasses.asdict(model.config),
        "attributes": [dataclasses.asdict(attribute) for attribute in model.attributes],
        "data_contract": dataclasses.asdict(model.contract),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "sha256": sha256_of_file(folder / WEIGHTS),
    }
    write_json(folder / CARD, card)
    return card


def load_cvae(
    folder: str | Path, device: torch.device | str = "cpu"
) -> tuple[FlatVAE, dict[str, Any]]:
    """Open a folder written by `save_cvae`.

    Returns:
        The model in evaluation mode, frozen, and its card.

    Raises:
        ConfigurationError: See `read_card`; also a card that describes no model, or weights that do
            not fit it.
    """
    folder = Path(folder)
    card = read_card(folder, KIND)
    attributes = card.get("attributes")
    if not isinstance(attributes, list):
        raise ConfigurationError(f"{folder / CARD}: attributes = {attributes!r}: expected a list")
    model = new_cvae(
        read_config(CvaeConfig, card.get("model"), "model"),
        [read_config(Attribute, a, f"attributes[{i}]") for i, a in enumerate(attributes)],
        read_config(DataContract, card.get("data_contract"), "data_contract"),
        seed=0,
    )
    try:
        state = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise ConfigurationError(f"{folder / WEIGHTS} cannot be read: {error}") from error
    load_strictly(model, state, str(folder))
    return place(model, device).eval().requires_grad_(False), card
