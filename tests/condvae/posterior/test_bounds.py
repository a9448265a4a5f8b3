from __future__ import annotations

import math

import pytest
import torch

from condvae.posterior.bounds import BoundTerms, ObservationTerms


def test_bound_terms():
    terms = BoundTerms(
        rate_nats=torch.tensor([[1.0, 2.0], [0.0, 4.0]]).double(),
        predicted_nats=torch.tensor([5.0, 6.0]).double(),
        all_nats=torch.tensor([7.0, 8.0]).double(),
        predicted_dimensions=torch.tensor([3, 0]),
        dimensions=4,
    )
    assert terms.bound_bits.tolist() == pytest.approx([8 / math.log(2), 10 / math.log(2)])
    assert terms.negative_elbo_nats_per_dim.tolist() == [2.5, 3.0]


def test_observation_terms():
    terms = ObservationTerms(
        rate_nats=torch.tensor([[1.0, 2.0], [0.0, 4.0], [0.5, 0.5]]).double(),
        observed_nats=torch.tensor([5.0, 0.0, 1.0]).double(),
        observed_dimensions=torch.tensor([2, 0, 4]),
    )
    bits = terms.bits_per_observed_dim.tolist()
    assert bits[0] == pytest.approx(4 / math.log(2))
    assert math.isnan(bits[1])
    assert bits[2] == pytest.approx(0.5 / math.log(2))
