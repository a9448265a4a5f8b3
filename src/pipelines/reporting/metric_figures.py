"""One figure per metric of the tidy table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from condvae.calibration import HEADLINE_LEVEL
from condvae.plots import BINS, SamplerStyle, coverage_target, plot_metric_by_bin

__all__ = ["draw_metrics"]


def draw_metrics(
    metrics: pd.DataFrame,
    classifier_accuracy: float | None,
    styles: Mapping[str, SamplerStyle],
) -> dict[str, Figure]:
    """Draw each metric that has a finite value in some bin.

    Coverage of other intervals than those of the headline is left to the figure of all levels.

    Args:
        metrics: The tidy table.
        classifier_accuracy: Accuracy on true images, drawn beside the class agreement.
        styles: Of every sampler in the table.

    Returns:
        `metric_<name>.png` -> figure.
    """
    rows: list[dict[str, Any]] = [
        {str(key): value for key, value in row.items()} for row in metrics.to_dict("records")
    ]
    in_bins = metrics[metrics["bin"].isin(BINS) & np.isfinite(metrics["value"].astype(float))]
    return {
        f"metric_{metric}.png": plot_metric_by_bin(
            rows, metric, reference=_reference(metric, classifier_accuracy), styles=styles
        )
        for metric in in_bins["metric"].drop_duplicates()
        if coverage_target(metric) in (None, HEADLINE_LEVEL)
    }


def _reference(metric: str, classifier_accuracy: float | None) -> tuple[float, str] | None:
    """The value a metric is to be compared with, and its name."""
    target = coverage_target(metric)
    if target is not None:
        return target, f"calibrated: {target:.2f}"
    if metric == "class_agreement" and classifier_accuracy is not None:
        return classifier_accuracy, f"classifier on true images: {classifier_accuracy:.3f}"
    return None
