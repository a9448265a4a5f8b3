"""What every test gets: seeded generators, the folder of golden vectors, small models."""

from __future__ import annotations

import dataclasses
import logging
import os
import random
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from condvae.ground.images import DataContract
from condvae.ipa import ConditionalModel, PartialEncoder
from condvae.posterior.image_posterior import ImagePosterior
from condvae.tasks import Inpainting
from condvae.vdvae import ARCHITECTURES, VDVAE


def pytest_collection_modifyitems(items):
    """Begin with the files that take longest, so that the test processes end together."""
    items.sort(key=lambda item: "end_to_end" not in item.path.parts)


@pytest.fixture(autouse=True)
def reset_randomness():
    """Seed the global generators for one test and put them back as they were afterwards."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    torch.set_rng_state(states[2])


@pytest.fixture
def no_log_lines():
    """Keep messages below warnings away from what is printed: Kedro's configuration prints them."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    yield
    logging.disable(before)


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """Folder of golden vectors and data sets; the test skips where it is absent."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("CONDVAE_SHARED", beside))
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}: set CONDVAE_SHARED to the golden vectors")
    return folder


@pytest.fixture(scope="session")
def stand_ins() -> SimpleNamespace:
    """Builders of tiny data sets: `stand_ins.cifar10` is `make_cifar10` in `stand_ins.py`."""
    defined = runpy.run_path(str(Path(__file__).with_name("stand_ins.py")))
    return SimpleNamespace(**{name.removeprefix("make_"): what for name, what in defined.items()})


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A stand-in for the Hugging Face hub, see `Hub` in ``hub_server.py``; the cache is empty."""
    constants = pytest.importorskip("huggingface_hub.constants")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    hub = runpy.run_path(str(Path(__file__).with_name("hub_server.py")))["Hub"]()
    hub.start()
    # HF_ENDPOINT is read when the library is imported.
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    template = f"{hub.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
    monkeypatch.setenv("CONDVAE_CACHE", str(tmp_path / "cache"))
    yield hub
    hub.stop()


def randomise(module: torch.nn.Module, seed: int, scale: float = 0.2) -> None:
    """Move every parameter away from its initial value, so that none is zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))


@pytest.fixture
def make_vae():
    """A function that makes a small VAE with no zero weights; arguments replace hyper-parameters."""

    def make(*, seed=0, dtype=torch.float64, bits=8, scale=0.2, **changes) -> VDVAE:
        architecture = dataclasses.replace(ARCHITECTURES["tiny16"], **changes)
        contract = DataContract(architecture.channels, architecture.image_size, 110.0, 60.0, bits)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            vae = VDVAE(architecture, contract)
        randomise(vae, seed, scale)
        return vae.to(dtype)

    return make


@pytest.fixture
def make_posterior(make_vae):
    """A function that makes a posterior over a small VAE, its partial encoder random as well."""

    def make(*, seed=0, dtype=torch.float64, **changes) -> ImagePosterior:
        vae = make_vae(seed=seed, dtype=dtype, **changes).requires_grad_(False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            partial = PartialEncoder(vae, vae.contract.channels + 1)
        randomise(partial, seed + 1)
        return ImagePosterior(ConditionalModel(vae, partial.to(dtype)), Inpainting())

    return make


@pytest.fixture
def make_pixels():
    """A function that makes random uint8 images (B,C,H,W)."""

    def make(batch=3, channels=1, size=16, seed=0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(
            256, (batch, channels, size, size), generator=generator, dtype=torch.uint8
        )

    return make


@pytest.fixture
def make_noise():
    """A function that makes noise whose row b is the same in every batch; see `VDVAE.elbo`."""

    def make(seed=0, rows=None, dtype=torch.float64):
        def noise(group):
            batch, *shape = group.latent_shape
            names = range(batch) if rows is None else rows
            draws = [
                torch.randn(
                    shape,
                    generator=torch.Generator().manual_seed(seed * 10007 + group.index * 101 + b),
                    dtype=dtype,
                )
                for b in names
            ]
            return torch.stack(draws)

        return noise

    return make
