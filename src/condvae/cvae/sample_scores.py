"""Scores of images sampled at given attributes, and of real images with them, as rows of a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from condvae.ground.configuration import ConfigurationError
from condvae.scores.attribute_classifier import (
    AttributeNetwork,
    AttributePredictions,
    predict_attributes,
)
from condvae.scores.attribute_features import (
    frechet_by_value,
    frechet_of_halves,
    pair_distances,
    relative_diversity,
)
from condvae.scores.attribute_scores import (
    ALL,
    AttributeScore,
    relative_score,
    score_attributes,
)
from condvae.scores.estimates import ScoreValue

__all__ = ["Row", "SampleJudge", "score_row"]

Row = dict[str, Any]
"""A row of a tidy table; see `score_row`."""

_ERRORS = ("rmse",)  # scores that are not divided by their ceiling


class SampleJudge:
    """Scores of images by an attribute classifier, beside those of real images.

    Args:
        classifier: Trained on real training images.
        extractor: Its name, from its card.
        images: uint8 (N,C,H,W) on the CPU, real images the classifier was not trained on.
        y: (N,A) on the CPU, their attributes, nan = unknown.
        groups: Name -> bool (N,), rows whose attribute scores stand apart.
        resamples: Bootstrap resamples for the standard errors of Frechet distances.
        batch_size: Images the classifier sees at a time.
        seed: Of bootstrap and random halves.
    """

    def __init__(
        self,
        classifier: AttributeNetwork,
        extractor: str,
        images: Tensor,
        y: Tensor,
        groups: Mapping[str, NDArray[np.bool_]],
        *,
        resamples: int = 50,
        batch_size: int = 256,
        seed: int = 0,
    ) -> None:
        self._classifier, self._extractor = classifier, extractor
        self._images, self._y, self._groups = images, y.double().numpy(), groups
        self._resamples, self._batch_size, self._seed = resamples, batch_size, seed
        self._real = predict_attributes(classifier, images, batch_size)
        self._ceilings = {group: self._score(self._real, 1, group) for group in groups}

    def real_rows(self) -> list[Row]:
        """What real images score themselves: ceilings of attribute scores, floors of distances."""
        rows = [
            score_row(
                f"attribute_{found.metric}", found.score, attribute=found.attribute, group=group
            )
            for group, scores in self._ceilings.items()
            for found in scores
        ]
        floors = frechet_of_halves(
            self._real.features,
            self._y,
            self._classifier.attributes,
            extractor=self._extractor,
            resamples=self._resamples,
            seed=self._seed,
        )
        rows += [
            score_row("frechet_distance_of_halves", score, attribute=value)
            for value, score in floors.items()
        ]
        return [row | {"pixels": "real", "k": 1, "extractor": self._extractor} for row in rows]

    def sample_rows(self, drawn: Tensor) -> list[Row]:
        """Every score of samples uint8 (S,N,C,H,W) of the N conditions y, S >= 2."""
        if drawn.ndim != 5 or drawn.shape[1:] != self._images.shape or drawn.dtype != torch.uint8:
            raise ConfigurationError(
                f"samples of type {drawn.dtype} and shape {tuple(drawn.shape)}: expected torch.uint8 "
                f"and (S, {', '.join(map(str, self._images.shape))})"
            )
        found = predict_attributes(self._classifier, drawn.flatten(0, 1), self._batch_size)
        features = found.features.reshape(*drawn.shape[:2], -1)
        rows = self._attribute_rows(found, len(drawn)) + self._distance_rows(features)
        return rows + self._diversity_rows(features, drawn.flatten(2).numpy())

    def _score(self, found: AttributePredictions, draws: int, group: str) -> list[AttributeScore]:
        """Scores of predictions (draws * N), of one group."""
        rows = np.tile(self._groups[group], draws)
        return score_attributes(
            found.values[rows],
            np.tile(self._y, (draws, 1))[rows],
            self._classifier.attributes,
            probabilities=[None if p is None else p[rows] for p in found.probabilities],
            clusters=np.tile(np.arange(len(self._y)), draws)[rows],
        )

    def _attribute_rows(self, found: AttributePredictions, draws: int) -> list[Row]:
        rows = []
        for group in self._groups:
            ceilings = {(c.metric, c.attribute): c.score for c in self._ceilings[group]}
            for own in self._score(found, draws, group):
                scores = {f"attribute_{own.metric}": own.score}
                ceiling = ceilings.get((own.metric, own.attribute))
                if ceiling is not None and own.metric not in _ERRORS:
                    share = relative_score(own.score, ceiling)
                    scores[f"attribute_{own.metric}_of_ceiling"] = share
                rows += [
                    score_row(
                        metric,
                        score,
                        attribute=own.attribute,
                        group=group,
                        k=draws,
                        extractor=self._extractor,
                    )
                    for metric, score in scores.items()
                ]
        return rows

    def _distance_rows(self, features: NDArray[np.float32]) -> list[Row]:
        """Of the first draw of each condition: as many images as there are real ones."""
        found = frechet_by_value(
            features[0],
            self._y,
            self._real.features,
            self._y,
            self._classifier.attributes,
            extractor=self._extractor,
            resamples=self._resamples,
            seed=self._seed,
        )
        return [
            score_row("frechet_distance", score, attribute=value, k=1, extractor=self._extractor)
            for value, score in found.items()
        ]

    def _diversity_rows(
        self, features: NDArray[np.float32], pixels: NDArray[np.uint8]
    ) -> list[Row]:
        """Of features (S,N,D) and of pixels (S,N,C*H*W)."""
        rows = []
        for name, drawn, real, extractor in (
            ("features", features, self._real.features, self._extractor),
            ("pixels", pixels, self._images.flatten(1).numpy(), None),
        ):
            spread = relative_diversity(pair_distances(drawn), real, self._y, seed=self._seed)
            if spread is not None:
                rows.append(
                    score_row(f"diversity_{name}", spread, k=len(drawn), extractor=extractor)
                )
        return rows


def score_row(
    metric: str,
    score: ScoreValue,
    *,
    attribute: str = ALL,
    group: str = ALL,
    k: int | None = None,
    extractor: str | None = None,
) -> Row:
    """Make a row; what a metric does not depend on is None.

    Args:
        metric: Its name.
        score: Value, standard error, n.
        attribute: ``all``, a name, or a name and value (``class=3``).
        group: ``all`` or the rows it is restricted to.
        k: Number of draws of each case.
        extractor: The classifier whose predictions or features it is made of.
    """
    return {
        "metric": metric,
        "attribute": attribute,
        "group": group,
        "pixels": None,
        "value": score.value,
        "standard_error": score.standard_error,
        "n": score.n,
        "k": k,
        "temperature": None,
        "guidance": None,
        "extractor": extractor,
    }
