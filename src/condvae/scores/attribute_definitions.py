"""Every metric of images made from attributes: name, unit, definition, direction.

Tables of completions are made from `condvae.scores.definitions.METRICS`, those of
`condvae.cvae.evaluation` from these. `frechet_distance` is in both: the images differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from condvae.scores.definitions import MetricDefinition

__all__ = ["ATTRIBUTE_METRICS"]


def _likelihood() -> dict[str, MetricDefinition]:
    return {
        "log_prob_nats": MetricDefinition(
            "Log-likelihood log p(x | y)",
            "nats per image",
            "higher",
            "Importance-weighted bound from K draws of q(z | x, y) (Burda et al. 2016), of 8-bit "
            "images: of continuous likelihoods a density of dequantised pixels, in grey levels. The "
            "std of the pixels is that of training. Mean over test images.",
            source="likelihood",
        ),
        "bits_per_dim": MetricDefinition(
            "Bits per dimension",
            "bits per value of the image",
            "lower",
            "−log p(x | y) / (C H W ln 2). Comparable between likelihoods; of continuous ones an upper "
            "bound.",
            source="likelihood",
        ),
        "information_used_nats": MetricDefinition(
            "Information used",
            "nats per image",
            None,
            "log p(x | y) less the same with the condition of another test image, with the same noise. "
            "0 where y is ignored; a model that is too sure of y has more than the data hold.",
            source="likelihood",
        ),
    }


def _attributes() -> dict[str, MetricDefinition]:
    values = {
        "accuracy": (
            "Attribute accuracy",
            "share of images",
            "Share of images in which the judge reads the value they were asked for; over all "
            "attributes the unweighted mean.",
        ),
        "balanced_accuracy": (
            "Balanced attribute accuracy",
            "share of images",
            "The same as a mean over the values asked for, so that rare ones count as much as common "
            "ones.",
        ),
        "f1": (
            "F1 of attributes",
            "share",
            "Harmonic mean of precision and recall, mean over the values asked for.",
        ),
        "auroc": (
            "AUROC of attributes",
            "share of pairs",
            "Chance that an image asked for a value has a higher probability of it than one asked for "
            "another, mean over values. 0.5 is chance.",
        ),
        "exact_match": (
            "Exact match",
            "share of images",
            "Share of images in which every categorical value that was asked for is read.",
        ),
    }
    found = {
        f"attribute_{name}": MetricDefinition(
            title,
            unit,
            "higher",
            definition,
            kind="mean" if name in {"accuracy", "exact_match"} else "set",
            source="classes",
            bounds=(0, 1),
        )
        for name, (title, unit, definition) in values.items()
    }
    found["attribute_correlation"] = MetricDefinition(
        "Correlation of attributes",
        "correlation",
        "higher",
        "Of the number asked for with the one that the judge reads, of continuous attributes.",
        kind="set",
        source="classes",
        bounds=(-1, 1),
    )
    ceilings = {
        f"{name}_of_ceiling": replace(
            definition,
            title=f"{definition.title}, of the ceiling",
            unit="ratio, 1 is the ceiling",
            definition="The same divided by that of real test images, which have the judge's errors "
            "too. Above 1 where images are clearer than real ones.",
            kind="set",
            bounds=(None, None) if name == "attribute_correlation" else (0, None),
        )
        for name, definition in found.items()
    }
    found["attribute_rmse"] = MetricDefinition(
        "RMSE of attributes",
        "training standard deviations",
        "lower",
        "Root mean squared difference between the number asked for and the one that the judge reads, "
        "of continuous attributes.",
        kind="root",
        source="classes",
        bounds=(0, None),
    )
    return found | ceilings


def _images() -> dict[str, MetricDefinition]:
    definition = (
        "Mean distance between two images drawn for one condition over that between two real images "
        "with the same attributes. 1 is as different as real ones; noise makes it larger."
    )
    return {
        "frechet_distance": MetricDefinition(
            "Fréchet distance",
            "squared feature distance",
            "lower",
            "Between the judge's features of real test images and of one image drawn at the attributes "
            "of each, overall and within each value (class=3). Biased upwards by a constant over n: "
            "read beside that of halves, and compare at equal n and judge only.",
            kind="set",
            draws=1,
            bounds=(0, None),
        ),
        "frechet_distance_of_halves": MetricDefinition(
            "Fréchet distance of two halves",
            "squared feature distance",
            None,
            "Between halves of the real test images with the same attributes: what equal laws show, "
            "with half as many images and so twice the bias.",
            kind="set",
            draws=1,
            bounds=(0, None),
        ),
        "diversity_features": MetricDefinition(
            "Diversity, features",
            "ratio, 1 is that of real images",
            None,
            f"{definition} In the judge's features.",
            kind="ratio",
            bounds=(0, None),
        ),
        "diversity_pixels": MetricDefinition(
            "Diversity, pixels",
            "ratio, 1 is that of real images",
            None,
            f"{definition} In grey levels.",
            kind="ratio",
            source="pixels",
            bounds=(0, None),
        ),
    }


def _bayes() -> dict[str, MetricDefinition]:
    return {
        "bayes_accuracy": MetricDefinition(
            "Accuracy by Bayes' rule",
            "share of images",
            "higher",
            "Share of real test images whose likeliest value, p(value | x) from log p(x | y), is the "
            "true one.",
            source="likelihood",
            bounds=(0, 1),
        ),
        "bayes_nll_nats": MetricDefinition(
            "Negative log-likelihood by Bayes' rule",
            "nats",
            "lower",
            "Mean of −log p(true value | x).",
            source="likelihood",
            proper=True,
            bounds=(0, None),
        ),
        "bayes_coverage_90": MetricDefinition(
            "Coverage of 90 % sets",
            "share of images",
            None,
            "Share of images whose true value is among the likeliest values of probability 0.9 in all, "
            "the last of them counted in part. Calibrated: 0.90; lower is too sure.",
            source="likelihood",
            bounds=(0, 1),
        ),
        "bayes_calibration_error": MetricDefinition(
            "Calibration error",
            "share of images",
            "lower",
            "Expected calibration error of the likeliest value's probability. Never 0 for finitely "
            "many images: read beside the exact one.",
            kind="set",
            source="likelihood",
            bounds=(0, 1),
        ),
        "bayes_calibration_error_exact": MetricDefinition(
            "Calibration error of exact probabilities",
            "share of images",
            None,
            "Mean calibration error if the same probabilities were those of the truth, by simulation.",
            kind="set",
            source="likelihood",
            bounds=(0, 1),
        ),
        "bayes_calibration_p_value": MetricDefinition(
            "p-value of calibration",
            "probability",
            None,
            "Two-sided place of the calibration error among those of exact probabilities: small values "
            "say that they are not calibrated.",
            kind="set",
            source="likelihood",
            bounds=(0, 1),
        ),
    }


ATTRIBUTE_METRICS: Mapping[str, MetricDefinition] = (
    _likelihood() | _attributes() | _images() | _bayes()
)
