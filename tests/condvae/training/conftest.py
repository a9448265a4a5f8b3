import numpy as np
import pytest
import torch

from condvae.ipa import PartialEncoder, initialise
from condvae.tasks.inpainting import Inpainting
from condvae.training.config import TrainingConfig
from condvae.training.initial import new_vae
from condvae.training.objectives import ForwardKL
from condvae.training.pretraining import NegativeElbo
from condvae.vdvae import ARCHITECTURES

IMAGES = 12
TRAINING, VALIDATION = np.arange(8), np.arange(8, IMAGES)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def images():
    """(12,16,16,1), each a checkerboard of four grey levels plus a little noise."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(20, 236, (IMAGES, 2, 2, 1))
    fine = coarse.repeat(8, axis=1).repeat(8, axis=2)
    return (fine + rng.integers(-4, 5, fine.shape)).astype(np.uint8)


@pytest.fixture(scope="session")
def masks():
    """bool (12,16,16), about half of the pixels observed."""
    return np.random.default_rng(1).random((IMAGES, 16, 16)) < 0.5


@pytest.fixture
def vae():
    return new_vae(ARCHITECTURES["tiny16"], 127.5, 64.0, seed=0)


@pytest.fixture
def make_elbo(vae, images):
    def make(config=None, *, seed=0):
        config = config or TrainingConfig(batch_size=8)
        return NegativeElbo(vae, images, TRAINING, VALIDATION, config, seed)

    return make


@pytest.fixture
def make_forward_kl(vae, images, masks):
    def make(config=None, *, seed=0, frozen=vae):
        config = config or TrainingConfig(batch_size=8)
        task = Inpainting()
        partial = PartialEncoder(frozen, task.condition_channels(frozen.contract))
        initialise(partial, frozen, "random", 1)
        return ForwardKL(
            frozen,
            partial,
            task,
            images,
            TRAINING,
            VALIDATION,
            masks[TRAINING],
            masks[VALIDATION],
            config,
            seed,
        )

    return make
