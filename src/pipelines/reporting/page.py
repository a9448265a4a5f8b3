"""The page: figures, tables and facts put into the template."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from condvae.plots import metric_label
from pipelines.reporting.facts import list_facts
from pipelines.reporting.tables import MetricTable, describe_comparisons, tabulate_metrics

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
    "training.png": (
        "Training",
        "The loss should fall and level off. A validation curve that rises while the training "
        "curve falls means that the model has begun to memorise the training images.",
    ),
}


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
    run_facts: Mapping[str, Any],
) -> str:
    """Return the page as HTML that refers to no other file and runs no script.

    Args:
        figures: File name -> PNG bytes, see `draw_figures_node`.
        metrics: The tidy table.
        comparisons: Paired differences, see `describe_comparisons`.
        run_facts: Facts, see `check_facts`.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    tables = tabulate_metrics(metrics)
    shown = {name: _make_figure(name, content) for name, content in figures.items()}
    return environment.get_template("report.html.jinja2").render(
        task=run_facts["task"],
        data=_name_of(run_facts.get("data")),
        command=run_facts["command"],
        figures=shown,
        tables=tables,
        samplers=_unique(sampler for table in tables for sampler in table.pooled),
        comparisons=describe_comparisons(comparisons),
        definitions=_define_metrics(tables, run_facts.get("metric_definitions") or {}),
        sampler_definitions=run_facts.get("sampler_definitions") or {},
        facts=list_facts(run_facts),
    )


def _make_figure(name: str, content: bytes) -> _Figure:
    metric = name.removeprefix("metric_").removesuffix(".png")
    title, caption = _CAPTIONS.get(name, (metric_label(metric).title, _metric_caption(metric)))
    source = "data:image/png;base64," + base64.b64encode(content).decode()
    return _Figure(name, title, caption, source)


def _metric_caption(metric: str) -> str:
    """What to look at in the figure of a metric."""
    label = metric_label(metric)
    if label.better is None:
        return f"{label.meaning} The bars are 95 % intervals.".strip()
    return (
        f"The {label.better} line is the better sampler in that bin. The bars are 95 % intervals "
        "of single values; whether two samplers differ is told by the paired comparison."
    )


def _define_metrics(
    tables: list[MetricTable], given: Mapping[str, str]
) -> list[tuple[str, str, str]]:
    """Key, title and definition of each metric shown; definitions of the run come first."""
    return [
        (table.metric, table.label.title, given.get(table.metric, table.label.meaning))
        for table in tables
    ]


def _name_of(data: Any) -> str:
    """The data's name: the fact itself, or its `name`."""
    found = data.get("name") if isinstance(data, Mapping) else data
    return str(found) if found else ""


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
