"""The cases a sampler completes best and worst, by their score."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from condvae.ground.configuration import ConfigurationError
from condvae.plots.completions import TOP, CompletionExample, describe_case, plot_rows
from condvae.plots.labels import format_value

__all__ = ["plot_extremes"]


def plot_extremes(
    cases: Sequence[CompletionExample], scores: Sequence[float], *, title: str | None = None
) -> Figure:
    """Draw the best cases and, below a gap, the worst: completions, mean, deviation and truth.

    Args:
        cases: 2M cases with images of one shape: the M best, the best first, then the M worst, the
            worst last.
        scores: (2M,) CRPS per unobserved value, grey levels, lower is better.
        title: Heading of the figure.

    Raises:
        ConfigurationError: No cases, an odd number of them, or another number of scores.
    """
    count = len(cases)
    if count == 0 or count % 2 or len(scores) != count:
        raise ConfigurationError(
            f"{count} cases and {len(scores)} scores: expected as many best cases as worst ones, "
            "and a score of each"
        )
    half = count // 2
    ranks = [f"best {i + 1}" for i in range(half)] + [f"worst {half - i}" for i in range(half)]
    lines = [
        [f"{rank}: CRPS {format_value(float(f'{score:.3g}'))}", *describe_case(case)]
        for rank, score, case in zip(ranks, scores, cases, strict=True)
    ]
    gaps = [TOP, *[0.05] * (half - 1), 0.3, *[0.05] * (half - 1)]
    return plot_rows(cases, lines, gaps, title or "Best and worst cases by CRPS, grey levels")
