"""Every metric of an evaluation: name, unit, definition, and how cases make up a table's value.

The one place that knows a metric: tables, comparisons, figures and pages read it from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["METRICS", "MetricDefinition", "coverage_metric"]

Kind = Literal["mean", "ratio", "root", "set"]
Source = Literal["likelihood", "pixels", "features", "perceptual", "classes", "attributes"]


@dataclass(frozen=True)
class MetricDefinition:
    """What a metric is.

    Attributes:
        title: Name in words.
        unit: Unit or scale of the values.
        better: Direction of improvement; None where neither direction is better by itself.
        definition: What is computed, and what to know before reading it.
        kind: ``mean`` of the cases' values; ``ratio`` of sums over cases, value by weight; ``root``
            of such a ratio; ``set``: computed from all cases together.
        source: What it is computed from; ``features``, ``perceptual``, ``classes`` and ``attributes``
            depend on an extractor.
        draws: Completions it takes of each case: 1, or all K of them (None).
        proper: Whether its expectation at any K is best at the true posterior; marginals, features
            and classes are scored for what they see of it, and bounds are loosened by q.
        compared: Whether samplers are compared by it case by case.
        bounds: Least and largest possible value, None for no bound.
    """

    title: str
    unit: str
    better: Literal["lower", "higher"] | None
    definition: str
    kind: Kind = "mean"
    source: Source = "features"
    draws: int | None = None
    proper: bool = False
    compared: bool = False
    bounds: tuple[float | None, float | None] = (None, None)

    @property
    def direction(self) -> str:
        """The direction of improvement in words, with an arrow."""
        arrows = {"lower": "↓ lower is better", "higher": "↑ higher is better"}
        return arrows[self.better] if self.better else "neither direction is better by itself"


def _bound(draws: int) -> MetricDefinition:
    many = (
        f"log of the mean of {draws} importance weights" if draws > 1 else "log importance weight"
    )
    return MetricDefinition(
        f"Importance-weighted bound, {draws} draw{'s' if draws > 1 else ''}",
        "bits per unobserved dimension",
        "lower",
        f"Bound on −log p(unobserved pixels | y) from the {many}, z from q(z | x) (Burda et al. "
        "2016). It falls towards the exact value as draws are added; the gap between numbers of "
        "draws shows how loose the bound with one is.",
        kind="ratio",
        source="likelihood",
        draws=draws,
        proper=True,
    )


def _coverage(level: int) -> MetricDefinition:
    return MetricDefinition(
        f"Coverage of {level} % intervals",
        "share of unobserved values",
        None,
        f"Share of true unobserved values inside the central {level} % interval of their "
        f"completions, ties counted in part. Calibrated: {level / 100:.2f}. Lower is too narrow or "
        "biased, higher too wide.",
        kind="ratio",
        source="pixels",
        bounds=(0, 1),
    )


METRICS: Mapping[str, MetricDefinition] = {
    "posterior_coverage": MetricDefinition(
        "Posterior coverage",
        "share of unobserved values in their 90 % interval",
        None,
        "The headline of calibration: share of true unobserved values inside the central 90 % "
        "interval of their completions, ties counted in part. A calibrated posterior has 0.90.",
        kind="ratio",
        source="pixels",
        bounds=(0, 1),
        compared=True,
    ),
    "bound_bits_per_unobserved_dim": MetricDefinition(
        "Bound on −log p(unobserved | observed)",
        "bits per unobserved dimension",
        "lower",
        "Bound on −log p(unobserved pixels | y): KL(q || c) in closed form and the reconstruction "
        "of the unobserved pixels, one draw from q per case; sum over cases divided by the number "
        "of unobserved values.",
        kind="ratio",
        source="likelihood",
        draws=1,
        proper=True,
        compared=True,
    ),
    "bound_1_bits_per_unobserved_dim": _bound(1),
    "bound_10_bits_per_unobserved_dim": _bound(10),
    "bound_100_bits_per_unobserved_dim": _bound(100),
    "negative_elbo_nats_per_dim": MetricDefinition(
        "Negative evidence lower bound",
        "nats per dimension",
        "lower",
        "Bound on −log p(x | y) with the whole image predicted, per value of the image: KL(q || c) "
        "and reconstruction, one draw from q per case. The number the IPA paper tabulates.",
        source="likelihood",
        draws=1,
        compared=True,
    ),
    "energy_score_pixels": MetricDefinition(
        "Energy score of pixels",
        "grey levels",
        "lower",
        "E|X − x| − ½ E|X − X'| with the Euclidean distance over the unobserved values of a case "
        "(Gneiting and Raftery 2007), unbiased pair term; mean over cases. Least in expectation at "
        "the true posterior.",
        source="pixels",
        proper=True,
        compared=True,
        bounds=(0, None),
    ),
    "energy_score_features": MetricDefinition(
        "Energy score of features",
        "feature distance",
        "lower",
        "The same with the Euclidean distance between features of completions and truth.",
        proper=True,
        compared=True,
        bounds=(0, None),
    ),
    "sliced_energy_score_pixels": MetricDefinition(
        "Sliced energy score of pixels",
        "grey levels",
        "lower",
        "Mean energy score of random one-dimensional projections of the unobserved values: sees "
        "dependence between pixels that the score of the whole may drown.",
        source="pixels",
        proper=True,
        compared=True,
        bounds=(0, None),
    ),
    "crps_per_unobserved_dim": MetricDefinition(
        "CRPS",
        "grey levels per unobserved value",
        "lower",
        "Continuous ranked probability score of every unobserved value by itself, unbiased; sum "
        "over cases divided by the number of unobserved values.",
        kind="ratio",
        source="pixels",
        proper=True,
        compared=True,
        bounds=(0, 255),
    ),
    "posterior_mean_rmse": MetricDefinition(
        "RMSE of the posterior mean",
        "grey levels",
        "lower",
        "Root of the mean squared difference between the mean of the K completions and the truth, "
        "over unobserved values of all cases.",
        kind="root",
        source="pixels",
        bounds=(0, 255),
    ),
    "sample_rmse": MetricDefinition(
        "RMSE of single completions",
        "grey levels",
        None,
        "The same for every completion by itself. Of a calibrated posterior it is √2 times that of "
        "the exact posterior mean; below that, completions are too alike.",
        kind="root",
        source="pixels",
        bounds=(0, 255),
    ),
    "posterior_mean_psnr": MetricDefinition(
        "PSNR of the posterior mean",
        "dB",
        "higher",
        "10 log10(255² / MSE), MSE of the posterior mean over the unobserved values of all cases.",
        kind="set",
        source="pixels",
    ),
    "observed_error": MetricDefinition(
        "Error on observed pixels",
        "grey levels per observed value",
        "lower",
        "Mean absolute difference between completions and truth on observed pixels, before observed "
        "pixels are pasted in. Everything else is computed after pasting.",
        kind="ratio",
        source="pixels",
        bounds=(0, 255),
    ),
    "consistency_rmse": MetricDefinition(
        "Consistency with the observation",
        "grey levels",
        "lower",
        "Root of the mean squared difference between what y says of the truth (the small image, the "
        "brightness, the drawing) and the same of every completion. 0 for an exact posterior where "
        "y has no noise. Only of tasks whose y is an image; pasted pixels always agree.",
        kind="root",
        source="pixels",
        bounds=(0, 255),
    ),
    "frechet_distance": MetricDefinition(
        "Fréchet distance",
        "squared feature distance",
        "lower",
        "Between features of completions, one of each image, and of their truths. It compares "
        "collections of images and does not see whether a completion fits its observation. Biased "
        "upwards by a constant over n: compare only at equal n and extractor.",
        kind="set",
        draws=1,
        bounds=(0, None),
    ),
    "frechet_distance_infinity": MetricDefinition(
        "Fréchet distance, extrapolated",
        "squared feature distance",
        "lower",
        "Intercept of the Fréchet distance against 1/n (Chong and Forsyth 2020), which takes out "
        "most of the bias.",
        kind="set",
        draws=1,
    ),
    "kernel_distance": MetricDefinition(
        "Kernel distance",
        "squared MMD",
        "lower",
        "Unbiased squared MMD of the polynomial kernel (x·y/d + 1)³ (Bińkowski et al. 2018), over "
        "all images; products of a completion and its own truth are left out, which would lower it. "
        "The published estimator keeps them and averages over subsets. It may be negative.",
        kind="set",
        draws=1,
    ),
    "precision": MetricDefinition(
        "Precision",
        "share of completions",
        "higher",
        "Share of completions inside the balls around truths that reach to their third neighbour "
        "(Kynkäänniemi et al. 2019). Not 1 for equal laws; depends on n.",
        kind="set",
        draws=1,
        bounds=(0, 1),
    ),
    "recall": MetricDefinition(
        "Recall",
        "share of truths",
        "higher",
        "The same with truths and completions exchanged.",
        kind="set",
        draws=1,
        bounds=(0, 1),
    ),
    "density": MetricDefinition(
        "Density",
        "relative to equal laws",
        "higher",
        "How many balls around truths a completion lies in, relative to the expected number (Naeem "
        "et al. 2020, k = 5). About 1 for equal laws.",
        kind="set",
        draws=1,
        bounds=(0, None),
    ),
    "manifold_coverage": MetricDefinition(
        "Coverage of the truths' manifold",
        "share of truths",
        "higher",
        "Share of truths whose ball to their fifth neighbour holds a completion (Naeem et al. 2020). "
        "About collections of images; no statement about posteriors.",
        kind="set",
        draws=1,
        bounds=(0, 1),
    ),
    "u_ids": MetricDefinition(
        "U-IDS",
        "share, 0.5 is best",
        "higher",
        "One minus the accuracy of a linear SVM that tells completions from truths, fitted and "
        "scored on the same features (Zhao et al. 2021). Strongly dependent on n and extractor.",
        kind="set",
        draws=1,
        bounds=(0, 1),
    ),
    "p_ids": MetricDefinition(
        "P-IDS",
        "share, 0.5 is best",
        "higher",
        "Share of pairs in which that SVM takes the completion for more real than its own truth.",
        kind="set",
        draws=1,
        bounds=(0, 1),
    ),
    "u_ids_held_out": MetricDefinition(
        "U-IDS, held out",
        "share, 0.5 is best",
        "higher",
        "The same with the SVM scored on images it was not fitted on.",
        kind="set",
        draws=1,
        bounds=(0, 1),
    ),
    "p_ids_held_out": MetricDefinition(
        "P-IDS, held out",
        "share, 0.5 is best",
        "higher",
        "The same with the SVM scored on images it was not fitted on.",
        kind="set",
        draws=1,
        bounds=(0, 1),
    ),
    "perceptual_best_of_k": MetricDefinition(
        "Perceptual distance of the closest of K completions",
        "feature distance",
        "lower",
        "Least perceptual distance of K completions to the truth, in the LPIPS formula and the layers "
        "of the named extractor: LPIPS-GT of Harvey et al. 2022 where that is LPIPS itself. "
        "Over-confident samplers can score well: no test of calibration.",
        compared=True,
        source="perceptual",
        bounds=(0, None),
    ),
    "perceptual_diversity": MetricDefinition(
        "Perceptual diversity",
        "feature distance between completions",
        None,
        "The same distance between two completions of one case, mean over all pairs. Noise "
        "maximises it; the right amount is that of the true posterior.",
        source="perceptual",
        bounds=(0, None),
    ),
    "faithfulness_weighted_variance": MetricDefinition(
        "Faithfulness-weighted variance",
        "sum of weighted feature distances",
        None,
        "FWV (Li et al. 2020): sum over K completions of exp(−d(completion, truth) / 2σ²) times "
        "d(completion, mean completion), σ = 0.3, d the perceptual distance; mean over cases. High "
        "when completions near the truth differ; compares only at equal K and extractor.",
        source="perceptual",
        bounds=(0, None),
    ),
    "class_agreement": MetricDefinition(
        "Class agreement",
        "share of completions",
        "higher",
        "Share of completions that the extractor's classifier gives the true class.",
        compared=True,
        source="classes",
        bounds=(0, 1),
    ),
    "attribute_agreement": MetricDefinition(
        "Attribute agreement",
        "share of attributes asked for",
        "higher",
        "Share of the attributes that y says which a classifier, trained on real images, reads off "
        "the completions; sum over cases divided by the number that was asked for. Rare attributes "
        "agree by themselves: the sampler `prior` shows how much, the classifier on real images is "
        "the ceiling.",
        kind="ratio",
        compared=True,
        source="attributes",
        bounds=(0, 1),
    ),
    "class_nll": MetricDefinition(
        "Negative log-likelihood of the class",
        "nats",
        "lower",
        "−log of the share of completions with the true class, shares smoothed by half a "
        "completion per class. The smoothing rewards over-confidence at finite K: not proper; the "
        "Brier score is.",
        compared=True,
        source="classes",
    ),
    "class_brier": MetricDefinition(
        "Brier score of the class",
        "squared error",
        "lower",
        "Squared difference between the shares of the classes among the completions and the true "
        "class, less what is due to estimating shares from K completions.",
        proper=True,
        compared=True,
        source="classes",
    ),
} | {f"coverage_{level}": _coverage(level) for level in (50, 80, 95)}


def coverage_metric(level: float) -> str:
    """Name of the metric for the coverage of intervals of a level; that of 0.9 is the headline."""
    return "posterior_coverage" if level == 0.9 else f"coverage_{100 * level:.0f}"
