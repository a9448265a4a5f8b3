"""Parameters of `reevaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from condvae.ground.configuration import ConfigurationError, check_choice, check_positive

__all__ = ["ReevaluationConfig"]


@dataclass(frozen=True)
class ReevaluationConfig:
    """How `reevaluate` judges the registered champion.

    Attributes:
        folder: Where results lie.
        new_data: Folder with pictures that have arrived; None = the frozen cases alone.
        size: Manifest on which a champion without a stored evaluation gets one: ``quick``, ``full``.
        tolerance: Smallest change of a score that counts, as a share of the score at registration.
        coverage_tolerance: By so much the distance of 90 % intervals' coverage from 0.9 may grow.
        level: Of the intervals of all changes together.
        alpha: Probability to call new data drifted that are not, at most.
        least_images: Fewer new pictures are listed, but not judged.
        most_images: So many are judged at most, chosen by their content; as many test images beside.
        permutations: Of the test of features.
        wait_seconds: How long a run waits for another one on the same project.
    """

    folder: str
    new_data: str | None = None
    size: str = "quick"
    tolerance: float = 0.01
    coverage_tolerance: float = 0.02
    level: float = 0.99
    alpha: float = 0.01
    least_images: int = 20
    most_images: int = 500
    permutations: int = 999
    wait_seconds: float = 600.0

    def __post_init__(self) -> None:
        check_choice("size", self.size, ("quick", "full"))
        check_positive("tolerance", self.tolerance, zero=True)
        check_positive("coverage_tolerance", self.coverage_tolerance, zero=True)
        for name in ("level", "alpha"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise ConfigurationError(f"{name} = {getattr(self, name)!r}: expected in (0, 1)")
        if self.least_images < 2:
            raise ConfigurationError(f"least_images = {self.least_images!r}: expected at least 2")
        if self.most_images < self.least_images:
            raise ConfigurationError(
                f"most_images = {self.most_images!r}: expected at least least_images = "
                f"{self.least_images!r}"
            )
        check_positive("permutations", self.permutations)
        check_positive("wait_seconds", self.wait_seconds, zero=True)

    def check_inputs(self, project: Path = Path()) -> None:
        """Refuse a run whose folder of new pictures is not there.

        Args:
            project: Folder that relative paths start at.

        Raises:
            ConfigurationError: No such folder.
        """
        if self.new_data is not None and not (project / self.new_data).is_dir():
            raise ConfigurationError(
                f"reevaluate.new_data = {self.new_data!r}: no such folder; expected one with the "
                "pictures that have arrived (it may be empty)"
            )
