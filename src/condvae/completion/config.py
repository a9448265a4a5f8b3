"""How one's own pictures are completed."""

from __future__ import annotations

from dataclasses import dataclass

from condvae.ground.configuration import (
    ConfigurationError,
    check_choice,
    check_positive,
    check_seed,
)
from condvae.masks.files import POLARITIES
from condvae.posterior.guidance import GUIDANCE_RULES

__all__ = ["CompletionSettings"]


@dataclass(frozen=True)
class CompletionSettings:
    """What decides the results beside pictures, masks and model.

    Attributes:
        n: S, completions per picture.
        seed: With picture, mask and number decides a completion.
        temperature: Multiplies the standard deviation of every latent; the posterior is 1.
        quantiles: Levels of the quantile maps, in [0, 1].
        polarity: What white means in mask files, one of `condvae.masks.files.POLARITIES`.
        small: What happens to pictures smaller than the model: ``refuse`` or ``enlarge``.
        unreadable: What a picture or mask that cannot be used does: ``stop`` or ``skip``.
        paste_observed: Copy observed pixels exactly; False shows the model's raw output.
        batch_size: Images decoded at a time.
        guidance: Weight of c(z | y) against the prior; the posterior is 1. See
            `condvae.posterior.guidance`.
        guidance_rule: What the weight means, one of `condvae.posterior.guidance.GUIDANCE_RULES`.
    """

    n: int = 16
    seed: int = 0
    temperature: float = 1.0
    quantiles: tuple[float, ...] = (0.05, 0.95)
    polarity: str = POLARITIES[0]
    small: str = "refuse"
    unreadable: str = "stop"
    paste_observed: bool = True
    batch_size: int = 256
    guidance: float = 1.0
    guidance_rule: str = GUIDANCE_RULES[0]

    def __post_init__(self) -> None:
        if self.n < 2:
            raise ConfigurationError(
                f"n = {self.n!r}: a standard deviation needs at least 2 completions"
            )
        check_seed("seed", self.seed)
        check_positive("temperature", self.temperature, zero=True)
        check_positive("batch_size", self.batch_size)
        check_positive("guidance", self.guidance, zero=True)
        check_choice("guidance_rule", self.guidance_rule, GUIDANCE_RULES)
        check_choice("polarity", self.polarity, POLARITIES)
        check_choice("small", self.small, ("refuse", "enlarge"))
        check_choice("unreadable", self.unreadable, ("stop", "skip"))
        for level in self.quantiles:
            if not 0.0 <= level <= 1.0:
                raise ConfigurationError(f"quantiles: level {level!r}, expected in [0, 1]")
        names = [self.quantile_name(level) for level in self.quantiles]
        if len(set(names)) < len(names):
            raise ConfigurationError(
                f"quantiles = {list(self.quantiles)!r}: expected levels that differ by 0.01 at least"
            )

    @staticmethod
    def quantile_name(level: float) -> str:
        """Two digits for a level, ``05`` for 0.05; 1 is ``100``."""
        return f"{round(100 * level):02d}"

    @property
    def observed_pixels(self) -> str:
        """What the observed pixels of completions are."""
        if self.paste_observed:
            return "copied exactly"
        return "drawn by the model: not exactly those given"

    @property
    def stamp(self) -> str | None:
        """What every result says when it is no sample of the posterior."""
        settings = {"temperature": self.temperature, "guidance": self.guidance}
        changed = [f"{name} {value:g}" for name, value in settings.items() if value != 1.0]
        if self.guidance != 1.0 and self.guidance_rule != GUIDANCE_RULES[0]:
            changed[-1] += f" by {self.guidance_rule}"
        return f"{', '.join(changed)}: not the posterior" if changed else None
