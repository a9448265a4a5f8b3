"""State dictionaries in the official layout, in and out.

The unconditional layout is this project's own. The conditional one keeps the partial encoder beside
the encoder (``part_encoder.*``) and each head inside its decoder block
(``decoder.dec_blocks.N.part_enc.*``); here both live in one trainable module, `PartialEncoder`, as
``encoder.*`` and ``heads.N.*``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

from condvae.configuration import ConfigurationError

__all__ = ["load_strictly", "merge_conditional", "split_conditional"]


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


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Load `state` into `module`, or change nothing and say what does not fit.

    Args:
        module: Receives the weights.
        state: Names and tensors.
        name: What is being loaded, for the message.

    Raises:
        ConfigurationError: Missing, extra or mis-shaped entries, each listed (the first 20).
    """
    own = module.state_dict()
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
    module.load_state_dict(dict(state), strict=True)
