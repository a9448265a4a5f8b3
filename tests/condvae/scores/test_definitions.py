from __future__ import annotations

import numpy as np
import pytest

from condvae.evaluation.case_scores import _class_scores
from condvae.scores.definitions import METRICS


@pytest.mark.parametrize("metric", ["class_nll", "class_brier"])
def test_class_scores_are_called_proper_where_they_are(metric):
    # Two classes, the first with probability 0.7, two completions: all cases written out.
    completions = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]).T
    scores = [_class_scores(completions, np.full(4, label), 2)[metric] for label in (0, 1)]
    sampled = np.linspace(0.01, 0.99, 99)
    chances = [sampled**2, sampled * (1 - sampled), sampled * (1 - sampled), (1 - sampled) ** 2]
    expected = (0.7 * scores[0] + 0.3 * scores[1]) @ chances
    best = sampled[np.argmin(expected)]
    assert METRICS[metric].proper == (best == pytest.approx(0.7))
    if metric == "class_nll":
        assert best > 0.75  # over-confidence is rewarded


def test_bounds_leave_room():
    for definition in METRICS.values():
        low, high = definition.bounds
        assert low is None or low == 0
        assert high in (None, 1, 255)
        if definition.unit.startswith("share"):
            assert definition.bounds == (0, 1)
