"""Labels that training hides: "unknown" is learned, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from condvae.ipa import PartialEncoder, initialise
from condvae.tasks import ClassLabel, SideInformation
from condvae.training import TrainingConfig
from condvae.training.objectives import ForwardKL

TRAINING, VALIDATION = np.arange(8), np.arange(8, 12)
LABELS = np.arange(12) % 3


@pytest.fixture
def make(make_vae, images, masks):
    """A function that makes the objective for labels of which a share is hidden."""

    def make(hidden, labels=LABELS):
        vae = make_vae()
        partial = PartialEncoder(vae, 4)
        initialise(partial.double(), vae, "random", 1)
        return ForwardKL(
            *(vae, partial, ClassLabel(3, hidden), images, TRAINING, VALIDATION),
            *(masks[TRAINING], masks[VALIDATION], TrainingConfig(batch_size=4), 5),
            SideInformation(labels=labels),
        )

    return make


def test_training_sees_unknown_classes_and_validation_does_not(make):
    shown, all_hidden, half = make(0.0), make(1.0), make(0.5)
    unknown = make(0.0, np.full(12, -1))
    for step in (0, 3):
        loss = all_hidden.loss(step)[0]
        torch.testing.assert_close(loss, unknown.loss(step)[0], rtol=1e-12, atol=0)
        assert not torch.isclose(loss, shown.loss(step)[0], rtol=1e-6)
        assert half.loss(step)[0] == half.loss(step)[0]
    assert all_hidden.validate() == shown.validate()
    assert all_hidden.validate() != unknown.validate()
