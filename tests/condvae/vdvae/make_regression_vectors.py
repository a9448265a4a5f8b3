"""Make the regression vectors: what this project's model gave when it matched the official ones.

    python tests/condvae/vdvae/make_regression_vectors.py [--folder tests/condvae/vdvae/regression]

Run it only after a change of the results that is meant, and when the golden vectors of the official
implementations still agree (``tests/condvae/ipa/test_golden_vectors.py``). Weights, images,
masks and noise come from an integer hash, not from a library's generator, so that they are the same
everywhere and for ever.
"""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from condvae.ground.images import DataContract, encoder_input, likelihood_target
from condvae.ipa import ConditionalModel, PartialEncoder
from condvae.ipa.model import run_trunk
from condvae.ipa.objective import forward_kl
from condvae.vdvae import VDVAE, Architecture

FOLDER = Path(__file__).parent / "regression"
BATCH = 2


@dataclass(frozen=True)
class Case:
    """A tiny colour model."""

    architecture: Architecture
    bits: int


CASES = {
    "plain8": Case(
        Architecture(
            image_size=8,
            channels=3,
            width=16,
            latent_channels=3,
            encoder="8x2,8d2,4x1,4d4,1x1",
            decoder="1x2,4m1,4x1,8m4,8x1",
            mixtures=10,
        ),
        bits=8,
    ),
    "widths16": Case(
        Architecture(
            image_size=16,
            channels=3,
            width=8,
            latent_channels=2,
            encoder="16x1,16d2,8x1,8d2,4x1,4d4,1x1",
            decoder="1x1,4m1,4x1,8m4,16m8",
            mixtures=2,
            bias_up_to=4,
            widths="8:12,4:16,1:16",
        ),
        bits=5,
    ),
}


def hashed(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform numbers on [0, 1) that depend on `name` and the position only (splitmix64)."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    x = np.arange(1, int(np.prod(shape)) + 1, dtype=np.uint64)
    x = x * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    return ((x >> np.uint64(11)).astype(np.float64) / 2.0**53).reshape(shape)


def fill(module: torch.nn.Module, name: str) -> None:
    """Give every parameter hashed values, none of them zero."""
    for key, parameter in module.named_parameters():
        values = 2.0 * hashed(f"{name}.{key}", tuple(parameter.shape)) - 1.0
        fan_in = parameter[0].numel() if parameter.ndim == 4 else 1
        scale = 1.5 / fan_in**0.5 if key.endswith("weight") else 0.3
        centre = 1.0 if key == "decoder.gain" else 0.0
        parameter.data = torch.from_numpy(centre + scale * values)
        parameter.requires_grad_(False)


def compute(name: str) -> dict[str, np.ndarray]:
    """Every array of a case, float64; images NCHW."""
    case = CASES[name]
    size = case.architecture.image_size
    contract = DataContract(3, size, 115.0, 65.0, case.bits)
    vae = VDVAE(case.architecture, contract)
    partial = PartialEncoder(vae, 4)
    fill(vae, f"{name}.vae")
    fill(partial, f"{name}.partial")
    pixels = torch.from_numpy((256 * hashed(f"{name}.x", (BATCH, 3, size, size))).astype(np.uint8))
    # Both ends of the range have rules of their own in the likelihood.
    pixels[:, :, 0, :2], pixels[:, :, 0, 2:4] = 0, 255
    mask = torch.from_numpy(np.float64(hashed(f"{name}.mask", (BATCH, 1, size, size)) < 0.5))

    def noise(group):
        values = hashed(f"{name}.noise{group.index}", tuple(group.latent_shape))
        return torch.from_numpy(3.4 * values - 1.7)

    normalised = encoder_input(pixels, contract, torch.float64)
    condition = torch.cat([normalised * mask, mask], dim=1)
    features = partial.encode(condition)
    trunk = run_trunk(vae, pixels, noise, output=True)
    terms = vae.elbo(pixels, noise)
    nats = vae.pixel_nats(trunk.output, pixels)
    parameters = ConditionalModel(vae, partial).sample_output(features, BATCH, noise, 0.8)
    uniform = hashed(f"{name}.uniform", (BATCH, vae.likelihood.noise_channels, size, size))
    arrays = {
        "encoder_input": normalised,
        "likelihood_target": likelihood_target(pixels, contract, torch.float64),
        "decoder_output": trunk.output,
        "likelihood_parameters": vae.decoder.likelihood_parameters(trunk.output)[:1],
        "pixel_nats": nats,
        "unobserved_nats_per_dim": (nats * (1 - mask[:, 0])).sum((1, 2)) / contract.dimensions,
        "kl_from_prior_nats": terms.rate_nats,
        "kl_from_partial_nats": forward_kl(trunk, partial, condition),
        "negative_elbo_nats": terms.negative_elbo_nats,
        "sample": vae.likelihood.sample(parameters, torch.from_numpy(uniform)),
    }
    arrays |= {f"z_{i:02d}": z for i, z in enumerate(trunk.latents)}
    arrays |= {f"full_activations_{r}": a[:1] for r, a in vae.encode(pixels).items()}
    arrays |= {f"partial_activations_{r}": a[:1] for r, a in features.items()}
    return {key: value.numpy() for key, value in arrays.items()}


def main() -> None:
    """Write one file per case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in CASES:
        np.savez_compressed(folder / f"{name}.npz", **compute(name))


if __name__ == "__main__":
    main()
