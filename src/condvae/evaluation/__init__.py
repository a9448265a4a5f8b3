"""Evaluation: samplers judged on the same cases, per case and in tables."""

from condvae.evaluation.calibrator import (
    Calibrator,
    largest_bank,
    list_signatures,
    usable_draws,
)
from condvae.evaluation.case_scores import (
    CaseScores,
    Examples,
    Extractors,
    draw_examples,
    score_cases,
)
from condvae.evaluation.chunks import ChunkFolder
from condvae.evaluation.exchange import FileSource, export_cases
from condvae.evaluation.runs import compare_case_tables
from condvae.evaluation.samplers import SAMPLER_DEFINITIONS, make_sampler, split_temperature
from condvae.evaluation.sources import CompletionSource, PosteriorSource
from condvae.evaluation.tables import (
    COMPARISON_COLUMNS,
    compare,
    list_case_scores,
    tabulate,
)
from condvae.evaluation.verdicts import assess_calibration

__all__ = [
    "COMPARISON_COLUMNS",
    "SAMPLER_DEFINITIONS",
    "Calibrator",
    "CaseScores",
    "ChunkFolder",
    "CompletionSource",
    "Examples",
    "Extractors",
    "FileSource",
    "PosteriorSource",
    "assess_calibration",
    "compare",
    "compare_case_tables",
    "draw_examples",
    "export_cases",
    "largest_bank",
    "list_case_scores",
    "list_signatures",
    "make_sampler",
    "score_cases",
    "split_temperature",
    "tabulate",
    "usable_draws",
]
