"""Models on disk: a folder with ``model.safetensors`` and ``card.json``.

The card carries what is needed to build the model (architecture, data contract, task), where the
weights come from and their sha256. It is written last: a folder whose card and weights disagree was
left half-written or tampered with, and is refused.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from condvae.ground.configuration import ConfigurationError, read_config
from condvae.ground.devices import place
from condvae.ground.files import open_atomic, sha256_of_file, write_json
from condvae.ground.images import DataContract
from condvae.ground.state_dicts import load_strictly
from condvae.ipa.heads import normalise_flows
from condvae.ipa.model import ConditionalModel
from condvae.ipa.partial_encoder import PartialEncoder
from condvae.posterior.image_posterior import ImagePosterior
from condvae.tasks import Task, describe_task, task_named
from condvae.training.start import Source
from condvae.vdvae.architecture import Architecture
from condvae.vdvae.model import VDVAE

__all__ = [
    "load_posterior",
    "load_vae",
    "posterior_source",
    "read_card",
    "save_posterior",
    "save_vae",
    "sha256_of_vae",
    "vae_source",
]

FORMAT = 1
WEIGHTS = "model.safetensors"
CARD = "card.json"

# What of the VAE is trained along with the partial encoder, see `ObjectiveConfig.trained`.
_TRAINED = {"partial": (), "output_head": ("vae.decoder.out_net.",), "all": ("vae.",)}


def read_card(folder: str | Path, kind: str | None = None) -> dict[str, Any]:
    """Read a model folder's card and check the weights against its sha256.

    Args:
        folder: The model folder.
        kind: ``vae`` or ``posterior`` when only that will do.

    Raises:
        ConfigurationError: Missing, unreadable or altered files, or another kind of model.
    """
    folder = Path(folder)
    card_path, weights_path = folder / CARD, folder / WEIGHTS
    for path in (card_path, weights_path):
        if not path.is_file():
            raise ConfigurationError(f"{folder} is not a model folder: {path.name} is missing")
    try:
        card: dict[str, Any] = json.loads(card_path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{card_path} is not valid JSON: {error}") from error
    found_format = card.get("format") if isinstance(card, dict) else None
    if found_format != FORMAT:
        raise ConfigurationError(
            f"{card_path}: format {found_format!r}, this version reads {FORMAT}"
        )
    found = sha256_of_file(weights_path)
    if found != card.get("sha256"):
        raise ConfigurationError(
            f"{weights_path} has sha256 {found[:12]}..., its card says "
            f"{str(card.get('sha256'))[:12]}...: half-written, damaged or altered. Run the command "
            "that made it again, or fetch it again"
        )
    if kind is not None and card.get("kind") != kind:
        raise ConfigurationError(f"{folder} holds a {card.get('kind')!r} model, expected {kind!r}")
    return card


def save_vae(folder: str | Path, vae: VDVAE, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write an unconditional model.

    Args:
        folder: Made when missing; an older model there is replaced.
        vae: The model.
        facts: Anything else for the card; ``weights_source`` None marks it as never trained.

    Returns:
        The card.
    """
    return _save(Path(folder), vae.state_dict(), "vae", vae, facts)


def save_posterior(
    folder: str | Path, posterior: ImagePosterior, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Write a conditional model, frozen part included, so that the folder stands alone.

    Raises:
        ConfigurationError: Its c(z | y) has no weights (the prior standing in).
    """
    latents = posterior.model.latents
    if not isinstance(latents, PartialEncoder):
        raise ConfigurationError("only a posterior with a partial encoder can be saved")
    state = {f"vae.{k}": v for k, v in posterior.model.vae.state_dict().items()}
    state |= {f"partial.{k}": v for k, v in latents.state_dict().items()}
    # Facts may be the card of a model of another task or shape.
    shape = ("task_options", "flows", "flow_layers", "first_groups")
    facts = {k: fact for k, fact in facts.items() if k not in shape}
    flows = {"flows": latents.flow_kinds, "flow_layers": latents.flow_layers}
    return _save(
        Path(folder),
        state,
        "posterior",
        posterior.model.vae,
        {
            **facts,
            **describe_task(posterior.task),
            "heads": latents.head_kind,
            **(flows if latents.flow_kinds else {}),
            **({"first_groups": groups} if (groups := latents.first_groups) else {}),
        },
    )


def sha256_of_vae(vae: VDVAE) -> str:
    """Hash of the weights file that `save_vae` writes for this model."""
    return hashlib.sha256(_serialise(vae.state_dict(), vae.architecture)).hexdigest()


def _serialise(state: Mapping[str, Tensor], architecture: Architecture) -> bytes:
    # Numbers that mean something else must not have the same sha256, by which models are told apart.
    latent_std = architecture.latent_std
    metadata = None if latent_std == "exp" else {"latent_std": latent_std}
    data: bytes = save({k: v.detach().cpu().contiguous() for k, v in state.items()}, metadata)
    return data


def _save(
    folder: Path, state: Mapping[str, Tensor], kind: str, vae: VDVAE, facts: Mapping[str, Any]
) -> dict[str, Any]:
    data = _serialise(state, vae.architecture)
    with open_atomic(folder / WEIGHTS) as file:
        file.write(data)
    # Facts may be another model's card: what is true of this one overrides them.
    card = {
        **facts,
        "format": FORMAT,
        "kind": kind,
        "architecture": vae.architecture.facts(),
        "data_contract": dataclasses.asdict(vae.contract),
        "parameters": sum(v.numel() for v in state.values()),
        "sha256": sha256_of_file(folder / WEIGHTS),
    }
    write_json(folder / CARD, card)
    return card


def _load_weights(folder: Path, card: Mapping[str, Any]) -> tuple[VDVAE, dict[str, Tensor]]:
    """An unfilled VAE of the card's shape and the folder's weights."""
    architecture = read_config(Architecture, card.get("architecture"), "architecture")
    contract = read_config(DataContract, card.get("data_contract"), "data_contract")
    state = _read_weights(folder)
    with torch.random.fork_rng(devices=[]):  # the layers' own first weights are of no use here
        return VDVAE(architecture, contract), state


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """The folder's weights on the CPU by name."""
    try:
        state: dict[str, Tensor] = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise ConfigurationError(f"{folder / WEIGHTS} cannot be read: {error}") from error
    return state


def load_vae(
    folder: str | Path, device: torch.device | str = "cpu"
) -> tuple[VDVAE, dict[str, Any]]:
    """Open a folder written by `save_vae`.

    Returns:
        The model in evaluation mode and its card.

    Raises:
        ConfigurationError: See `read_card`; also weights that do not fit the card's architecture.
    """
    folder = Path(folder)
    card = read_card(folder, "vae")
    vae, state = _load_weights(folder, card)
    load_strictly(vae, state, str(folder))
    return place(vae, device).eval().requires_grad_(False), card


def load_posterior(
    folder: str | Path, device: torch.device | str = "cpu", task: Task | None = None
) -> ImagePosterior:
    """Open a folder written by `save_posterior`.

    Args:
        folder: The model folder, or the name of a bundled model or address on the hub
            (``hf://OWNER/NAME``) resolved by `condvae.models.find_model`.
        device: Where the weights go.
        task: The task, where it is not a registered one.

    Raises:
        ConfigurationError: See `read_card`; also weights that do not fit the card's architecture, a
            task that is not known, or another one than the model was trained for.
    """
    from condvae.models.store import find_model

    folder = find_model(str(folder))
    card = read_card(folder, "posterior")
    vae, state = _load_weights(folder, card)
    stored = _task_of(card)
    if task is None:
        task = task_named(stored["task"], stored.get("task_options"), "task_options")
    elif describe_task(task) != stored:
        raise ConfigurationError(f"{folder} is for {stored}, not for {describe_task(task)}")
    with torch.random.fork_rng(devices=[]):
        partial = PartialEncoder(
            vae,
            task.condition_channels(vae.contract),
            _heads_of(card),
            *_flows_of(card),
            card.get("first_groups"),
        )
    load_strictly(nn.ModuleDict({"vae": vae, "partial": partial}), state, str(folder))
    for module in (vae, partial):
        place(module, device).eval().requires_grad_(False)
    return ImagePosterior(ConditionalModel(vae, partial), task, card)


def vae_source(name: str, architecture: Architecture, contract: DataContract) -> Source:
    """Open a VAE as a start for training another one.

    Args:
        name: Model folder, registered name or address on the hub.
        architecture: Of the VAE to be trained.
        contract: Its data contract.

    Raises:
        ConfigurationError: See `read_card`.
    """
    from condvae.models.store import find_model

    folder = find_model(name)
    card = read_card(folder, "vae")
    differences = []
    for key, own in (("architecture", architecture), ("data_contract", contract)):
        theirs = read_config(type(own), card.get(key), key)
        for field, value in dataclasses.asdict(own).items():
            if (found := getattr(theirs, field)) != value:
                differences.append(f"its {key}.{field} is {found!r}, not {value!r}")
    return Source(card, _read_weights(folder), tuple(differences))


def posterior_source(
    name: str,
    vae: VDVAE,
    task: str,
    heads: str,
    flows: str = "",
    flow_layers: int = 2,
    *,
    task_options: Mapping[str, Any] | None = None,
    first_groups: int | None = None,
    trained: str = "partial",
) -> Source:
    """Open a posterior as a start for training another one.

    Heads and flows of another kind are offered under other names, because the same numbers mean
    something else.

    Args:
        name: Model folder, registered name or address on the hub.
        vae: The unconditional model that the new partial encoder is for.
        task: Name of its task.
        heads: Kind of its heads.
        flows: Its flows, see `parse_flows`.
        flow_layers: Couplings of each.
        task_options: Its parameters as in `describe_task`, None for none.
        first_groups: How many groups it conditions, None = all.
        trained: What will be trained, see `ObjectiveConfig.trained`; the weights of that are offered.

    Raises:
        ConfigurationError: See `read_card`.
    """
    from condvae.models.store import find_model

    folder = find_model(name)
    card = read_card(folder, "posterior")
    state = _read_weights(folder)
    differences = []
    offered = ("partial.", *_TRAINED[trained])
    frozen = {k: v for k, v in state.items() if not k.startswith(offered)}
    own_state = {f"vae.{k}": v for k, v in vae.state_dict().items()}
    own_frozen = {k: v for k, v in own_state.items() if not k.startswith(offered)}
    contract = read_config(DataContract, card.get("data_contract"), "data_contract")
    shape = read_config(Architecture, card.get("architecture"), "architecture")
    same = (shape.latent_std, contract) == (vae.architecture.latent_std, vae.contract)
    if not same or not _equal(frozen, own_frozen):
        differences.append("it is for another VAE than weights.vae")
    stored = _task_of(card)
    if stored["task"] != task:
        differences.append(f"its task is {stored['task']!r}, not {task!r}")
    elif (found := stored.get("task_options")) != (task_options or None):
        differences.append(f"its task has the options {found}, not {task_options or None}")
    prefix = ""
    if _heads_of(card) != heads:
        differences.append(
            f"it has {_heads_of(card)} heads, and model.initialisation makes {heads} ones"
        )
        prefix = f"{_heads_of(card)}_"
    own_flows, their_flows = (normalise_flows(flows), flow_layers), _flows_of(card)
    flow_prefix = ""
    if own_flows != their_flows and (own_flows[0] or their_flows[0]):
        differences.append(
            f"it has {_describe_flows(*their_flows)}, and model.flows asks for "
            f"{_describe_flows(*own_flows)}"
        )
        flow_prefix = "other_"
    if (found := card.get("first_groups")) != first_groups:
        differences.append(
            f"it conditions {_describe_groups(found)}, and model.first_groups asks for "
            f"{_describe_groups(first_groups)}"
        )
    prefixes = {"heads": prefix, "flows": flow_prefix}
    weights = {}
    for key, value in state.items():
        if key.startswith(offered):
            network, _, own = key.partition(".")
            if network == "partial":
                own = prefixes.get(own.partition(".")[0], "") + own
            weights[own if trained == "partial" else f"{network}.{own}"] = value
    return Source(card, weights, tuple(differences))


def _task_of(card: Mapping[str, Any]) -> dict[str, Any]:
    """What `describe_task` says of a posterior's task."""
    options = card.get("task_options")
    return {"task": str(card.get("task"))} | ({"task_options": options} if options else {})


def _heads_of(card: Mapping[str, Any]) -> str:
    """Kind of a posterior's heads; cards older than the choice say nothing."""
    return str(card.get("heads", "absolute"))


def _flows_of(card: Mapping[str, Any]) -> tuple[str, int]:
    """A posterior's flows and their layers; cards of posteriors without say nothing."""
    return str(card.get("flows", "")), int(card.get("flow_layers", 0))


def _describe_flows(flows: str, layers: int) -> str:
    return f"flows {flows} of {layers} layers" if flows else "no flows"


def _describe_groups(first_groups: int | None) -> str:
    return "all groups" if first_groups is None else f"the first {first_groups} groups"


def _equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Whether two states hold the same values under the same names, wherever they lie."""
    return a.keys() == b.keys() and all(torch.equal(v, b[k].to(v.device)) for k, v in a.items())
