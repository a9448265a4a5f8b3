"""Calibration: are a sampler's completions distributed as the truths they might be?

Ranks of truths among draws are collected chunk by chunk (`statistics`), tested (`ranks`, `ecdf`),
and judged together (`verdict`). `tarp` makes references that depend on y, `coverage` counts interval
coverage, `classes` compares class distributions with labels. Arrays in, numbers out; no model.
"""

from condvae.calibration.classes import ClassCalibration, ReliabilityBin, assess_classes
from condvae.calibration.coverage import (
    HEADLINE_LEVEL,
    LEVELS,
    Coverage,
    posterior_coverage,
    share_covered,
    tabulate_coverage,
)
from condvae.calibration.ecdf import EcdfBand, ecdf_band
from condvae.calibration.observation_use import ObservationUse, assess_use, reference_gaps
from condvae.calibration.ranks import RankTest, assess_all_ranks, assess_ranks, one_case_per_image
from condvae.calibration.shape import RankShape
from condvae.calibration.statistics import View, rank_classes, rank_features, rank_pixels
from condvae.calibration.tarp import nearest_references, other_references
from condvae.calibration.verdict import Verdict, correct_holm, judge

__all__ = [
    "HEADLINE_LEVEL",
    "LEVELS",
    "ClassCalibration",
    "Coverage",
    "EcdfBand",
    "ObservationUse",
    "RankShape",
    "RankTest",
    "ReliabilityBin",
    "Verdict",
    "View",
    "assess_all_ranks",
    "assess_classes",
    "assess_ranks",
    "assess_use",
    "correct_holm",
    "ecdf_band",
    "judge",
    "nearest_references",
    "one_case_per_image",
    "other_references",
    "posterior_coverage",
    "rank_classes",
    "rank_features",
    "rank_pixels",
    "reference_gaps",
    "share_covered",
    "tabulate_coverage",
]
