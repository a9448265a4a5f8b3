"""Figures: sample grids, uncertainty maps and curves, as matplotlib figures made from arrays."""

from __future__ import annotations

from condvae.plots.compare_samplers import plot_samplers
from condvae.plots.completions import CompletionExample, plot_completions
from condvae.plots.curves import plot_metric_by_bin, plot_training
from condvae.plots.labels import BINS, POOLED, MetricLabel, bin_label, format_value, metric_label
from condvae.plots.style import figure_style, png_bytes, sampler_colour

__all__ = [
    "BINS",
    "POOLED",
    "CompletionExample",
    "MetricLabel",
    "bin_label",
    "figure_style",
    "format_value",
    "metric_label",
    "plot_completions",
    "plot_metric_by_bin",
    "plot_samplers",
    "plot_training",
    "png_bytes",
    "sampler_colour",
]
