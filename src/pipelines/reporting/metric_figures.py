"""One figure per metric of the tidy table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from condvae.plots import BINS, plot_metric_by_bin

__all__ = ["draw_metrics"]


def draw_metrics(metrics: pd.DataFrame, classifier_accuracy: float | None) -> dict[str, Figure]:
    """Draw each metric that has a finite value in some bin.

    Args:
        metrics: The tidy table.
        classifier_accuracy: Accuracy on true images, drawn beside the class agreement.

    Returns:
        `metric_<name>.png` -> figure.
    """
    rows: list[dict[str, Any]] = [
        {str(key): value for key, value in row.items()} for row in metrics.to_dict("records")
    ]
    in_bins = metrics[metrics["bin"].isin(BINS) & np.isfinite(metrics["value"].astype(float))]
    figures = {}
    for metric in in_bins["metric"].drop_duplicates():
        reference = None
        if metric == "class_agreement" and classifier_accuracy is not None:
            text = f"classifier on true images: {classifier_accuracy:.3f}"
            reference = (classifier_accuracy, text)
        figures[f"metric_{metric}.png"] = plot_metric_by_bin(rows, metric, reference=reference)
    return figures
