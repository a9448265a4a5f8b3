"""The page: figures, tables and facts put into the template."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from condvae.plots import bin_label, coverage_target, metric_label
from pipelines.pages.rendering import data_address, render
from pipelines.reporting.calibration_figures import RANKS
from pipelines.reporting.facts import list_facts
from pipelines.reporting.tables import (
    GROUPS,
    MetricTable,
    describe_comparisons,
    tabulate_metrics,
)
from pipelines.reporting.trust import describe_trust, list_verdict_columns

__all__ = ["render_page"]

_CAPTIONS = {
    "completions.png": (
        "Completions",
        "Read a row from left to right: what is observed, several completions of it, their mean "
        "and standard deviation, and the true image. Every completion should look like a real "
        "image that continues the observation. With little observed the completions should "
        "differ from one another; with much observed they should agree with each other and with "
        "the truth. The standard deviation should be black on observed pixels.",
    ),
    "samplers.png": (
        "Samplers side by side",
        "The same observation, completed by each sampler, with as many completions of each. Look "
        "for completions that ignore what is observed (a break at the border of the mask, another "
        "class) and for completions that are all alike although the observation leaves doubt.",
    ),
    "extremes.png": (
        "Best and worst cases",
        "The cases of the evaluation with the lowest and the highest CRPS, the mean error of the "
        "completions' distribution of each unobserved value. Good cases are often easy ones: "
        "compare the observed shares. In a bad case look whether the truth is missing among the "
        "completions (too narrow or wrong) or one of several that the observation allows.",
    ),
    "coverage.png": (
        "Coverage of intervals",
        "Left: the share of true unobserved values inside central intervals of the completions, "
        "against the level of the interval. Right: 90 % intervals by observed share. A calibrated "
        "sampler lies on the dashed line; below it completions are too alike or biased, above it "
        "too different.",
    ),
    "calibration_ecdf.png": (
        "Distribution of ranks",
        "The same ranks without bins. A curve of a calibrated sampler stays within the band.",
    ),
    "reliability.png": (
        "Reliability of classes",
        "When a share c of the completions of an image falls into one class, a calibrated sampler "
        "is right about the class in a share c of such images. Points should lie inside the grey "
        "bars: few images scatter around the diagonal even for an exact sampler.",
    ),
    "training.png": (
        "Training",
        "The loss should fall and level off. A validation curve that rises while the training "
        "curve falls means that the model has begun to memorise the training images.",
    ),
}
_RANKS_CAPTION = (
    "Given the observation, truth and completions of a calibrated sampler are exchangeable, so the "
    "rank of the truth among them is uniform for every statistic. Each panel is one statistic; bars "
    "should stay within the band. Other samplers stand in the table of verdicts only."
)

_EXACT = (
    "What is observed are exactly known pixels, so all that they say about the others goes through "
    "the latents, and freezing the VAE loses nothing (Harvey et al. 2022, theorem 2)."
)
_NOT_EXACT = (
    "What is observed is something else than exactly known pixels. It may say more about the image "
    "than the latents pass on, so that freezing the VAE may lose something: theorem 2 of Harvey et "
    "al. (2022) does not hold exactly."
)
_RESIDUAL = " How far completions are from what was observed is measured by consistency_rmse."


@dataclass(frozen=True)
class _Figure:
    """A figure in the page: file name, heading, caption and the picture as a data address."""

    name: str
    title: str
    caption: str
    source: str


def render_page(
    figures: Mapping[str, bytes],
    metrics: pd.DataFrame,
    comparisons: pd.DataFrame,
    calibration: Mapping[str, Mapping[str, Any]],
    run_facts: Mapping[str, Any],
) -> str:
    """Return the page as HTML that refers to no other file and runs no script.

    Args:
        figures: File name -> PNG bytes, see `draw_figures_node`.
        metrics: The tidy table.
        comparisons: Paired differences, see `describe_comparisons`.
        calibration: Sampler -> what `condvae.evaluation.assess_calibration` returns.
        run_facts: Facts, see `check_facts`.
    """
    tables = tabulate_metrics(metrics, run_facts)
    shown = {name: _make_figure(name, content) for name, content in figures.items()}
    definitions = run_facts.get("sampler_definitions") or {}
    levels = _unique(f"{100 * level:.3g} %" for table in tables for level in table.card.level)
    return render(
        "report",
        task=str(run_facts["task"]).replace("_", " "),
        warnings=run_facts.get("warnings", []),
        theory=_describe_theory(run_facts.get("is_exact"), tables),
        consistency={
            s: cell for t in tables if t.group == "observation" for s, cell in t.pooled.items()
        },
        data=_name_of(run_facts.get("data")),
        command=run_facts["command"],
        figures=shown,
        groups=GROUPS,
        binned=any(len(table.headings) > 1 for table in tables),
        tables=tables,
        samplers=_unique(sampler for table in tables for sampler in table.pooled),
        level=", ".join(levels),
        trust=describe_trust(calibration, metrics, definitions),
        verdict_columns=[bin_label(name) for name in list_verdict_columns(calibration)],
        rank_figures=[name for name in figures if name.startswith(RANKS)],
        comparisons=describe_comparisons(comparisons),
        sampler_definitions=definitions,
        facts=list_facts(run_facts),
    )


def _describe_theory(is_exact: bool | None, tables: Iterable[MetricTable]) -> str:
    """Whether a frozen VAE can give the exact posterior of this task; empty where it is not known."""
    if is_exact is None:
        return ""
    if is_exact:
        return _EXACT
    return _NOT_EXACT + (_RESIDUAL if any(t.group == "observation" for t in tables) else "")


def _make_figure(name: str, content: bytes) -> _Figure:
    if name.startswith(RANKS):
        title, caption = "Ranks of the truth", _RANKS_CAPTION
    else:
        metric = name.removeprefix("metric_").removesuffix(".png")
        title, caption = _CAPTIONS.get(name, (metric_label(metric).title, _metric_caption(metric)))
    return _Figure(name, title, caption, data_address(content))


def _metric_caption(metric: str) -> str:
    """What to look at in the figure of a metric."""
    better = metric_label(metric).better
    if coverage_target(metric) is not None:
        first = "The line nearer to the dashed one is the better calibrated sampler in that bin."
    elif better is None:
        return "The bars are intervals of single values."
    else:
        first = f"The {better} line is the better sampler in that bin."
    return (
        f"{first} The bars are intervals of single values; whether two samplers differ is told by "
        "the paired comparison, where there is one."
    )


def _name_of(data: Any) -> str:
    """The data's name: the fact itself, or its `name`."""
    found = data.get("name") if isinstance(data, Mapping) else data
    return str(found) if found else ""


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
