"""Has a model that is in use become worse, or have its pictures become others? Decisions on arrays."""

from condvae.evaluation.monitoring.changes import (
    JUDGED,
    CoverageChange,
    ScoreChange,
    compare_coverage,
    compare_scores,
    find_new_faults,
)
from condvae.evaluation.monitoring.drift import (
    FeatureShift,
    FlaggedShare,
    judge_flags,
    shift_of_features,
)
from condvae.evaluation.monitoring.findings import (
    DEGRADED,
    DRIFTED,
    INVALID,
    NOTED,
    OK,
    VERDICTS,
    Finding,
    reach_verdict,
)

__all__ = [
    "DEGRADED",
    "DRIFTED",
    "INVALID",
    "JUDGED",
    "NOTED",
    "OK",
    "VERDICTS",
    "CoverageChange",
    "FeatureShift",
    "Finding",
    "FlaggedShare",
    "ScoreChange",
    "compare_coverage",
    "compare_scores",
    "find_new_faults",
    "judge_flags",
    "reach_verdict",
    "shift_of_features",
]
