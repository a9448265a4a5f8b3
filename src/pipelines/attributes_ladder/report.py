"""The report of the ladder: a table, what each ingredient contributes, and samples of every rung."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from condvae.ground.configuration import read_config
from condvae.plots import plot_attribute_samples, plot_ladder
from condvae.scores.attribute_definitions import ATTRIBUTE_METRICS
from condvae.scores.definitions import MetricDefinition
from pipelines.attributes.nodes import open_attributed
from pipelines.attributes.pictures import Picture
from pipelines.attributes.report import format_score, tabulate_definitions, write_files
from pipelines.attributes_ladder.tables import HEADLINES
from pipelines.pages.sections import Table
from pipelines.parameters import LadderConfig
from pipelines.runs import tracking

__all__ = ["write_ladder_report"]

SHARES = ("accuracy", "accuracy_of_ceiling", "held_out_accuracy_of_ceiling")
DRAWN = ("log_prob_nats", "frechet_means", "accuracy_of_ceiling", "information_used_nats")
_LEAD = (
    "The same networks, data and number of updates, with one ingredient after another: what q(z | "
    "x, y) sees, p(z | y), how it is trained, and the likelihood of the pixels."
)


def write_ladder_report(
    image_store: dict[str, Any],
    attribute_table: pd.DataFrame,
    attribute_facts: dict[str, Any],
    ladder_table: pd.DataFrame,
    ladder_contributions: pd.DataFrame,
    ladder_samples: dict[str, NDArray[np.uint8]],
    ladder: dict[str, Any],
    folders: dict[str, str],
    seed: int,
) -> dict[str, Any]:
    """Write table, figures and page; return what was written."""
    config = read_config(LadderConfig, ladder, "ladder")
    known = open_attributed(image_store, attribute_table, attribute_facts)
    rows = known.rows("test")[: config.shown]
    records = ladder_table.to_dict("records")
    keys = [key for key in HEADLINES if key in set(ladder_table["metric"])]
    real = np.asarray(known.images.pixels[rows])
    figures = [_draw_chart(records, keys, config.seeds), _draw_samples(real, ladder_samples, seed)]
    parts = [
        ("Rungs", _budget(config), [_rung_table(ladder_table, keys)], figures),
        (
            "What each ingredient contributes",
            "Differences of two rungs, seed by seed, ± one standard error over seeds. With so few "
            "seeds a difference below about three standard errors says little.",
            [_contribution_table(ladder_contributions, keys)],
            [],
        ),
        ("What the numbers are", "", [tabulate_definitions([HEADLINES[k][0] for k in keys])], []),
    ]
    facts = {
        "data": f"{image_store['name']}, {attribute_facts['images']['test']} test images",
        "attributes": ", ".join(known.table.names),
        "seeds": f"{seed} to {seed + config.seeds - 1}",
        "draws of each log p(x | y)": str(config.evaluation.draws),
        "samples of each condition": str(config.evaluation.samples),
        **{
            f"rung {name}": ", ".join(f"{k} = {v}" for k, v in config.definitions[name].items())
            for name in config.rungs
        },
        **tracking.git_state(),
    }
    title = f"Ladder of conditional priors: {image_store['name']}"
    return write_files(Path(folders["ladder_reporting"]), title, _LEAD, parts, facts)


def _draw_chart(records: list[dict[Hashable, Any]], keys: list[str], seeds: int) -> Picture:
    drawn = [key for key in DRAWN if key in keys]
    return Picture(
        "ladder.png",
        "Rungs of the ladder",
        f"Mean of {seeds} seeds, ± one standard error over them.",
        plot_ladder(
            records,  # type: ignore[arg-type]
            drawn,
            definitions={key: _define(key) for key in drawn},
        ),
    )


def _draw_samples(
    real: NDArray[np.uint8], samples: dict[str, NDArray[np.uint8]], seed: int
) -> Picture:
    return Picture(
        "samples.png",
        "Samples of each rung",
        f"Decoder means at the attributes of the same {len(real)} test images, which are the first "
        f"row; the noise is the same too. Seed {seed}.",
        plot_attribute_samples(
            {"real images": real, **samples},
            title="Samples of each rung",
            note="Every image of a column was asked for the attributes of the real one above.",
        ),
    )


def _budget(config: LadderConfig) -> str:
    return (
        f"Every run has {config.steps} updates in all: trained jointly, all of them train "
        f"everything; in two stages {config.steps - config.prior_steps} train the VAE and "
        f"{config.prior_steps} the prior. The weights of the best validation count."
    )


def _define(key: str) -> MetricDefinition:
    """What a headline is, in its own words."""
    metric, *_, words = HEADLINES[key]
    return replace(ATTRIBUTE_METRICS[metric], title=words)


def _headings(keys: list[str]) -> list[str]:
    """Words of headlines, with an arrow where a direction is better."""
    arrows = {"higher": " ↑", "lower": " ↓", None: ""}
    return [f"{d.title}{arrows[d.better]}" for d in map(_define, keys)]


def _rung_table(table: pd.DataFrame, keys: list[str]) -> Table:
    rows = [
        [f"{rung}, {str(stage).replace('_', ' ')}", *_cells(own, keys)]
        for (rung, stage), own in table.groupby(["rung", "stage"], sort=False)
    ]
    headings = ["", *_headings(keys)]
    return Table("Mean over seeds ± one standard error; arrows: what is better", headings, rows)


def _contribution_table(table: pd.DataFrame, keys: list[str]) -> Table:
    rows = [
        [str(name), f"{own['before'].iloc[0]} → {own['after'].iloc[0]}", *_cells(own, keys)]
        for name, own in table.groupby("contribution", sort=False)
    ]
    headings = ["", "from → to", *_headings(keys)]
    return Table("After less before; arrows: what is better", headings, rows)


def _cells(rows: pd.DataFrame, keys: list[str]) -> list[str]:
    found = {
        row.metric: (float(str(row.value)), float(str(row.standard_error)))
        for row in rows.itertuples()
    }
    return [format_score(found.get(key), share=key in SHARES) for key in keys]
