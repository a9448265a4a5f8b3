"""Parameters of `anomaly`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from condvae.data.foreign import FOREIGN, name_of_foreign
from condvae.evaluation.anomaly import NORMAL
from condvae.ground.configuration import (
    ConfigurationError,
    check_choice,
    check_positive,
    check_seed,
)

__all__ = ["AnomalyConfig"]


@dataclass(frozen=True)
class AnomalyConfig:
    """Which foreign images `anomaly` scores, and how.

    Attributes:
        against: Sets made from the test images, names of `condvae.data.foreign.FOREIGN`.
        path: One more set: an npz file with ``images`` or the folder of a prepared data set.
        cases_per_bin: Test images in each bin of the observed share, and as many foreign ones.
        reference_pairs: Pairs of training image and mask that temperature gradients are fitted to.
        draws: Draws of the latents that a score is averaged over.
        seed: Of cases, pairs, draws and foreign images.
    """

    against: tuple[str, ...] = tuple(FOREIGN)
    path: str | None = None
    cases_per_bin: int = 64
    reference_pairs: int = 2000
    draws: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.against:
            check_choice("against", name, FOREIGN)
        if len(set(self.against)) < len(self.against):
            raise ConfigurationError(f"against = {list(self.against)!r}: a set is named twice")
        if not self.against and self.path is None:
            raise ConfigurationError("against = [], path = None: expected one foreign set at least")
        if self.path is not None and name_of_foreign(self.path) in (NORMAL, *FOREIGN):
            raise ConfigurationError(
                f"path = {self.path!r}: {name_of_foreign(self.path)!r} is the name of another set; "
                "expected a file or folder of another name"
            )
        check_positive("cases_per_bin", self.cases_per_bin)
        check_positive("draws", self.draws)
        if self.reference_pairs < 3:
            raise ConfigurationError(
                f"reference_pairs = {self.reference_pairs!r}: expected at least 3"
            )
        check_seed("seed", self.seed)

    def check_inputs(self, project: Path = Path()) -> None:
        """Refuse a run of `anomaly` whose foreign images are not there.

        Args:
            project: Folder that relative paths start at.

        Raises:
            ConfigurationError: No such file or folder.
        """
        if self.path is not None and not (project / self.path).exists():
            raise ConfigurationError(f"anomaly.path = {self.path!r}: no such file or folder")
