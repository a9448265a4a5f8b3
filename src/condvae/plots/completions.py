"""What a sampler makes of each observation: completions, their mean and spread, and the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from condvae.ground.configuration import ConfigurationError
from condvae.plots.image_grid import ImageGrid, check_same_size, deviation_ceiling
from condvae.plots.labels import bin_label
from condvae.plots.style import figure_style

__all__ = [
    "MOST_COMPLETIONS",
    "TOP",
    "CompletionExample",
    "describe_case",
    "plot_completions",
    "plot_rows",
]

MOST_COMPLETIONS = 8
TOP = 1.4  # inches above the first row: title, three lines of note, headings
_LONGEST_ID = 18


@dataclass(frozen=True)
class CompletionExample:
    """One observation and what a sampler made of it.

    Attributes:
        case_id: Name of the evaluation case.
        bin: Index of the bin of the observed share, 0 (0–20 %) to 4 (80–100 %).
        observed_share: Share of pixels observed, 0 to 1.
        observation: uint8 (H,W,C); unobserved pixels may hold anything.
        mask: bool (H,W), true = observed.
        completions: uint8 (K,H,W,C), K >= 1.
        mean: float (H,W,C), mean of all completions on the 0-255 scale.
        standard_deviation: float (H,W,C), of all completions, grey levels.
        truth: uint8 (H,W,C).
        label: Class of the true image, where it has one.
    """

    case_id: str
    bin: int
    observed_share: float
    observation: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    completions: NDArray[np.uint8]
    mean: NDArray[np.floating]
    standard_deviation: NDArray[np.floating]
    truth: NDArray[np.uint8]
    label: str | None = None

    def __post_init__(self) -> None:
        bin_label(self.bin)
        shape = self.truth.shape
        if len(shape) != 3 or shape[2] not in (1, 3):
            raise ConfigurationError(
                f"case {self.case_id}: truth of shape {shape}, expected (H, W, 1) or (H, W, 3)"
            )
        for name in ("observation", "mean", "standard_deviation"):
            self._check_shape(name, getattr(self, name).shape, shape)
        self._check_shape("mask", self.mask.shape, shape[:2])
        self._check_shape("completions", self.completions.shape[1:], shape, "(K, ...) with ... ")
        if len(self.completions) == 0:
            raise ConfigurationError(f"case {self.case_id}: no completions, expected at least one")

    def _check_shape(
        self, name: str, found: tuple[int, ...], expected: tuple[int, ...], prefix: str = ""
    ) -> None:
        if found != expected:
            raise ConfigurationError(
                f"case {self.case_id}: {name} of shape {found}, expected {prefix}{expected}"
            )


def describe_case(case: CompletionExample) -> list[str]:
    """Return the lines that name a case: id, bin, observed share, and label where it has one."""
    name = case.case_id
    if len(name) > _LONGEST_ID:
        half = _LONGEST_ID // 2
        name = f"{name[:half]}…{name[-half + 1 :]}"
    lines = [name, f"{bin_label(case.bin)} observed", f"here {100 * case.observed_share:.1f} %"]
    if case.observed_share == 0:
        lines[1:] = ["no pixel observed"]
    return [*lines, f"label: {case.label}"] if case.label else lines


def plot_completions(cases: Sequence[CompletionExample], *, title: str | None = None) -> Figure:
    """Draw one row per case: observation, completions, mean, standard deviation and truth.

    At most the first eight completions are drawn; mean and standard deviation are those given. The
    maps of standard deviations share one colour scale, in grey levels.

    Args:
        cases: Cases with images of one shape; a gap is left where the bin changes.
        title: Heading of the figure.

    Raises:
        ConfigurationError: No cases, or images of different shapes.
    """
    bins = [case.bin for case in cases]
    changes = [0.16 if bins[i] != bins[i - 1] else 0.05 for i in range(1, len(bins))]
    lines = [describe_case(case) for case in cases]
    return plot_rows(cases, lines, [TOP, *changes], title or "Completions of each observation")


def plot_rows(
    cases: Sequence[CompletionExample],
    lines: Sequence[list[str]],
    gaps: Sequence[float],
    title: str,
) -> Figure:
    """Draw the rows of `plot_completions` with other texts and gaps.

    Args:
        cases: Cases with images of one shape.
        lines: Text beside each row, its first line in bold.
        gaps: Space above each row, inches; the first also holds title, note and headings.
        title: Heading of the figure.

    Raises:
        ConfigurationError: No cases, or images of different shapes.
    """
    size = check_same_size([case.truth.shape for case in cases])
    shown = min(MOST_COMPLETIONS, max(len(case.completions) for case in cases))
    with figure_style():
        columns = [1.6, 0.14, *[0.05] * (shown - 1), 0.14, 0.05, 0.14]
        grid = ImageGrid(size, gaps, columns, bottom=0.55, right=0.15)
        numbers = [f"Completion {k + 1}" for k in range(shown)]
        headings = ["Observation", *numbers, "Mean", "Standard\ndeviation", "Truth"]
        for column, heading in enumerate(headings):
            grid.label_column(column, heading)
        ceiling = deviation_ceiling([case.standard_deviation for case in cases])
        for row, case in enumerate(cases):
            grid.label_row(row, 0, lines[row])
            _draw_row(grid, row, case, shown, ceiling)
        grid.draw_colourbar(shown + 2, ceiling)
        grid.label_figure(title, _note(cases, shown))
    return grid.figure


def _draw_row(
    grid: ImageGrid, row: int, case: CompletionExample, shown: int, ceiling: float
) -> None:
    grid.draw_observation(row, 0, case.observation, case.mask)
    for k, completion in enumerate(case.completions[:shown]):
        grid.draw_image(row, 1 + k, completion)
    grid.draw_image(row, shown + 1, case.mean)
    grid.draw_deviation(row, shown + 2, case.standard_deviation, ceiling)
    grid.draw_image(row, shown + 3, case.truth)


def _note(cases: Sequence[CompletionExample], shown: int) -> str:
    """Say what the marks of a figure mean."""
    over = " (root mean square over the colours)" if cases[0].truth.shape[2] == 3 else ""
    stripes = "Teal stripes: pixels the sampler does not see."
    # A picture of y stands in the place of pixels where none is observed as such.
    whole = "Observation: what the sampler is given, as a picture. All pixels are drawn."
    return (
        f"{whole if all(case.mask.all() for case in cases) else stripes}\n"
        f"Completions: the first {shown}; mean and standard deviation: all that were drawn.\n"
        f"Standard deviation per pixel{over}: black where all agree."
    )
