"""Figures of the calibration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from condvae.plots import (
    SamplerStyle,
    plot_interval_coverage,
    plot_rank_ecdf,
    plot_rank_histograms,
    plot_reliability,
)

__all__ = ["RANKS", "draw_calibration"]

RANKS = "calibration_ranks_"


def draw_calibration(
    calibration: Mapping[str, Mapping[str, Any]],
    reference: str,
    styles: Mapping[str, SamplerStyle],
) -> dict[str, Figure]:
    """Draw coverage and classes of all samplers, and the ranks of one.

    Args:
        calibration: Sampler -> what `condvae.evaluation.assess_calibration` returns.
        reference: The sampler whose ranks are drawn; where it has no calibration, the first that
            has.
        styles: Of every sampler.

    Returns:
        `coverage.png`, `calibration_ranks_<sampler>.png`, `calibration_ecdf.png`, and
        `reliability.png` where classes are known; nothing for an empty calibration.
    """
    if not calibration:
        return {}
    sampler = reference if reference in calibration else next(iter(calibration))
    tests = calibration[sampler]["tests"]
    coverage = {name: found["coverage"] for name, found in calibration.items()}
    # A sampler from outside may have any name; a file may not.
    file = re.sub(r"[^\w.-]", "_", sampler)
    figures = {
        "coverage.png": plot_interval_coverage(coverage, styles=styles),
        f"{RANKS}{file}.png": plot_rank_histograms(
            tests, title=f"Ranks of the truth among the draws of “{sampler}”"
        ),
        "calibration_ecdf.png": plot_rank_ecdf(
            tests, title=f"Distribution of the ranks of “{sampler}”, less the uniform one"
        ),
    }
    classes = {name: found["classes"] for name, found in calibration.items()}
    if any(classes.values()):
        figures["reliability.png"] = plot_reliability(classes, styles=styles)
    return figures
