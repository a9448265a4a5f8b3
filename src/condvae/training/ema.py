"""Exponential moving average of the trainable weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

__all__ = ["WeightAverage"]


class WeightAverage:
    """Average of the parameters of a module that require gradients; frozen ones are not copied.

    Args:
        module: Its trainable parameters are followed.
        decay: Weight of the past; 0 means the average is the latest value.
        warmup: Use min(decay, (1 + t) / (10 + t)) at update t.
    """

    def __init__(self, module: nn.Module, decay: float, *, warmup: bool) -> None:
        named = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self._parameters = named
        self.decay = decay
        self.warmup = warmup
        self.values: dict[str, Tensor] = {n: p.detach().clone() for n, p in named.items()}

    @torch.no_grad()
    def update(self, t: int) -> None:
        """Take in the present weights after update number `t` (0-based)."""
        decay = min(self.decay, (1 + t) / (10 + t)) if self.warmup else self.decay
        current = [self._parameters[n].detach() for n in self.values]
        torch._foreach_lerp_(list(self.values.values()), current, 1.0 - decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Inside the block the module holds the averages; afterwards its own weights again."""
        with torch.no_grad():
            own = {n: p.detach().clone() for n, p in self._parameters.items()}
            for name, parameter in self._parameters.items():
                parameter.copy_(self.values[name])
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in self._parameters.items():
                    parameter.copy_(own[name])

    @torch.no_grad()
    def load(self, values: dict[str, Tensor]) -> None:
        """Restore saved averages."""
        for name, value in self.values.items():
            value.copy_(values[name])
