"""Heads one after another against one grouped convolution per resolution: time of a training step.

    python benchmarks/batched_heads.py [--architecture digits16] [--threads 1]

Every head is evaluated from the same trunk, so heads of one resolution could share a launch. Both ways
give the same loss; their times are measured in turn in one process.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from condvae.ground.distributions import DiagonalGaussian
from condvae.ipa import PartialEncoder, Trunk, forward_kl, run_trunk
from condvae.training.initial import new_vae
from condvae.vdvae import ARCHITECTURES


def forward_kl_batched(
    trunk: Trunk, partial: PartialEncoder, condition: torch.Tensor
) -> torch.Tensor:
    """The sum of `forward_kl`, heads of one resolution stacked into grouped convolutions."""
    features = partial.encode(condition)
    by_size: dict[int, list[int]] = {}
    for index, h in enumerate(trunk.hidden):
        by_size.setdefault(h.shape[2], []).append(index)
    total = condition.new_zeros(())
    for size, groups in by_size.items():
        x = torch.cat([t for i in groups for t in (trunk.hidden[i], features[size])], dim=1)
        for name in ("c1", "c2", "c3", "c4"):
            layers = [getattr(partial.head(i), name) for i in groups]
            weight = torch.cat([layer.weight for layer in layers])
            bias = torch.cat([layer.bias for layer in layers])
            x = F.conv2d(F.gelu(x), weight, bias, padding=layers[0].padding, groups=len(groups))
        mean, log_std = x.unflatten(1, (len(groups), 2, -1)).unbind(2)
        q = DiagonalGaussian(
            torch.stack([trunk.posteriors[i].mean for i in groups], dim=1),
            torch.stack([trunk.posteriors[i].log_std for i in groups], dim=1),
        )
        total = total + DiagonalGaussian(mean, log_std).kl_from(q).sum()
    return total


def seconds(work: Callable[[], torch.Tensor], repeats: int) -> float:
    """Median process time of forward and backward."""
    work().backward()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work().backward()
        times.append(time.process_time() - start)
    return statistics.median(times)


def main() -> None:
    """Print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", default="digits16", choices=sorted(ARCHITECTURES))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    architecture = ARCHITECTURES[arguments.architecture]
    vae = new_vae(architecture, 60.0, 90.0, 0).requires_grad_(False)
    channels = architecture.channels
    partial = PartialEncoder(vae, channels + 1)
    size = architecture.image_size
    pixels = torch.randint(0, 256, (arguments.batch, channels, size, size), dtype=torch.uint8)
    condition = torch.randn(arguments.batch, channels + 1, size, size)
    trunk = run_trunk(vae, pixels, lambda group: torch.randn(group.latent_shape))
    one = float(forward_kl(trunk, partial, condition).sum().detach())
    both = float(forward_kl_batched(trunk, partial, condition).detach())
    print(f"KL one by one {one:.4f}, batched {both:.4f}")
    ratios = []
    for _ in range(5):
        separate = seconds(lambda: forward_kl(trunk, partial, condition).sum(), arguments.repeats)
        batched = seconds(lambda: forward_kl_batched(trunk, partial, condition), arguments.repeats)
        ratios.append(batched / separate)
    print(
        f"one by one {separate:.3f} s, batched / one by one {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f})"
    )


if __name__ == "__main__":
    main()
