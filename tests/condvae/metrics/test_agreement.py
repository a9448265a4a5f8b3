from __future__ import annotations

import numpy as np
import pytest

from condvae.configuration import ConfigurationError
from condvae.metrics.agreement import label_agreement, predicted_labels


def test_agreement_by_hand():
    predictions = np.array([[1, 2, 0], [1, 0, 0], [3, 2, 0], [1, 2, 0]])
    np.testing.assert_array_equal(label_agreement(predictions, [1, 2, 5]), [0.75, 0.75, 0.0])


def test_labels_from_logits():
    logits = np.zeros((2, 3, 4))
    logits[0, 1, 3] = 1
    logits[1, 2, 2] = 0.1
    np.testing.assert_array_equal(predicted_labels(logits), [[0, 3, 0], [0, 0, 2]])


@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        (np.zeros((2, 3), int), np.zeros(2, int), r"expected \(S, N\)"),
        (np.zeros((0, 3), int), np.zeros(3, int), "S >= 1"),
        (np.zeros((3, 3), int), np.zeros((3, 3), int), r"expected \(S, N\)"),
        (np.zeros((2, 3)), np.zeros(3, int), "float64.*expected integers"),
    ],
)
def test_bad_shapes_are_refused(predictions, labels, message):
    with pytest.raises(ConfigurationError, match=message):
        label_agreement(predictions, labels)
