"""Bars of long work on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

__all__ = ["ProgressBar", "progress_bar"]


class ProgressBar:
    """Training callback that shows steps, images/s, loss and the time left."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None

    def on_start(self, name: str, step: int, steps: int, batch_size: int) -> None:
        """Open the bar at the step reached so far."""
        self._bar = progress_bar(name, steps * batch_size, initial=step * batch_size, unit="img")
        self._batch_size = batch_size

    def on_step(self, step: int) -> None:
        """Advance by one batch."""
        if self._bar is not None:
            self._bar.update(self._batch_size)

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Show the latest values."""
        if self._bar is not None:
            shown = ("train/loss", "train/kl_nats", "train/bits_per_dim")
            self._bar.set_postfix(
                {k.split("/")[1]: f"{metrics[k]:.4g}" for k in shown if k in metrics}
            )

    def on_end(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()


def progress_bar(name: str, total: int, *, initial: int = 0, unit: str = "it") -> tqdm[Any]:
    """A bar with rate and time left; on a file or pipe one line every ten seconds at most."""
    interval = 0.2 if sys.stderr.isatty() else 10.0
    return tqdm(total=total, initial=initial, desc=name, unit=unit, mininterval=interval)
