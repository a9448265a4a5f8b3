"""What a re-evaluation finds, and the one word that follows from all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from condvae.ground.configuration import check_choice

__all__ = ["DEGRADED", "DRIFTED", "INVALID", "NOTED", "OK", "VERDICTS", "Finding", "reach_verdict"]

INVALID = "invalid"
DRIFTED = "drifted"
DEGRADED = "degraded"
OK = "ok"
NOTED = "noted"
"""Weight of a finding that is reported and decides nothing."""

VERDICTS = (INVALID, DRIFTED, DEGRADED, OK)
"""The worst first: what was measured on altered weights, or on pictures of another kind, says nothing
about the model."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        weight: The verdict it leads to by itself: `INVALID`, `DRIFTED` or `DEGRADED`; or `NOTED`.
        about: What it is about, such as ``weights`` or ``calibration``.
        message: A sentence with the numbers it rests on.
    """

    weight: str
    about: str
    message: str

    def __post_init__(self) -> None:
        check_choice("weight", self.weight, (*VERDICTS[:-1], NOTED))


def reach_verdict(findings: Sequence[Finding]) -> tuple[str, tuple[Finding, ...]]:
    """The worst that was found, and why.

    Args:
        findings: In the order in which they are reported.

    Returns:
        One of `VERDICTS`; and the findings that led to it first, then those of lesser verdicts, which
        a worse one would hide. Notes are left out.
    """
    reasons = tuple(finding for word in VERDICTS for finding in findings if finding.weight == word)
    return (reasons[0].weight if reasons else OK), reasons
