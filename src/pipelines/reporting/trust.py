"""Whether each sampler's posterior can be trusted: the verdicts of the calibration, as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from condvae.calibration.verdict import CALIBRATED
from condvae.plots import (
    BINS,
    POOLED,
    format_interval,
    format_value,
    is_finite,
    statistic_label,
)

__all__ = ["SamplerTrust", "VerdictCell", "describe_trust", "list_verdict_columns"]

HEADLINE = "posterior_coverage"


@dataclass(frozen=True)
class VerdictCell:
    """The verdict over one bin of the observed share.

    Attributes:
        words: ``"too narrow, biased"``; a dash where nothing was tested.
        calibrated: Whether no test rejects; `None` where nothing was tested, where so few images were
            that no test could have rejected, or where only tests of features reject.
        power: What this many images could have shown, or how many tests reject.
    """

    words: str
    calibrated: bool | None
    power: str


@dataclass(frozen=True)
class SamplerTrust:
    """What the calibration says about one sampler.

    Attributes:
        sampler: Its name.
        overall: Verdict over all cases.
        summary: That verdict as a sentence or two.
        rejected: Statistics whose tests reject over all cases, in words.
        use_of_y: Share of what the observation says that the completions follow, with its interval;
            empty where it is not known.
        coverage: The headline number with its standard error.
        temperature: Of the sampler, where it is known.
        cells: One verdict per column of `list_verdict_columns`.
        definition: What the sampler is; empty where that is not known.
    """

    sampler: str
    overall: VerdictCell
    summary: str
    rejected: list[str]
    use_of_y: str
    coverage: str
    temperature: str
    cells: list[VerdictCell]
    definition: str


def list_verdict_columns(calibration: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Bins that some sampler has a verdict for, from little observed to much."""
    found = {name for one in calibration.values() for name in one["verdicts"]}
    return [name for name in BINS if name in found]


def describe_trust(
    calibration: Mapping[str, Mapping[str, Any]],
    metrics: pd.DataFrame,
    definitions: Mapping[str, str],
) -> list[SamplerTrust]:
    """Put the calibration of every sampler into words, in the order of the metrics table.

    Args:
        calibration: Sampler -> what `condvae.evaluation.assess_calibration` returns; numbers that
            are not finite may be `None`.
        metrics: The tidy table, which holds the headline number ``posterior_coverage``.
        definitions: Sampler -> what it is.
    """
    columns = list_verdict_columns(calibration)
    order = [name for name in metrics["sampler"].drop_duplicates() if name in calibration]
    order += [name for name in calibration if name not in order]
    return [
        _describe_sampler(name, calibration[name], metrics, columns, definitions.get(name, ""))
        for name in order
    ]


def _describe_sampler(
    sampler: str,
    found: Mapping[str, Any],
    metrics: pd.DataFrame,
    columns: Sequence[str],
    definition: str,
) -> SamplerTrust:
    verdicts = found["verdicts"]
    own = metrics[metrics["sampler"] == sampler]
    headline = own[(own["metric"] == HEADLINE) & (own["bin"] == POOLED)]
    coverage = "–"
    if len(headline):
        coverage = format_value(*headline.iloc[0][["value", "standard_error"]])
    heats = list(own["temperature"].dropna().unique()) if "temperature" in own else []
    pooled = verdicts.get(POOLED) or {}
    rejected = [*pooled.get("rejected", ()), *pooled.get("rejected_features", ())]
    use = pooled.get("use_of_y") or {}
    return SamplerTrust(
        sampler=sampler,
        overall=_describe_cell(verdicts.get(POOLED)),
        summary=_summarise(verdicts.get(POOLED)),
        rejected=[statistic_label(name) for name in rejected],
        use_of_y=format_interval(use.get("value"), use.get("low"), use.get("high")) if use else "",
        coverage=coverage,
        temperature=", ".join(f"{float(heat):g}" for heat in heats) or "–",
        cells=[_describe_cell(verdicts.get(name)) for name in columns],
        definition=definition,
    )


def _describe_cell(verdict: Mapping[str, Any] | None) -> VerdictCell:
    if verdict is None:
        return VerdictCell("–", None, "")
    words = list(verdict["words"])
    calibrated: bool | None = words == [CALIBRATED]
    if not calibrated:
        power = _reject(len(verdict["rejected"]))
    elif _shows_power(verdict):
        bias, spread = verdict["visible_bias"], verdict["visible_spread"]
        power = f"would see bias {bias:.2g}, spread ×{spread:.3g}"
    else:
        calibrated, power = None, "too few images to see much"
    text = ", ".join(words)
    if words == [CALIBRATED] and verdict.get("rejected_features"):
        text, calibrated = f"hidden pixels: {text}; features differ", None
    return VerdictCell(text, calibrated, f"n = {verdict['n']}; {power}")


def _summarise(verdict: Mapping[str, Any] | None) -> str:
    if verdict is None:
        return ""
    images = f"on {verdict['n']} images"
    if verdict["rejected"]:
        found = f"{_reject(len(verdict['rejected']))} {images} at 5\u00a0% (Holm's correction)."
    elif _shows_power(verdict):
        found = (
            f"No test {images} rejects at 5\u00a0% (Holm's correction). In 80\u00a0% of such "
            f"evaluations a test would show a bias of {verdict['visible_bias']:.2g} posterior "
            f"standard deviations, or truths spread {verdict['visible_spread']:.3g} times as widely "
            "as draws."
        )
    else:
        found = f"No test {images} rejects, but so few would hide even gross errors."
    features = len(verdict.get("rejected_features", ()))
    if features:
        found += (
            f" Of the tests of features, which do not enter the verdict, {_reject(features)}: "
            "completions differ from real images in them."
        )
    return found


def _reject(count: int) -> str:
    return f"{count} test{'s' if count != 1 else ''} reject{'s' if count == 1 else ''}"


def _shows_power(verdict: Mapping[str, Any]) -> bool:
    return is_finite(verdict["visible_bias"]) and is_finite(verdict["visible_spread"])
