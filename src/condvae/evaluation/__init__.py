"""Evaluation: samplers judged on the same cases, per case and in tables."""

from condvae.evaluation.samplers import SAMPLER_DEFINITIONS, make_sampler
from condvae.evaluation.scoring import CaseScores, Examples, score_sampler
from condvae.evaluation.tables import METRIC_DEFINITIONS, compare, list_case_scores, tabulate

__all__ = [
    "METRIC_DEFINITIONS",
    "SAMPLER_DEFINITIONS",
    "CaseScores",
    "Examples",
    "compare",
    "list_case_scores",
    "make_sampler",
    "score_sampler",
    "tabulate",
]
