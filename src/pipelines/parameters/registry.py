"""Parameters of the model registry."""

from __future__ import annotations

from dataclasses import dataclass

from condvae.ground.configuration import ConfigurationError, check_choice
from condvae.scores.definitions import METRICS

__all__ = ["RegistryConfig"]

PROMOTIONS = ("paired", "never", "always")


@dataclass(frozen=True)
class RegistryConfig:
    """Whether a trained posterior is registered, and when it becomes the champion.

    The first posterior that is registered under a name is its champion, whatever `promote` says.

    Attributes:
        register: Register what `inpaint` and the pipelines of tasks train.
        promote: ``paired``: a new posterior takes the champion's place if it is better in every one of
            `metrics`, the interval of the paired difference on the same manifest not reaching zero;
            ``never``: the champion stays; ``always``: the last one registered takes its place.
        metrics: Proper scores that are compared case by case.
        level: Of the bootstrap intervals over images, in (0, 1).
    """

    register: bool = True
    promote: str = "paired"
    metrics: tuple[str, ...] = ("energy_score_pixels", "bound_bits_per_unobserved_dim")
    level: float = 0.95

    def __post_init__(self) -> None:
        check_choice("promote", self.promote, PROMOTIONS)
        if not self.metrics:
            raise ConfigurationError("metrics = []: expected one score at least")
        proper = [name for name, metric in METRICS.items() if metric.proper and metric.compared]
        for name in self.metrics:
            check_choice("metrics", name, proper)
        if not 0 < self.level < 1:
            raise ConfigurationError(f"level = {self.level!r}: expected in (0, 1)")
