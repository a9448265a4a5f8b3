"""State dictionaries: read from files without running code, compared, loaded without silent gaps."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from condvae.ground.configuration import ConfigurationError

__all__ = ["load_strictly", "read_checkpoint", "refuse_differences"]


def load_strictly(
    module: nn.Module, state: Mapping[str, Tensor], name: str, *, assign: bool = False
) -> None:
    """Load `state` into `module`, or change nothing and say what does not fit.

    Args:
        module: Receives the weights.
        state: Names and tensors.
        name: What is being loaded, for the message.
        assign: Take the tensors themselves instead of copying their values: for a module built
            without memory of its own (on the ``meta`` device).

    Raises:
        ConfigurationError: Missing, extra or mis-shaped entries, each listed (the first 20).
    """
    refuse_differences(module.state_dict(), state, name)
    module.load_state_dict(dict(state), strict=True, assign=assign)


def refuse_differences(own: Mapping[str, Tensor], state: Mapping[str, Tensor], name: str) -> None:
    """Raise unless `state` has the names and shapes of `own`.

    Args:
        own: What is to be filled.
        state: What is offered.
        name: Of what is offered, for the message.

    Raises:
        ConfigurationError: Missing, extra or mis-shaped entries, each listed (the first 20).
    """
    problems = [f"missing: {key}" for key in own if key not in state]
    problems += [f"extra: {key}" for key in state if key not in own]
    problems += [
        f"shape: {key} is {tuple(state[key].shape)}, expected {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    if problems:
        shown = "\n  ".join(problems[:20])
        more = f"\n  and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise ConfigurationError(
            f"{name} does not fit the model: {len(problems)} entries differ\n  {shown}{more}"
        )


def read_checkpoint(path: Path) -> Any:
    """Read what `torch.save` wrote, nothing but tensors and plain values being unpickled.

    Args:
        path: Of the file; see `read_official` on what is checked.

    Raises:
        ConfigurationError: The file is missing, truncated or damaged.
    """
    if not path.is_file():
        raise ConfigurationError(f"checkpoint {path}: no such file")
    if path.stat().st_size == 0:
        raise ConfigurationError(f"checkpoint {path} is empty: fetch it again")
    try:
        _compare_checksums(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except ConfigurationError:
        raise
    except pickle.UnpicklingError as error:
        raise ConfigurationError(
            f"checkpoint {path}: damaged, or a pickle of something else than tensors, which is not "
            f"loaded because it could run any code ({_reason(error)})"
        ) from error
    except Exception as error:  # damaged bytes make the readers fail in any way they can
        raise ConfigurationError(
            f"checkpoint {path} cannot be read: truncated, damaged, or not written by torch.save "
            f"({type(error).__name__}: {_reason(error)})"
        ) from error


# PyTorch advises to unpickle without its guard; a user who follows that runs the file's code.
_ADVICE = ("Weights only load failed", "Please file an issue", "Check the documentation")


def _reason(error: Exception) -> str:
    """First line of what an exception says, PyTorch's advice left out."""
    lines = [line for line in str(error).splitlines() if line and not line.startswith(_ADVICE)]
    return lines[0][:200] if lines else type(error).__name__


def _compare_checksums(path: Path) -> None:
    """Compare every entry of a zip archive with its CRC-32; bare pickles pass."""
    with open(path, "rb") as file:
        starts_as_zip = file.read(4) == b"PK\x03\x04"
    if not (starts_as_zip or zipfile.is_zipfile(path)):
        return
    if not zipfile.is_zipfile(path):
        raise ConfigurationError(
            f"checkpoint {path} is truncated: the list of contents at its end is missing "
            f"({path.stat().st_size:,} bytes are there). Fetch it again"
        )
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ConfigurationError(
            f"checkpoint {path} is damaged: {damaged} does not have its checksum. Fetch it again"
        )
