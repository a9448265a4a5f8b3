"""What may listen to a training run while it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

__all__ = ["Callback"]


class Callback(Protocol):
    """Receives a run's events; must not change the run."""

    def on_start(self, name: str, step: int, steps: int, batch_size: int) -> None:
        """Training `name` begins (or resumes) after `step` of `steps` updates.

        A run that goes back to a checkpoint ends and begins again.
        """
        ...

    def on_step(self, step: int) -> None:
        """Update number `step` (1-based) is done."""
        ...

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Metrics after `step` updates."""
        ...

    def on_end(self) -> None:
        """Training has ended, well or not."""
        ...
