import numpy as np
import pytest
import torch

from condvae.metrics.cases import EvaluationCase
from condvae.metrics.feature_network import FeatureNetwork
from condvae.tasks.masks import bin_of


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_case():
    """A function that makes a case whose first rows of pixels are observed."""

    def make(number, image, observed_rows, size=10):
        mask = np.zeros((size, size), dtype=bool)
        mask[:observed_rows] = True
        return EvaluationCase(
            f"q-{number}", image, "0" * 64, mask, 100 + number, bin_of(float(mask.mean()))
        )

    return make


@pytest.fixture
def network():
    """A feature network with random weights: 4 features, 3 classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return FeatureNetwork(1, 3, features=4).eval()
