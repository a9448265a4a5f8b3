"""The core rooms work where only PyTorch, NumPy and Pillow are installed."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# What PyTorch itself imports may be found; everything else that is installed may not.
SCRIPT = """
import importlib, pkgutil, sys

ALLOWED = set(sys.stdlib_module_names) | {
    "condvae", "torch", "numpy", "PIL",
    "torchgen", "functorch", "typing_extensions", "sympy", "mpmath", "networkx", "jinja2",
    "markupsafe", "fsspec", "filelock", "setuptools", "pkg_resources", "triton", "nvidia",
}
CLOSED_ROOMS = (
    "condvae.data", "condvae.scores", "condvae.plots", "condvae.models", "condvae.priors",
    "condvae.transport",
)


class Blocker:
    def __init__(self, finders):
        self.finders = finders
        self.refused = set()

    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        closed = any(name == room or name.startswith(room + ".") for room in CLOSED_ROOMS)
        # Modules that installers and builds of Python put beside the standard library.
        if closed or (top not in ALLOWED and not top.startswith(("__editable__", "_sysconfigdata"))):
            self.refused.add(name)
            return None
        for finder in self.finders:
            find = getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find else None
            if spec is not None:
                return spec
        return None


blocker = Blocker(list(sys.meta_path))
sys.meta_path[:] = [blocker]
for name in ("scipy", "safetensors", "yaml", "torchvision", "tqdm", "condvae.scores"):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        continue
    raise SystemExit(f"{name} was not blocked")

names = []
for room in sys.argv[1:]:
    module = importlib.import_module(room)
    names.append(room)
    for found in pkgutil.walk_packages(getattr(module, "__path__", []), room + "."):
        importlib.import_module(found.name)
        names.append(found.name)

import torch
from condvae.ipa import ConditionalModel, PartialEncoder, forward_kl, run_trunk
from condvae.ground.images import DataContract
from condvae.posterior.image_posterior import ImagePosterior
from condvae.tasks import Inpainting
from condvae.vdvae import VDVAE, architecture_named

torch.manual_seed(0)
torch.set_num_threads(1)
vae = VDVAE(architecture_named("tiny16"), DataContract(1, 16, 100.0, 50.0))
pixels = torch.randint(256, (2, 1, 16, 16), dtype=torch.uint8)
mask = torch.zeros(2, 1, 16, 16, dtype=torch.bool)
mask[..., :8] = True


def noise(group):
    return torch.randn(group.latent_shape)


def step(module, loss):
    before = [p.clone() for p in module.parameters()]
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    loss().backward()
    optimizer.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, module.parameters()))


step(vae, lambda: vae.elbo(pixels, noise).negative_elbo_nats.mean())
vae.requires_grad_(False)
partial = PartialEncoder(vae, 2)
posterior = ImagePosterior(ConditionalModel(vae, partial), Inpainting())
observation = posterior.observe(pixels, mask)
step(partial, lambda: forward_kl(run_trunk(vae, pixels, noise), partial, observation.condition).mean())
assert posterior.sample(observation, 2).shape == (2, 2, 1, 16, 16)
posterior.summarise(observation, 2)
posterior.bound(pixels, observation)
print(len(names), "modules")
"""


def core_rooms():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (contract,) = (c for c in contracts["contracts"] if "core rooms" in c["name"])
    return contract["source_modules"]


def test_contract_lists_the_core_rooms():
    assert {"condvae.vdvae", "condvae.ipa", "condvae.posterior"} <= set(core_rooms())


def test_core_rooms_run_with_everything_else_blocked():
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, *core_rooms()],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout.split()[0]) >= 25


@pytest.mark.parametrize("name", ["ImagePosterior", "Inpainting", "load_posterior", "load_vae"])
def test_names_of_the_package(name):
    import condvae

    assert name in condvae.__all__
    assert getattr(condvae, name).__name__ == name


def test_unknown_name_of_the_package():
    import condvae

    with pytest.raises(AttributeError, match="no attribute 'load_model'"):
        _ = condvae.load_model


def test_importing_the_package_is_light():
    code = "import condvae, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
