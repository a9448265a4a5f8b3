from __future__ import annotations

import pytest
import torch

from condvae.ground.configuration import ConfigurationError
from condvae.ground.images import DataContract
from condvae.training.initial import new_vae
from condvae.vdvae import ARCHITECTURES

TINY = ARCHITECTURES["tiny16"]


def test_contract_is_as_told():
    assert new_vae(TINY, 110.0, 60.0, 0).contract == DataContract(1, 16, 110.0, 60.0, 8)
    vae = new_vae(TINY, 110.0, 60.0, 0, bits=5)
    assert vae.contract.bits == vae.likelihood.bits == 5


def test_bits_that_no_likelihood_has_are_refused():
    with pytest.raises(ConfigurationError, match="bits = 6: expected one of 5, 8"):
        new_vae(TINY, 110.0, 60.0, 0, bits=6)


def test_weights_follow_the_seed_and_nothing_else():
    state = torch.get_rng_state()
    first = new_vae(TINY, 110.0, 60.0, 3).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    again = new_vae(TINY, 80.0, 90.0, 3, bits=5).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in first.items())
    other = new_vae(TINY, 110.0, 60.0, 4).state_dict()
    assert any(not torch.equal(value, other[key]) for key, value in first.items())
