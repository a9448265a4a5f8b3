"""State dictionaries in the official layout, in and out.

The unconditional layout is this project's own. The conditional one keeps the partial encoder beside
the encoder (``part_encoder.*``) and each head inside its decoder block
(``decoder.dec_blocks.N.part_enc.*``); here both live in one trainable module, `PartialEncoder`, as
``encoder.*`` and ``heads.N.*``.

Files (``.th``) are what `torch.save` makes of such a dictionary: a zip archive, or a bare pickle before
PyTorch 1.6.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from condvae.ground.configuration import ConfigurationError
from condvae.ground.files import open_atomic
from condvae.ground.images import DataContract
from condvae.ground.likelihoods import LogisticMixture
from condvae.ground.state_dicts import load_strictly, read_checkpoint, refuse_differences
from condvae.ipa.partial_encoder import PartialEncoder
from condvae.models.presets import Preset, StatedModel
from condvae.vdvae.architecture import Architecture
from condvae.vdvae.model import VDVAE

__all__ = [
    "AVERAGED",
    "check_state",
    "load_official_conditional",
    "load_official_vae",
    "merge_conditional",
    "preset_of_state",
    "read_official",
    "split_conditional",
    "write_official",
    "write_official_conditional",
]

# Under this name checkpoints of Efficient-VDVAE hold their averaged weights.
AVERAGED = "ema_model_state_dict"


def split_conditional(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split an official conditional state into (unconditional part, partial-encoder part).

    A ``module.`` prefix, which data-parallel training leaves, is dropped.
    """
    vae, partial = {}, {}
    for official_key, value in state.items():
        key = official_key.removeprefix("module.")
        if key.startswith("part_encoder."):
            partial["encoder." + key.removeprefix("part_encoder.")] = value
        elif match := re.fullmatch(r"decoder\.dec_blocks\.(\d+)\.part_enc\.(.+)", key):
            partial[f"heads.{match[1]}.{match[2]}"] = value
        else:
            vae[key] = value
    return vae, partial


def merge_conditional(
    vae: Mapping[str, Tensor], partial: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The inverse of `split_conditional`."""
    state = dict(vae)
    for key, value in partial.items():
        if key.startswith("encoder."):
            state["part_encoder." + key.removeprefix("encoder.")] = value
        else:
            _, index, rest = key.split(".", 2)
            state[f"decoder.dec_blocks.{index}.part_enc.{rest}"] = value
    return state


def read_official(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a file in the official layout, nothing but tensors being unpickled.

    The checksums of a zip archive are compared first, so that no flipped bit reaches a weight. A bare
    pickle has none: damage to its structure is found, a changed weight is not (compare the file's
    sha256).

    Args:
        path: A ``.th`` file.

    Returns:
        Tensors on the CPU by name, without a ``module.`` prefix.

    Raises:
        ConfigurationError: The file is missing, truncated, damaged, or no state dictionary of finite
            tensors; the message names it.
    """
    path = Path(path)
    return check_state(read_checkpoint(path), path)


def check_state(content: Any, path: Path) -> dict[str, Tensor]:
    """Names and tensors of a state dictionary, without a ``module.`` prefix.

    Args:
        content: What was unpickled.
        path: Of the file, for messages.

    Raises:
        ConfigurationError: It is no state dictionary of finite tensors; the message says what it is.
    """
    if isinstance(content, Mapping) and AVERAGED in content:
        raise ConfigurationError(
            f"checkpoint {path} is one of Efficient-VDVAE (Hazami et al. 2022), expected one of VDVAE: "
            "open it under its registered name (efficient-vdvae-celeba64, ...) or with its preset "
            "(efficient_celeba64, ...)"
        )
    if not isinstance(content, Mapping):
        raise ConfigurationError(
            f"checkpoint {path} holds a {type(content).__name__}, expected a state dictionary"
        )
    if not content:
        raise ConfigurationError(f"checkpoint {path} holds no tensors")
    state: dict[str, Tensor] = {}
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise ConfigurationError(
                f"checkpoint {path} is no state dictionary: entry {key!r} is a "
                f"{type(value).__name__}, expected a tensor with a name"
            )
        if not bool(torch.isfinite(value).all()):
            raise ConfigurationError(f"checkpoint {path}: {key} has values that are not finite")
        name = key.removeprefix("module.")
        if name in state:
            raise ConfigurationError(
                f"checkpoint {path}: {name} is there with and without the prefix 'module.'"
            )
        state[name] = value
    return state


def write_official(path: str | os.PathLike[str], state: Mapping[str, Tensor]) -> None:
    """Write a state dictionary as the official code does; `path` is whole or left as it was.

    Args:
        path: The ``.th`` file; its folder is made when missing.
        state: ``vae.state_dict()`` of a model with `latent_std` ``exp``, which the official code
            takes for granted; for conditional models see `write_official_conditional`.
    """
    with open_atomic(path) as file:
        torch.save({key: _compact(value) for key, value in state.items()}, file)


def write_official_conditional(
    path: str | os.PathLike[str], vae: VDVAE, partial: PartialEncoder
) -> None:
    """Write a conditional model as the official code does; see `write_official`.

    Args:
        path: The ``.th`` file.
        vae: The frozen model.
        partial: Its partial encoder.

    Raises:
        ConfigurationError: Residual heads or softplus stds; the layout cannot say so, and the
            official code would take their outputs for means and log-stds. Or flows, or groups that
            are not conditioned, which it does not know. Nothing is written.
    """
    if vae.architecture.latent_std != "exp":
        raise ConfigurationError(
            f"{path}: a model with latent_std = {vae.architecture.latent_std!r} cannot be written in "
            "the official layout, whose stds are 'exp'. Save a model folder (save_posterior)"
        )
    if partial.flow_kinds:
        raise ConfigurationError(
            f"{path}: a partial encoder with flows {partial.flow_kinds!r} cannot be written in the "
            "official layout, whose heads are Gaussian. Save a model folder (save_posterior)"
        )
    if partial.first_groups is not None:
        raise ConfigurationError(
            f"{path}: a partial encoder of {partial.first_groups} groups cannot be written in the "
            "official layout, which has a head for every group. Save a model folder (save_posterior)"
        )
    if partial.head_kind != "absolute":
        raise ConfigurationError(
            f"{path}: a partial encoder with {partial.head_kind} heads cannot be written in the "
            "official layout, whose heads are absolute. Save a model folder (save_posterior)"
        )
    write_official(path, merge_conditional(vae.state_dict(), partial.state_dict()))


def _compact(value: Tensor) -> Tensor:
    """A contiguous CPU tensor that owns its memory: torch.save would write all of a shared one."""
    value = value.detach().cpu().contiguous()
    return value if value.untyped_storage().nbytes() == value.nbytes else value.clone()


def load_official_vae(
    path: str | os.PathLike[str], preset: Preset, dtype: torch.dtype = torch.float32
) -> VDVAE:
    """Build a preset's VAE with the weights of an unconditional file.

    Args:
        path: See `read_official`.
        preset: Says what the file must fit.
        dtype: Floating type of the model; published files are float32.

    Returns:
        The model in evaluation mode, frozen, on the CPU.

    Raises:
        ConfigurationError: See `read_official`; also entries that are missing, extra or mis-shaped.
    """
    vae = _empty_vae(preset)
    _fill(vae, read_official(path), f"{path} ({_named(preset)})", dtype)
    return vae.eval().requires_grad_(False)


def load_official_conditional(
    path: str | os.PathLike[str],
    preset: Preset,
    condition_channels: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[VDVAE, PartialEncoder]:
    """Build a preset's VAE and partial encoder with the weights of a conditional file.

    Args:
        path: See `read_official`.
        preset: Says what the file must fit.
        condition_channels: Cy; None = image and mask (edges to photos has 3, without a mask).
        dtype: Floating type of the models.

    Returns:
        The VAE, frozen, and the partial encoder, which can be trained further; both in evaluation
        mode on the CPU.

    Raises:
        ConfigurationError: See `load_official_vae`.
    """
    vae = _empty_vae(preset)
    with torch.device("meta"):
        partial = PartialEncoder(vae, condition_channels or preset.contract.channels + 1)
    # Filled together, so that the message lists what is wrong with either, in the file's own names.
    both = merge_conditional(vae.state_dict(), partial.state_dict())
    state = read_official(path)
    name = f"{path} ({_named(preset)}, conditional)"
    refuse_differences(both, state, name)
    for module, part in zip((vae, partial), split_conditional(state), strict=True):
        _fill(module, part, name, dtype)
    return vae.eval().requires_grad_(False), partial.eval()


def _empty_vae(preset: Preset) -> VDVAE:
    """A model without memory: no time goes into first weights that are replaced at once."""
    with torch.device("meta"):
        return VDVAE(preset.shape, preset.contract)


def _named(preset: Preset) -> str:
    """How messages name what a file was expected to fit."""
    return f"preset {preset.architecture}" if isinstance(preset.architecture, str) else "as stated"


def preset_of_state(state: Mapping[str, Tensor], stated: StatedModel, name: str) -> Preset:
    """Complete what is stated of a model by what its tensors say.

    Args:
        state: Conditional or not, see `read_official`.
        stated: What the tensors do not say.
        name: Of the file, for messages.

    Returns:
        A preset without training settings.

    Raises:
        ConfigurationError: The layer strings have other numbers of blocks than the file; or tensors
            that decide the architecture are missing.
    """
    draft = stated.draft
    bottom_up = [block.resolution for block in draft.encoder_blocks]
    top_down = [block.resolution for block in draft.decoder_blocks]
    for which, prefix, blocks in (
        ("encoder", "encoder.enc_blocks.", bottom_up),
        ("decoder", "decoder.dec_blocks.", top_down),
    ):
        found = len({key.split(".")[2] for key in state if key.startswith(prefix)})
        if found != len(blocks):
            raise ConfigurationError(
                f"{name} has {found} blocks in its {which}, {which} = {getattr(stated, which)!r} has "
                f"{len(blocks)}"
            )
    try:
        channels = state["encoder.in_conv.weight"].shape[1]
        widths = {stated.image_size: state["decoder.gain"].shape[1]}
        for index, resolution in enumerate(bottom_up):
            middle, width, *_ = state[f"encoder.enc_blocks.{index}.c1.weight"].shape
            widths[resolution] = width
        for index, resolution in enumerate(top_down):
            widths[resolution] = state[f"decoder.dec_blocks.{index}.prior.c1.weight"].shape[1]
        latent_channels = state["decoder.dec_blocks.0.z_proj.weight"].shape[1]
        outputs = state["decoder.out_net.out_conv.weight"].shape[0]
    except KeyError as error:
        raise ConfigurationError(f"{name} is no VDVAE in the official layout: no {error}") from None
    biased = [value.shape[2] for key, value in state.items() if key.startswith("decoder.bias_xs.")]
    usual = max(set(widths.values()), key=list(widths.values()).count)
    exceptions = sorted((size, width) for size, width in widths.items() if width != usual)
    one_mixture = LogisticMixture(channels, 1, stated.bits).parameter_channels
    # The published ratio wherever it gives the last block's channels.
    bottlenecks = (0.25, middle / width, (middle + 0.5) / width)
    shape = Architecture(
        image_size=stated.image_size,
        channels=channels,
        width=usual,
        latent_channels=latent_channels,
        encoder=stated.encoder,
        decoder=stated.decoder,
        bottleneck=next(ratio for ratio in bottlenecks if int(width * ratio) == middle),
        mixtures=outputs // one_mixture,
        bias_up_to=max(biased, default=0),
        widths=",".join(f"{size}:{width}" for size, width in exceptions),
    )
    contract = DataContract(channels, stated.image_size, stated.mean, stated.std, stated.bits)
    return Preset(shape, contract, None, None, f"{name}, as stated")


def _fill(module: nn.Module, state: Mapping[str, Tensor], name: str, dtype: torch.dtype) -> None:
    """Give an empty module its weights."""
    converted = {key: value.to(dtype) for key, value in state.items()}
    load_strictly(module, converted, name, assign=True)
