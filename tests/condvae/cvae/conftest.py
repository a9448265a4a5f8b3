"""Small flat models and images whose look depends on their attributes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from condvae.cvae.config import CvaeConfig
from condvae.cvae.model import FlatVAE, new_cvae
from condvae.cvae.training import TrainingImages
from condvae.ground.attributes import Attribute, AttributeTable
from condvae.ground.images import DataContract

ATTRIBUTES = (
    Attribute("shade", ("dark", "middle", "bright")),
    Attribute("tilt", mean=2.0, std=3.0),
)
SMALL = {"latents": 3, "width": 4, "features": 8, "prior_layers": 2, "prior_hidden": 8}
SMALL |= {"prior_components": 3, "mixtures": 3}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_config():
    """A function that makes the settings of a small model; arguments replace them."""

    def make(**changes) -> CvaeConfig:
        return CvaeConfig(**{**SMALL, **changes})

    return make


@pytest.fixture
def make_cvae(make_config):
    """A function that makes a small model with no zero weights; arguments replace its settings."""

    def make(*, seed=0, dtype=torch.float64, channels=1, size=8, **changes) -> FlatVAE:
        contract = DataContract(channels, size, 120.0, 60.0)
        model = new_cvae(make_config(**changes), ATTRIBUTES, contract, seed)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        return model.to(dtype)

    return make


@pytest.fixture
def make_conditions():
    """A function that makes conditions (B,2), some values unknown."""

    def make(batch, seed=0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        shade = torch.randint(3, (batch,), generator=generator).float()
        y = torch.stack([shade, torch.randn(batch, generator=generator)], dim=1)
        return y.masked_fill(torch.rand(y.shape, generator=generator) < 0.2, math.nan)

    return make


@pytest.fixture
def training_images():
    """24 images of 8x8, grey level by shade and a slope by tilt; 16 to train on, 5 to validate on."""
    rng = np.random.default_rng(0)
    shade, tilt = rng.integers(3, size=24), rng.standard_normal(24)
    ramp = np.linspace(-1, 1, 8)[None, None, :, None]
    levels = 60 + 60 * shade[:, None, None, None] + 30 * tilt[:, None, None, None] * ramp
    noisy = levels + rng.normal(0, 4, (24, 8, 8, 1))
    values = torch.from_numpy(np.stack([shade, tilt], axis=1)).float()
    return TrainingImages(
        np.clip(noisy.round(), 0, 255).astype(np.uint8),
        AttributeTable(ATTRIBUTES, values),
        np.arange(16),
        np.arange(16, 21),
        "stand-in",
    )
