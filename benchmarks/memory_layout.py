"""Channels first against channels last: process time of a training step and of sampling.

    python benchmarks/memory_layout.py [--architecture digits16] [--threads 1]

Both layouts are measured in turn in one process; read the ratios, not the seconds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from condvae.ipa import ConditionalModel, PartialEncoder, forward_kl, run_trunk
from condvae.training.initial import new_vae
from condvae.vdvae import ARCHITECTURES, LatentGroup


def noise(group: LatentGroup) -> torch.Tensor:
    """Standard normal noise."""
    return torch.randn(group.latent_shape)


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median process time of one call."""
    work()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times)


def measure(name: str, memory_format: torch.memory_format, batch: int, repeats: int) -> list[float]:
    """Times of a pretraining step, a conditional step and sampling."""
    architecture = ARCHITECTURES[name]
    vae = new_vae(architecture, 60.0, 90.0, 0).to(memory_format=memory_format)
    partial = PartialEncoder(vae, architecture.channels + 1).to(memory_format=memory_format)
    size = architecture.image_size
    pixels = torch.randint(0, 256, (batch, architecture.channels, size, size), dtype=torch.uint8)
    condition = torch.randn(batch, architecture.channels + 1, size, size)
    pretraining = seconds(
        lambda: vae.elbo(pixels, noise).negative_elbo_nats.mean().backward(), repeats
    )
    vae.requires_grad_(False)
    conditional = seconds(
        lambda: forward_kl(run_trunk(vae, pixels, noise), partial, condition).sum().backward(),
        repeats,
    )
    model = ConditionalModel(vae, partial)
    with torch.no_grad():
        sampling = seconds(
            lambda: model.sample_output(partial.encode(condition), batch, noise), repeats
        )
    return [pretraining, conditional, sampling]


def main() -> None:
    """Print one line per kind of work."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", default="digits16", choices=sorted(ARCHITECTURES))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rounds = [
        [
            measure(arguments.architecture, layout, arguments.batch, arguments.repeats)
            for layout in (torch.contiguous_format, torch.channels_last)
        ]
        for _ in range(3)
    ]
    for index, work in enumerate(("pretraining step", "conditional step", "sampling")):
        ratios = [last[index] / first[index] for first, last in rounds]
        first = statistics.median(r[0][index] for r in rounds)
        print(
            f"{work:17} channels first {first:.3f} s, "
            f"channels last / first {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
