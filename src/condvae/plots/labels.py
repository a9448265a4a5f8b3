"""Words under which metrics and bins appear in figures and tables."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

import numpy as np

from condvae.configuration import ConfigurationError

__all__ = [
    "BINS",
    "POOLED",
    "MetricLabel",
    "axis_title",
    "bin_label",
    "format_value",
    "is_finite",
    "metric_label",
]

BINS = ("0_20", "20_40", "40_60", "60_80", "80_100")
POOLED = "pooled"


@dataclass(frozen=True)
class MetricLabel:
    """How a metric is written.

    Attributes:
        title: Name in words.
        unit: Unit or scale of the values.
        better: Direction of improvement; `None` where neither direction is better by itself.
        meaning: One sentence that says what is measured.
    """

    title: str
    unit: str
    better: Literal["lower", "higher"] | None
    meaning: str

    @property
    def direction(self) -> str:
        """The direction of improvement in words, with an arrow."""
        arrows = {"lower": "↓ lower is better", "higher": "↑ higher is better"}
        return arrows[self.better] if self.better else "neither direction is better by itself"


_METRICS = {
    "negative_elbo_nats_per_dim": MetricLabel(
        "Negative evidence lower bound",
        "nats per dimension",
        "lower",
        "Upper bound on the negative log-likelihood, per dimension.",
    ),
    "bound_bits_per_unobserved_dim": MetricLabel(
        "Bound on −log p(unobserved | observed)",
        "bits per unobserved dimension",
        "lower",
        "Upper bound on the code length of the true unobserved pixels given the observed ones; "
        "a ratio of sums over the unobserved dimensions.",
    ),
    "frechet_distance": MetricLabel(
        "Fréchet distance",
        "squared feature distance",
        "lower",
        "Distance between Gaussians fitted to features of completions and of true images. It "
        "compares collections of images and does not see whether a completion fits its "
        "observation.",
    ),
    "perceptual_best_of_k": MetricLabel(
        "Perceptual distance of the closest of K completions",
        "feature distance",
        "lower",
        "Feature distance between the truth and the completion nearest to it. Over-confident "
        "samplers can score well, so it is no test of calibration.",
    ),
    "perceptual_diversity": MetricLabel(
        "Perceptual diversity",
        "feature distance between completions",
        None,
        "Mean feature distance between pairs of completions of one observation. It should fall "
        "as more is observed; the right amount is that of the true posterior.",
    ),
    "class_agreement": MetricLabel(
        "Class agreement",
        "share of completions",
        "higher",
        "Share of completions that a classifier assigns to the class of the true image.",
    ),
}


def metric_label(metric: str) -> MetricLabel:
    """Return the words of a metric; one that is not known is written under its own name."""
    known = _METRICS.get(metric)
    return known or MetricLabel(axis_title(metric), "value", None, "")


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
            return f"{name[:1].upper()}{name[1:]} ({unit})"
    return words[:1].upper() + words[1:]


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
    decimals = max(0, 1 - math.floor(math.log10(standard_error)))
    return _minus(f"{value:.{decimals}f} ± {standard_error:.{decimals}f}")


def _minus(text: str) -> str:
    return text.replace("-", "−")
