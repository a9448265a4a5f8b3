"""Parameters of `compare`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from condvae.ground.configuration import (
    ConfigurationError,
    check_choice,
    check_seed,
)

__all__ = ["CompareConfig"]


@dataclass(frozen=True)
class CompareConfig:
    """Which MLflow runs `compare` compares, and how.

    Attributes:
        runs: Ids (their first characters do) or names of runs with ``+`` between them; the first is
            the reference. ``last`` is the newest run that has scores; of runs of one name the newest
            is taken.
        cases: ``all``: the runs must have scored the same manifest. ``common``: cases in common, those
            with the same id, image, bin and observed share, will do.
        level: Of the bootstrap intervals.
        seed: Of the bootstrap.
    """

    runs: str | None = None
    cases: str = "all"
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("cases", self.cases, ("all", "common"))
        if not 0.0 < self.level < 1.0:
            raise ConfigurationError(f"level = {self.level!r}: expected in (0, 1)")
        check_seed("seed", self.seed)

    @property
    def named(self) -> list[str]:
        """The ids and names in `runs`."""
        return [name for part in (self.runs or "").split("+") if (name := part.strip())]

    def check_inputs(self, project: Path = Path()) -> None:
        """Refuse a run of `compare` that is not told two runs at least.

        Args:
            project: Not used.

        Raises:
            ConfigurationError: Fewer than two runs.
        """
        del project
        if len(self.named) < 2:
            raise ConfigurationError(
                f"compare.runs = {self.runs!r}: expected two runs of MLflow at least, by id or name, "
                "as in --params=compare.runs=ID1+ID2"
            )
