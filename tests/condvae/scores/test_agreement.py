from __future__ import annotations

import numpy as np
import pytest

from condvae.ground.configuration import ConfigurationError
from condvae.scores.agreement import (
    attribute_agreement,
    label_agreement,
    predicted_labels,
)


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


def test_attributes_that_were_not_asked_for_do_not_count():
    asked = np.array([[1, 0, -1], [0, -1, -1], [-1, -1, -1]])
    predictions = np.zeros((4, 3, 3), int)
    predictions[:3, 0, 0] = 1  # three of four show the first attribute, all lack the second
    predictions[1:, 1, 0] = 1  # one of four lacks it, as it should
    shown, counts = attribute_agreement(predictions, asked)
    np.testing.assert_allclose(shown, [0.75 + 1, 0.25, 0])
    np.testing.assert_array_equal(counts, [2, 1, 0])
    predictions[..., 2] = 1
    np.testing.assert_array_equal(attribute_agreement(predictions, asked)[0], shown)


@pytest.mark.parametrize(
    ("predictions", "asked", "message"),
    [
        (np.zeros((2, 3), int), np.zeros((2, 3), int), r"expected \(S, N, A\)"),
        (np.zeros((0, 3, 1), int), np.zeros((3, 1), int), "S >= 1"),
        (np.zeros((2, 3, 1), int), np.zeros((3, 2), int), r"attributes of shape \(3, 2\)"),
        (np.zeros((2, 3, 1)), np.zeros((3, 1), int), "float64.*expected integers"),
    ],
)
def test_bad_attributes_are_refused(predictions, asked, message):
    with pytest.raises(ConfigurationError, match=message):
        attribute_agreement(predictions, asked)
