"""P-IDS and U-IDS: whether a linear classifier of features tells completions from true images.

Zhao et al. 2021, Large Scale Image Completion via Co-Modulated Generative Adversarial Networks.
Their classifier is scored on the features it was fitted on, so that the scores depend strongly on
the number of images N and of features D: for equal laws, where both tend to 1/2, they are 0 as long
as 2 N is at most D + 1, and about 0.3 at N = 5,000 with 2,048 independent features. Numbers compare
only at one N and one extractor. The held-out scores do not have this bias.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from condvae.ground.configuration import ConfigurationError
from condvae.scores.estimates import cluster_groups, mean_score
from condvae.scores.feature_scores import (
    Features,
    FeatureScore,
    check_features,
    check_row_count,
)

__all__ = ["held_out_discrimination", "in_sample_discrimination"]


def in_sample_discrimination(
    features: Features,
    reference: Features,
    *,
    extractor: str,
    clusters: ArrayLike | None = None,
    force: bool = False,
) -> tuple[FeatureScore, FeatureScore]:
    """Compute P-IDS and U-IDS as published: one linear SVM, fitted and scored on the same features.

    The SVM is scikit-learn's ``LinearSVC(dual=False)`` with C = 1 on unscaled features, all N true
    images as one class and the N completions of the same images as the other. With 2,048 features
    and N = 2,500 it takes about 4 s on one core, with 32 features milliseconds.

    Args:
        features: (N,D) of completions, row i of the true image in row i of `reference`.
        reference: (N,D) of the true images.
        extractor: What produced the features. The published one is Inception.
        clusters: (N,) labels of the independent units (images); `None` for independent rows.
        force: Whether to compute them from fewer than 2 * D rows.

    Returns:
        P-IDS, the share of pairs in which the completion is taken for more real than its true image;
        and U-IDS, one minus the accuracy. Standard errors are those of shares under the fitted SVM,
        without its own uncertainty.

    Raises:
        ConfigurationError: Other shapes, values that are not finite, or fewer than 2 * D rows.
    """
    completions, truths = _pairs(features, reference)
    check_row_count("in-sample discrimination", *completions.shape, force=force)
    decisions = _decide(completions, truths, completions, truths)
    return _scores(*decisions, clusters, extractor, {})


def held_out_discrimination(
    features: Features,
    reference: Features,
    *,
    extractor: str,
    clusters: ArrayLike | None = None,
    folds: int = 5,
    seed: int = 0,
) -> tuple[FeatureScore, FeatureScore]:
    """Compute P-IDS and U-IDS with the same SVM, scored on images it was not fitted on.

    Units are dealt to folds at random; the pairs of one fold are scored by an SVM fitted on the
    pairs of all others, so that neither an image nor its partner is on both sides. For equal laws
    both scores are 1/2 on average at any N.

    Args:
        features: (N,D) of completions, row i of the true image in row i of `reference`.
        reference: (N,D) of the true images.
        extractor: What produced the features.
        clusters: (N,) labels of the independent units (images); `None` for independent rows.
        folds: Number of folds.
        seed: Seed of dealing.

    Returns:
        P-IDS and U-IDS held out, with standard errors as `in_sample_discrimination` and the setting
        ``folds``.

    Raises:
        ConfigurationError: Other shapes, values that are not finite, fewer than two folds, or fewer
            units than folds.
    """
    completions, truths = _pairs(features, reference)
    groups, count = cluster_groups(len(completions), clusters)
    if not 2 <= folds <= count:
        raise ConfigurationError(
            f"folds = {folds!r}: expected 2 to {count}, the number of independent images"
        )
    fold = (np.random.default_rng(seed).permutation(count) % folds)[groups]
    drawn, true = np.empty(len(fold)), np.empty(len(fold))
    for i in range(folds):
        rest, own = fold != i, fold == i
        drawn[own], true[own] = _decide(
            completions[rest], truths[rest], completions[own], truths[own]
        )
    return _scores(drawn, true, clusters, extractor, {"folds": folds})


def _pairs(
    features: Features, reference: Features
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return float64 features of as many completions as true images."""
    completions, truths = check_features(features, reference, ("features", "reference"))
    if len(completions) != len(truths):
        raise ConfigurationError(
            f"{len(completions)} completions and {len(truths)} true images: expected pairs"
        )
    return completions, truths


def _decide(
    fitted_completions: NDArray[np.float64],
    fitted_truths: NDArray[np.float64],
    completions: NDArray[np.float64],
    truths: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit the SVM on some pairs; return its decision values for others, positive for real."""
    from sklearn.svm import LinearSVC

    inputs = np.concatenate([fitted_truths, fitted_completions])
    classes = np.repeat([1, 0], [len(fitted_truths), len(fitted_completions)])
    svm = LinearSVC(dual=False).fit(inputs, classes)
    return svm.decision_function(completions), svm.decision_function(truths)


def _scores(
    completions: NDArray[np.float64],
    truths: NDArray[np.float64],
    clusters: ArrayLike | None,
    extractor: str,
    settings: dict[str, int],
) -> tuple[FeatureScore, FeatureScore]:
    """P-IDS and U-IDS from the decision values of pairs."""
    mistaken = ((completions > 0).astype(float) + (truths <= 0)) / 2
    paired = mean_score(completions > truths, clusters)
    unpaired = mean_score(mistaken, clusters)
    return (
        FeatureScore(paired.value, paired.standard_error, paired.n, extractor, settings),
        FeatureScore(unpaired.value, unpaired.standard_error, unpaired.n, extractor, settings),
    )
