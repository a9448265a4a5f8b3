"""Checkpoints of Efficient-VDVAE in: what they say of their architecture, and their weights.

A published file is a zip archive with a PyTorch checkpoint in it: a dictionary with
``ema_model_state_dict``, the averaged weights, beside the raw ones and the optimiser's. The
architecture is read from names and shapes, because the hyper-parameters released beside the code are
called examples and not those of the published weights.

Their last convolution of a posterior or prior network and the projection that follows it, both 1x1
with nothing between, are one convolution here: the same function with fewer weights, so nothing goes
back into their layout.

References:
    L. Hazami, R. Mama, R. Thurairatnam. Efficient-VDVAE: Less is more. 2022. Layout as written by
    github.com/Rayhane-mamah/Efficient-VDVAE (PyTorch; the JAX checkpoints are something else).
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor

from condvae.ground.configuration import ConfigurationError
from condvae.ground.state_dicts import load_strictly, read_checkpoint
from condvae.models.official_layout import AVERAGED, check_state
from condvae.models.presets import Preset
from condvae.vdvae.architecture import Architecture
from condvae.vdvae.model import VDVAE

__all__ = ["convert_efficient", "efficient_architecture", "load_efficient_vae", "read_efficient"]

UP, UP_ENDS = "bottom_up.levels_up", "bottom_up.levels_up_downsample"
DOWN, DOWN_STARTS = "top_down.levels_down", "top_down.levels_down_upsample"
COLOURS = 3

log = logging.getLogger(__name__)


def load_efficient_vae(
    path: str | os.PathLike[str], preset: Preset, dtype: torch.dtype = torch.float32
) -> VDVAE:
    """Build the VAE of an Efficient-VDVAE checkpoint; its architecture is the file's own.

    Args:
        path: See `read_efficient`.
        preset: Gives the data contract, and the architecture that is expected.
        dtype: Floating type of the model.

    Returns:
        The model in evaluation mode, frozen, on the CPU.

    Raises:
        ConfigurationError: See `read_efficient` and `convert_efficient`; also images of another size
            than the preset's.
    """
    state = read_efficient(path)
    try:
        architecture = efficient_architecture(state)
        converted = convert_efficient(state, architecture)
    except ConfigurationError as error:
        raise ConfigurationError(f"checkpoint {path}: {error}") from error
    expected = preset.shape
    if architecture.image_size != expected.image_size:
        raise ConfigurationError(
            f"checkpoint {path} is for images of {architecture.image_size}², preset "
            f"{preset.architecture} for {expected.image_size}²"
        )
    if architecture != expected:
        log.warning("%s: other than the example %s: %s", path, preset.architecture, architecture)
    with torch.device("meta"):
        vae = VDVAE(architecture, preset.contract)
    converted = {key: value.to(dtype) for key, value in converted.items()}
    load_strictly(vae, converted, str(path), assign=True)
    return vae.eval().requires_grad_(False)


def read_efficient(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the averaged weights of an Efficient-VDVAE checkpoint, nothing but tensors being unpickled.

    Args:
        path: The published zip archive, or the checkpoint that is in it. For an archive there must be
            room for its contents in the same folder; they are removed at once.

    Returns:
        Tensors on the CPU by their published names.

    Raises:
        ConfigurationError: The file is missing, damaged, or something else; the message names it.
    """
    path = Path(path)
    content = None
    if path.is_file() and zipfile.is_zipfile(path):
        content = _read_archive(path)
    if content is None:
        content = read_checkpoint(path)
    if not isinstance(content, Mapping) or AVERAGED not in content:
        raise ConfigurationError(
            f"checkpoint {path} is none of Efficient-VDVAE's (PyTorch): it has no {AVERAGED}"
        )
    return check_state(content[AVERAGED], path)


def _read_archive(path: Path) -> object:
    """Content of the largest member, which is the checkpoint; None if `path` is one itself."""
    with zipfile.ZipFile(path) as archive:
        members = [info for info in archive.infolist() if not info.is_dir()]
        if any(Path(info.filename).name == "data.pkl" for info in members):
            return None
        if not members:
            raise ConfigurationError(f"checkpoint {path} is an empty archive")
        largest = max(members, key=lambda info: info.file_size)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            # A name that says where it is from: messages show it.
            target = Path(folder) / Path(largest.filename).name
            try:
                with archive.open(largest) as source, target.open("wb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
            except (zipfile.BadZipFile, zlib.error, EOFError) as error:
                raise ConfigurationError(
                    f"checkpoint {path} is damaged: {error}. Fetch it again"
                ) from error
            return read_checkpoint(target)


def efficient_architecture(state: Mapping[str, Tensor]) -> Architecture:
    """Read the architecture from names and shapes.

    Args:
        state: From `read_efficient`.

    Raises:
        ConfigurationError: An entry is missing, or the model is none of those that are supported:
            three channels, the same width everywhere at a resolution.
    """
    first, last = _entry(state, "bottom_up.input_conv.weight"), "top_down.output_conv.weight"
    if first.shape[1] != COLOURS or _entry(state, last).shape[0] % 10:
        raise ConfigurationError(
            f"images of {first.shape[1]} channels, {_entry(state, last).shape[0]} outputs a pixel: "
            "only colour images with a mixture of logistics (10 outputs a component) are supported"
        )
    top = _entry(state, "top_down.trainable_h").shape[2]
    rates = [_rate(state, f"{UP_ENDS}.{level}") for level in range(_count(state, UP_ENDS))]
    size = image_size = top * math.prod(rates)
    encoder, widths = [], {image_size: first.shape[0]}
    for level, rate in enumerate(rates):
        encoder += [(size, "u")] * _count(state, f"{UP}.{level}")
        encoder.append((size, "x") if rate == 1 else (size, f"d{rate}"))
        widths[size] = _entry(state, f"{UP_ENDS}.{level}.skip_projection.weight").shape[0]
        size //= rate
    decoder: list[tuple[int, str]] = []
    for stage in range(_count(state, DOWN_STARTS)):
        bias = state.get(f"{DOWN_STARTS}.{stage}.unpool.scale_bias")
        if bias is None:
            decoder.append((size, "x"))
        else:
            decoder.append((bias.shape[2], f"m{size}"))
            size = bias.shape[2]
        decoder += [(size, "r")] * _count(state, f"{DOWN}.{stage}")
    middle = _entry(state, f"{DOWN_STARTS}.0.residual_block.0.convs.1.weight").shape[0]
    width = _entry(state, "top_down.trainable_h").shape[1]
    return Architecture(
        image_size=image_size,
        channels=COLOURS,
        width=width,
        latent_channels=_entry(state, f"{DOWN_STARTS}.0.z_projection.weight").shape[1],
        encoder=_layer_string(encoder),
        decoder=_layer_string(decoder),
        bottleneck=middle / width,
        mixtures=_entry(state, last).shape[0] // 10,
        bias_up_to=max(image_size, 64),
        widths=",".join(f"{r}:{w}" for r, w in widths.items() if w != width),
        latent_std="softplus",
        family="efficient_vdvae",
    )


def convert_efficient(state: Mapping[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
    """Rename and join the weights for a `VDVAE`.

    Args:
        state: From `read_efficient`.
        architecture: From `efficient_architecture`.

    Returns:
        ``vae.state_dict()`` by name.

    Raises:
        ConfigurationError: An entry is missing, or entries are left that the model has no place for.
    """
    rest = dict(state)
    out = _convert_encoder(rest, architecture) | _convert_decoder(rest, architecture)
    if rest:
        shown = "\n  ".join(list(rest)[:20])
        raise ConfigurationError(
            f"{len(rest)} entries have no place in the model, whose blocks have four convolutions:\n"
            f"  {shown}"
        )
    return out


def _convert_encoder(rest: dict[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
    """The bottom-up network; entries that are used leave `rest`."""
    out = _convolution(rest, "bottom_up.input_conv", "encoder.in_conv")
    level, before = 0, 0
    for index, block in enumerate(architecture.encoder_blocks):
        own = f"encoder.enc_blocks.{index}"
        if not block.linked:
            out |= _block(rest, f"{UP}.{level}.{before}.residual_block.0", own)
            before += 1
            continue
        end = f"{UP_ENDS}.{level}"
        out |= _block(rest, f"{end}.residual_block.0", own)
        out |= _convolution(rest, f"{end}.skip_projection", f"encoder.links.{index}")
        if block.down_rate is not None:
            out |= _convolution(rest, f"{end}.pool.ops.0", f"encoder.pools.{index}")
        level, before = level + 1, 0
    return out


def _convert_decoder(rest: dict[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
    """The top-down network; entries that are used leave `rest`."""
    biases: dict[int, Tensor] = {}
    out: dict[str, Tensor] = {}
    stage, shared = -1, 0
    link: tuple[int, int | None] = (0, None)
    for index, group in enumerate(architecture.decoder_blocks):
        own = f"decoder.dec_blocks.{index}"
        if (group.resolution, group.link) != link:
            stage, shared, link = stage + 1, 0, (group.resolution, group.link)
            source = f"{DOWN_STARTS}.{stage}"
        else:
            source = f"{DOWN}.{stage}.{shared}"
            shared += 1
        if group.mixin is not None:
            biases[group.resolution] = _take(rest, f"{source}.unpool.scale_bias")
            out |= _convolution(rest, f"{source}.unpool.ops.0", f"{own}.unpool")
        out |= _group(rest, source, own)
    biases[architecture.decoder_blocks[0].resolution] = _take(rest, "top_down.trainable_h")
    for index, size in enumerate(sorted(biases)):
        out[f"decoder.bias_xs.{index}"] = biases[size]
    out |= _convolution(rest, "top_down.output_conv", "decoder.out_net.out_conv")
    # Their output is the hidden state itself.
    width = architecture.width_at(architecture.image_size)
    out["decoder.gain"] = torch.ones(1, width, 1, 1)
    out["decoder.bias"] = torch.zeros(1, width, 1, 1)
    return out


def _group(rest: dict[str, Tensor], source: str, own: str) -> dict[str, Tensor]:
    """One latent group."""
    out = _block(rest, f"{source}.residual_block.0", f"{own}.resnet")
    out |= _convolution(rest, f"{source}.z_projection", f"{own}.z_proj")
    out |= _block(rest, f"{source}.posterior_net.0", f"{own}.enc")
    out |= _block(rest, f"{source}.prior_net.0", f"{own}.prior")
    posterior = _projected(rest, f"{source}.posterior_layer", *_pair(out, f"{own}.enc.c4"))
    skip, features = zip(*(half.chunk(2) for half in _pair(out, f"{own}.prior.c4")), strict=True)
    prior = _projected(rest, f"{source}.prior_layer", *features)
    for kind, q, p, s in zip(("weight", "bias"), posterior, prior, skip, strict=True):
        out[f"{own}.enc.c4.{kind}"] = q
        out[f"{own}.prior.c4.{kind}"] = torch.cat([p, s])
    return out


def _projected(
    rest: dict[str, Tensor], layer: str, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Weight and bias of a 1x1 convolution and the 1x1 projection after it as one convolution."""
    matrix = _take(rest, f"{layer}.projection.weight").flatten(1).double()
    offset = _take(rest, f"{layer}.projection.bias").double()
    # Shapes that cannot be joined are those of another model, not of a damaged file.
    if weight.shape[2:] != (1, 1) or weight.shape[0] != matrix.shape[1]:
        raise ConfigurationError(
            f"{layer}.projection.weight is {tuple(matrix.shape)} after a convolution of "
            f"{tuple(weight.shape)}: expected 1x1 convolutions, links as wide as the hidden state"
        )
    joined = (matrix @ weight.flatten(1).double())[..., None, None]
    return joined.to(weight.dtype), (matrix @ bias.double() + offset).to(bias.dtype)


def _block(rest: dict[str, Tensor], source: str, own: str) -> dict[str, Tensor]:
    """Four convolutions; in their layout activations count too."""
    out: dict[str, Tensor] = {}
    for number in (1, 2, 3, 4):
        out |= _convolution(rest, f"{source}.convs.{2 * number - 1}", f"{own}.c{number}")
    return out


def _convolution(rest: dict[str, Tensor], source: str, own: str) -> dict[str, Tensor]:
    return {f"{own}.{kind}": _take(rest, f"{source}.{kind}") for kind in ("weight", "bias")}


def _pair(out: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    return out[f"{name}.weight"], out[f"{name}.bias"]


def _take(rest: dict[str, Tensor], name: str) -> Tensor:
    """Remove and return an entry."""
    value = _entry(rest, name)
    del rest[name]
    return value


def _entry(state: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in state:
        raise ConfigurationError(f"{name} is missing: not Efficient-VDVAE's layout, or cut off")
    return state[name]


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    """Number of modules in the list called `prefix`."""
    start = f"{prefix}."
    return len({key[len(start) :].split(".")[0] for key in state if key.startswith(start)})


def _rate(state: Mapping[str, Tensor], level: str) -> int:
    """By how much a level of the encoder pools; the kernel is as large as the step."""
    weight = state.get(f"{level}.pool.ops.0.weight")
    return 1 if weight is None else int(weight.shape[2])


def _layer_string(items: list[tuple[int, str]]) -> str:
    """(resolution, kind) of every block -> the grammar of `Architecture`."""
    parts = []
    for (size, kind), run in groupby(items):
        # d and m come with a number of their own, and once.
        parts.append(f"{size}{kind}" + (str(len(list(run))) if len(kind) == 1 else ""))
    return ",".join(parts)
