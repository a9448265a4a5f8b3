"""Parameters of `complete`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from condvae.completion.config import CompletionSettings
from condvae.ground.configuration import ConfigurationError
from pipelines.parameters.model import SamplingConfig

__all__ = [
    "CompleteConfig",
]


@dataclass(frozen=True)
class CompleteConfig:
    """Which of one's own pictures `complete` takes, and how; see also `CompletionSettings`.

    Attributes:
        output: Folder of the results.
        images: Folder of pictures or one picture.
        masks: One mask for all, or a folder with one per picture by name.
        n: Completions per picture.
        polarity: What white means in mask files.
        small: What happens to pictures smaller than the model.
        unreadable: What pictures and masks do that cannot be used.
        quantiles: Levels of the quantile maps.
        replay: Manifest of a run to repeat, with its pictures and settings in place of the above.
    """

    output: str
    images: str | None = None
    masks: str | None = None
    n: int = 16
    polarity: str = "white_is_hole"
    small: str = "refuse"
    unreadable: str = "stop"
    quantiles: tuple[float, ...] = (0.05, 0.95)
    replay: str | None = None

    def __post_init__(self) -> None:
        self.settings(SamplingConfig(), seed=0)

    def settings(self, sampling: SamplingConfig, seed: int) -> CompletionSettings:
        """Everything that decides the results beside pictures, masks and model."""
        own = ("n", "polarity", "small", "unreadable", "quantiles")
        return CompletionSettings(
            **{name: getattr(self, name) for name in own}, seed=seed, **asdict(sampling)
        )

    def check_inputs(self, project: Path = Path()) -> None:
        """Refuse a run of `complete` that is not told what to complete.

        Args:
            project: Folder that relative paths start at.

        Raises:
            ConfigurationError: Images or masks are not named, or what is named is not there.
        """
        needed = ("images", "masks") if self.replay is None else ("replay",)
        for name in needed:
            path = getattr(self, name)
            if path is None:
                raise ConfigurationError(
                    f"complete.{name} = None: expected a file or folder, as in --params="
                    "complete.images=DIR,complete.masks=DIR_OR_FILE"
                )
            if not (project / path).exists():
                raise ConfigurationError(f"complete.{name} = {path!r}: no such file or folder")
