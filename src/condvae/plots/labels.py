"""Words under which metrics and bins appear in figures and tables."""

from __future__ import annotations

import math
from typing import Any, TypeGuard

import numpy as np

from condvae.calibration import LEVELS
from condvae.ground.configuration import ConfigurationError
from condvae.scores.attribute_definitions import ATTRIBUTE_METRICS
from condvae.scores.definitions import METRICS, MetricDefinition, coverage_metric

__all__ = [
    "BINS",
    "POOLED",
    "axis_title",
    "bin_label",
    "coverage_target",
    "direction_words",
    "format_interval",
    "format_value",
    "is_finite",
    "metric_label",
    "statistic_label",
]

BINS = ("0_20", "20_40", "40_60", "60_80", "80_100")
POOLED = "pooled"


_COVERAGE_TARGETS = {coverage_metric(level): level for level in LEVELS}

_STATISTICS = {
    "hole_mean": "Mean of the hole",
    "tarp_y_pixels": "Distance to reference of y, pixels",
    "tarp_other_pixels": "Distance to reference of another y, pixels",
    "tarp_y_features": "Distance to reference of y, features",
    "tarp_other_features": "Distance to reference of another y, features",
    "class_probability": "Log odds of the likeliest class",
}
_ABBREVIATIONS = ("kl",)
_NUMBERED_STATISTICS = {
    "pixel": "Random pixel",
    "projection": "Random projection",
    "feature_projection": "Feature projection",
}


def metric_label(metric: str) -> MetricDefinition:
    """Return the words of a metric; one that is not known is written under its own name.

    A name that completions and images from attributes share is that of completions.
    """
    known = METRICS.get(metric) or ATTRIBUTE_METRICS.get(metric)
    return known or MetricDefinition(axis_title(metric), "value", None, "")


def coverage_target(metric: str) -> float | None:
    """The share that intervals of a calibrated sampler cover; `None` for any other metric."""
    return _COVERAGE_TARGETS.get(metric)


def direction_words(metric: str) -> str:
    """Say which values of a metric are better: ``"↓ lower is better"``."""
    target = coverage_target(metric)
    return metric_label(metric).direction if target is None else f"calibrated: {target:.2f}"


def statistic_label(name: str) -> str:
    """Write the name of a rank statistic in words: ``"pixel_2"`` -> ``"Random pixel 2"``."""
    kind, _, number = name.rpartition("_")
    if number.isdigit() and kind in _NUMBERED_STATISTICS:
        return f"{_NUMBERED_STATISTICS[kind]} {number}"
    return _STATISTICS.get(name) or axis_title(name)


def bin_label(bin_of_share: int | str) -> str:
    """Write a bin of the observed share: ``1`` or ``"20_40"`` -> ``"20–40 %"``.

    Args:
        bin_of_share: Index from 0 to 4, one of `BINS`, or ``"pooled"``.

    Raises:
        ConfigurationError: Any other value.
    """
    if bin_of_share == POOLED:
        return "all"
    try:
        index = BINS.index(bin_of_share) if isinstance(bin_of_share, str) else int(bin_of_share)
    except ValueError:
        index = -1
    if not 0 <= index < len(BINS):
        expected = ", ".join(BINS)
        raise ConfigurationError(
            f"bin = {bin_of_share!r}: expected 0 to {len(BINS) - 1}, {expected} or {POOLED}"
        )
    return BINS[index].replace("_", "–") + " %"


def axis_title(key: str) -> str:
    """Write a key such as ``rate_nats`` or ``images_per_second`` as an axis title with its unit."""
    words = key.rsplit("/", maxsplit=1)[-1].replace("_", " ").strip()
    for unit in ("nats per dim", "bits per dim", "nats", "bits", "seconds", "mib", "gib"):
        name = words.removesuffix(" " + unit)
        if name != words:
            return f"{_begin_upper(name)} ({unit})"
    return _begin_upper(words)


def _begin_upper(words: str) -> str:
    """Write the first letter large; of an abbreviation all letters."""
    first, space, rest = words.partition(" ")
    return (
        (first.upper() if first in _ABBREVIATIONS else first[:1].upper() + first[1:]) + space + rest
    )


def is_finite(value: Any) -> TypeGuard[float]:
    """Say whether a value is a number, and neither infinite nor missing."""
    return isinstance(value, (int, float, np.number)) and math.isfinite(value)


def format_value(value: Any, standard_error: Any = None) -> str:
    """Write a number with the decimals its standard error supports: ``"0.639 ± 0.021"``.

    The error is written with two significant digits and the value with as many decimals. Without a
    positive error the value has four significant digits. A missing or infinite value is a dash.
    """
    if not is_finite(value):
        return "–"
    if not (is_finite(standard_error) and standard_error > 0):
        return _minus(f"{value:.4g}")
    decimals = _decimals(standard_error)
    return _minus(f"{value:.{decimals}f} ± {standard_error:.{decimals}f}")


def format_interval(value: Any, low: Any, high: Any, standard_error: Any = None) -> str:
    """Write a number with its interval: ``"0.639 [0.598, 0.680]"``.

    The decimals are those that a 95 % interval of this width supports. Without an interval the
    number is written as `format_value` does.
    """
    if not (is_finite(value) and is_finite(low) and is_finite(high) and high > low):
        return format_value(value, standard_error)
    decimals = _decimals((high - low) / 3.92)
    return _minus(f"{value:.{decimals}f} [{low:.{decimals}f}, {high:.{decimals}f}]")


def _decimals(standard_error: float) -> int:
    """Decimals that show two significant digits of a standard error."""
    return max(0, 1 - math.floor(math.log10(standard_error)))


def _minus(text: str) -> str:
    return text.replace("-", "−")
