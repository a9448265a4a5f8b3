"""Where and in which precision to compute; nothing else knows devices."""

from __future__ import annotations

import contextlib
import logging
import platform
from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import nn

from condvae.ground.configuration import ConfigurationError

__all__ = [
    "autocast",
    "explain_out_of_memory",
    "place",
    "plain_inference",
    "resolve_device",
    "warn_of_slow_precision",
]

log = logging.getLogger(__name__)


def resolve_device(name: str) -> torch.device:
    """``auto`` | ``cpu`` | ``cuda`` | ``cuda:N`` -> device.

    Raises:
        ConfigurationError: Unknown name, or a GPU that is not there.
    """
    available = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda" if available else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    kind, _, index = name.partition(":")
    if kind != "cuda" or (":" in name and not index.isdigit()):
        raise ConfigurationError(f"device = {name!r}: expected auto, cpu, cuda or cuda:N")
    if int(index or 0) >= available:
        raise ConfigurationError(f"device = {name!r}: this machine has {available} CUDA devices")
    return torch.device(name)


M = TypeVar("M", bound=nn.Module)


def place(module: M, device: torch.device | str) -> M:
    """Move a network to a device, in the memory layout its convolutions run fastest in.

    On a processor steps and samples of these narrow networks take 0.74 to 0.98 times as long
    channels last as channels first (medians of ``benchmarks/memory_layout.py``); tensor cores want
    it too.
    """
    return module.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


@contextlib.contextmanager
def plain_inference() -> Iterator[None]:
    """No gradients, and no autocast of a caller's: what a seed gives depends on nothing ambient."""
    with contextlib.ExitStack() as settings:
        settings.enter_context(torch.no_grad())
        for kind in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
            settings.enter_context(torch.autocast(kind, enabled=False))
        yield


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Context in which networks run in `precision` (``float32`` or ``bfloat16``)."""
    if precision == "bfloat16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def warn_of_slow_precision(precision: str, device: torch.device, parameter: str) -> None:
    """Warn where a processor has to imitate `precision`, which costs time instead of saving it.

    Args:
        precision: ``float32`` or ``bfloat16``.
        device: Where networks run.
        parameter: What sets the precision, for the message.
    """
    if precision == "bfloat16" and device.type == "cpu" and not _computes_bfloat16():
        log.warning(
            "%s = bfloat16: this processor has no units for bfloat16 (AVX512_BF16, AMX or Arm's BF16) "
            "and imitates them; a step of the preset cifar10 took 93 s that way, and 14 s with float32",
            parameter,
        )


def _computes_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 numbers; True where PyTorch cannot tell."""
    if not hasattr(torch.cpu, "get_capabilities"):  # of younger versions of PyTorch
        x86 = platform.machine().lower() in ("x86_64", "amd64")
        return (
            not x86 or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        )
    found = torch.cpu.get_capabilities()
    return any(found.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))


@contextlib.contextmanager
def explain_out_of_memory(parameter: str, value: int) -> Iterator[None]:
    """Say which parameter to lower when the device's memory runs out inside the block."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ConfigurationError(
            f"the device ran out of memory with {parameter} = {value}; lower it (half is a start)"
        ) from error
