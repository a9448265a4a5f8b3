import numpy as np
import pytest
import torch

from condvae.evaluation import Calibrator, Extractors
from condvae.evaluation.cases import EvaluationCase
from condvae.masks.kinds import bin_of
from condvae.scores.extractors import Extractor
from condvae.scores.feature_network import FeatureNetwork


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
            f"q-{number}", image, f"{image:064x}", mask, 100 + number, bin_of(float(mask.mean()))
        )

    return make


@pytest.fixture
def make_network():
    """A function that makes a feature network with random weights: 4 features, 3 classes.

    In float64, so that the batch an image comes in does not show in float32 features.
    """

    def make(channels=1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            network = FeatureNetwork(channels, 3, features=4).eval().double()
            noise = torch.randint(256, (32, channels, 16, 16), dtype=torch.uint8)
            # Without this all images are of one class.
            with torch.no_grad():
                network.classify.bias -= network(noise)["logits"].mean(dim=0)
            return network

    return make


@pytest.fixture
def network(make_network):
    return make_network()


@pytest.fixture
def make_extractors():
    """A function that makes extractors out of one feature network."""

    def make(network):
        one = Extractor("toy", "none", network, "features", ("block1", "block2", "block3"))
        return Extractors(network, one, one)

    return make


@pytest.fixture
def extractors(network, make_extractors):
    return make_extractors(network)


class ArraySource:
    """Completions (S,N,C,H,W) made before, without a likelihood; remembers what was drawn."""

    identity = "array"

    def __init__(self, completions):
        self.array = completions
        self.drawn = []

    @property
    def completions(self):
        return len(self.array)

    def draw(self, start, stop):
        self.drawn.append((start, stop))
        return self.array[:, start:stop]

    def bound(self, start, stop):
        return None


@pytest.fixture
def array_source():
    """A source of given completions."""
    return ArraySource


@pytest.fixture
def make_calibrator(network, make_pixels):
    """A function that makes a calibrator with a bank of six random images."""

    def make(cases, truths, *, bank=None, network=network, seed=5):
        if bank is None:
            bank = make_pixels(6, *truths.shape[1:3], seed=77)
        return Calibrator(cases, truths, bank, network, seed)

    return make
