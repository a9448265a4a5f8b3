"""The same observations completed by several samplers, one below the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from condvae.ground.configuration import ConfigurationError
from condvae.plots.completions import MOST_COMPLETIONS, TOP, CompletionExample, describe_case
from condvae.plots.image_grid import ImageGrid, check_same_size, deviation_ceiling
from condvae.plots.style import SamplerStyle, figure_style, style_samplers

__all__ = ["plot_samplers"]


def plot_samplers(
    cases: Mapping[str, Sequence[CompletionExample]],
    *,
    title: str | None = None,
    styles: Mapping[str, SamplerStyle] | None = None,
) -> Figure:
    """Draw a block of rows per case, one row per sampler: completions, mean, standard deviation.

    Observation and truth stand once at the left of each block. At most the first eight completions
    are drawn; the maps of standard deviations share one colour scale, in grey levels.

    Args:
        cases: Name of a sampler -> its examples. Every sampler has the same cases in the same
            order, one per bin as a rule.
        title: Heading of the figure.
        styles: From `style_samplers`; by default made from the samplers of `cases`.

    Raises:
        ConfigurationError: No cases, different cases per sampler, or images of different shapes.
    """
    everything = [case for examples in cases.values() for case in examples]
    size = check_same_size([case.truth.shape for case in everything])
    _check_same_cases(cases)
    styles = styles or style_samplers(list(cases))
    blocks = list(zip(*cases.values(), strict=True))
    shown = min(MOST_COMPLETIONS, max(len(case.completions) for case in everything))
    inner = [0.05] * (len(cases) - 1)
    row_gaps = [TOP, *inner, *(gap for _ in blocks[1:] for gap in (0.22, *inner))]
    with figure_style():
        columns = [1.6, 0.05, 0.95, *[0.05] * (shown - 1), 0.14, 0.05]
        grid = ImageGrid(size, row_gaps, columns, bottom=0.55, right=0.15)
        numbers = [f"Completion {k + 1}" for k in range(shown)]
        headings = ["Observation", "Truth", *numbers, "Mean", "Standard\ndeviation"]
        for column, heading in enumerate(headings):
            grid.label_column(column, heading)
        ceiling = deviation_ceiling([case.standard_deviation for case in everything])
        for index, block in enumerate(blocks):
            rows = dict(zip(cases, block, strict=True))
            _draw_block(grid, index * len(cases), rows, shown, ceiling, styles)
        grid.draw_colourbar(shown + 3, ceiling)
        grid.label_figure(
            title or "The same observations, completed by each sampler",
            "Teal stripes: pixels the sampler does not see.\n"
            "A sampler of the true posterior agrees with the observation,\n"
            "and its completions differ where the observation leaves doubt.",
        )
    return grid.figure


def _draw_block(
    grid: ImageGrid,
    first_row: int,
    block: Mapping[str, CompletionExample],
    shown: int,
    ceiling: float,
    styles: Mapping[str, SamplerStyle],
) -> None:
    """Draw the rows of one case; `block` maps samplers to their examples of it."""
    for position, (sampler, case) in enumerate(block.items()):
        row = first_row + position
        if position == 0:
            grid.label_row(row, 0, describe_case(case))
            grid.draw_observation(row, 0, case.observation, case.mask)
            grid.draw_image(row, 1, case.truth)
        grid.label_row(row, 2, [sampler], colour=styles[sampler].colour)
        for k, completion in enumerate(case.completions[:shown]):
            grid.draw_image(row, 2 + k, completion)
        grid.draw_image(row, 2 + shown, case.mean)
        grid.draw_deviation(row, 3 + shown, case.standard_deviation, ceiling)


def _check_same_cases(cases: Mapping[str, Sequence[CompletionExample]]) -> None:
    identifiers = {sampler: [case.case_id for case in group] for sampler, group in cases.items()}
    first = next(iter(identifiers))
    for sampler, found in identifiers.items():
        if found != identifiers[first]:
            raise ConfigurationError(
                f"cases of sampler {sampler!r} = {found}: expected those of {first!r}, "
                f"{identifiers[first]}"
            )
