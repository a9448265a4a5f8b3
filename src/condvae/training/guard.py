"""The rule that leaves bad updates out without ever freezing training, and sees when it diverges."""

from __future__ import annotations

import math
import statistics
from collections import deque

from condvae.training.config import TrainingConfig

__all__ = ["TrainingDivergedError", "UpdateGuard"]

WINDOW = 100
LEAST_NORMS = 20
MAX_NON_FINITE = 50
EXPLOSION = 100.0


class TrainingDivergedError(RuntimeError):
    """Weights, or gradients for many steps, are not finite, or gradient norms have exploded.

    The last checkpoint is still good.
    """


class UpdateGuard:
    """Decides from the gradient norm whether an update is taken.

    The published rule compares with a constant, and once norms stay above it no update is ever taken
    again (openai/vdvae issue 25). Here the constant may be relative to the median of recent norms,
    those of skipped updates included, and at most `max_skips` updates in a row are left out.

    Args:
        config: `skip_rule`, `skip_threshold`, `max_skips`; `max_restarts` other than 0 has explosions
            looked for: a median of recent norms of more than `EXPLOSION` times that at the last
            checkpoint.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config
        self.norms: deque[float] = deque(maxlen=WINDOW)
        self.usual_norm: float | None = None  # median at the last checkpoint, once it is known
        self.skips_in_a_row = 0
        self.non_finite_in_a_row = 0
        self.skipped = 0

    def take(self, norm: float) -> bool:
        """Return whether the update with this gradient norm (before clipping) is to be applied.

        Raises:
            TrainingDivergedError: Norms have not been finite for `MAX_NON_FINITE` steps, or have
                exploded.
        """
        if not math.isfinite(norm):
            self.skipped += 1
            self.non_finite_in_a_row += 1
            if self.non_finite_in_a_row >= MAX_NON_FINITE:
                raise TrainingDivergedError(
                    f"gradients were not finite in {MAX_NON_FINITE} steps in a row: lower "
                    "learning_rate or clip_norm; the last checkpoint holds the weights before"
                )
            return False
        self.non_finite_in_a_row = 0
        excessive = norm > self._threshold()
        self.norms.append(norm)
        if self.config.max_restarts:
            self._refuse_explosion()
        if excessive and self.skips_in_a_row < self.config.max_skips:
            self.skips_in_a_row += 1
            self.skipped += 1
            return False
        self.skips_in_a_row = 0
        return True

    @property
    def is_calm(self) -> bool:
        """Whether a checkpoint may be written: the last update was taken, or there are no restarts."""
        return not (self.config.max_restarts and (self.skips_in_a_row or self.non_finite_in_a_row))

    def mark_checkpoint(self) -> None:
        """Compare later norms with the present ones."""
        self.usual_norm = self._median()

    def start_again(self) -> None:
        """Forget what was wrong with the last steps: those to come are others."""
        self.skips_in_a_row = 0
        self.non_finite_in_a_row = 0

    def _median(self) -> float | None:
        return statistics.median(self.norms) if len(self.norms) >= LEAST_NORMS else None

    def _refuse_explosion(self) -> None:
        median = self._median()
        if self.usual_norm and median is not None and median > EXPLOSION * self.usual_norm:
            raise TrainingDivergedError(
                f"the median gradient norm of the last {len(self.norms)} steps is {median:.3g}, at "
                f"the last checkpoint it was {self.usual_norm:.3g}: lower learning_rate or "
                "clip_norm; the last checkpoint holds the weights before"
            )

    def _threshold(self) -> float:
        if self.config.skip_rule == "published":
            return self.config.skip_threshold
        if self.config.skip_rule == "adaptive" and len(self.norms) >= LEAST_NORMS:
            return self.config.skip_threshold * statistics.median(self.norms)
        return math.inf

    def state_dict(self) -> dict[str, object]:
        """Plain values for a checkpoint."""
        return {
            "norms": list(self.norms),
            "skips_in_a_row": self.skips_in_a_row,
            "non_finite_in_a_row": self.non_finite_in_a_row,
            "skipped": self.skipped,
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Restore what `state_dict` gave."""
        norms = state["norms"]
        assert isinstance(norms, list)
        self.norms = deque(norms, maxlen=WINDOW)
        self.mark_checkpoint()
        self.skips_in_a_row = int(str(state["skips_in_a_row"]))
        self.non_finite_in_a_row = int(str(state["non_finite_in_a_row"]))
        self.skipped = int(str(state["skipped"]))
