"""Figures: sample grids, uncertainty maps and curves, as matplotlib figures made from arrays."""

from __future__ import annotations

from condvae.plots.anomaly import plot_auroc, plot_score_histograms
from condvae.plots.attributes import (
    plot_attribute_samples,
    plot_attribute_sweep,
    plot_condition_paths,
    plot_edits,
    plot_ladder,
)
from condvae.plots.calibration import plot_rank_ecdf, plot_rank_histograms
from condvae.plots.compare_samplers import plot_samplers
from condvae.plots.completions import CompletionExample, plot_completions
from condvae.plots.confusion import plot_confusion
from condvae.plots.control import plot_interpolations, plot_kept_groups
from condvae.plots.curves import plot_metric_by_bin, plot_training
from condvae.plots.differences import plot_differences
from condvae.plots.extremes import plot_extremes
from condvae.plots.labels import (
    BINS,
    POOLED,
    bin_label,
    coverage_target,
    direction_words,
    format_interval,
    format_value,
    is_finite,
    metric_label,
    statistic_label,
)
from condvae.plots.reliability import plot_interval_coverage, plot_reliability
from condvae.plots.style import SamplerStyle, figure_style, png_bytes, style_samplers

__all__ = [
    "BINS",
    "POOLED",
    "CompletionExample",
    "SamplerStyle",
    "bin_label",
    "coverage_target",
    "direction_words",
    "figure_style",
    "format_interval",
    "format_value",
    "is_finite",
    "metric_label",
    "plot_attribute_samples",
    "plot_attribute_sweep",
    "plot_auroc",
    "plot_completions",
    "plot_condition_paths",
    "plot_confusion",
    "plot_differences",
    "plot_edits",
    "plot_extremes",
    "plot_interpolations",
    "plot_interval_coverage",
    "plot_kept_groups",
    "plot_ladder",
    "plot_metric_by_bin",
    "plot_rank_ecdf",
    "plot_rank_histograms",
    "plot_reliability",
    "plot_samplers",
    "plot_score_histograms",
    "plot_training",
    "png_bytes",
    "statistic_label",
    "style_samplers",
]
