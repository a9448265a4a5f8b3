"""Full-size published models on a processor: load a checkpoint, sample an image, train one step.

    python benchmarks/full_size.py [--presets cifar10 ffhq256] [--threads 2] [--batch 1]

Writes a conditional model with random weights in the official layout, and in a process of its own
loads it strictly, completes one half-seen image and takes one training step of the partial encoder.
Prints one table: seconds of each by the clock (of processor time: the ones to read on a busy
machine), and the most memory that was resident until its end. ffhq256 needs about 9 GiB.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from condvae.ground.devices import place
from condvae.ipa import ConditionalModel, PartialEncoder
from condvae.models.official_layout import (
    load_official_conditional,
    merge_conditional,
    write_official,
)
from condvae.models.presets import PRESETS, preset_named
from condvae.posterior.image_posterior import ImagePosterior
from condvae.tasks.inpainting import Inpainting
from condvae.training.objectives import ForwardKL
from condvae.vdvae import VDVAE

T = TypeVar("T")


def write_random(name: str, path: Path) -> None:
    """Write a conditional model that was never trained, as the official code would."""
    torch.manual_seed(0)
    preset = preset_named(name)
    vae = VDVAE(preset.shape, preset.contract)
    partial = PartialEncoder(vae, 4)
    state = merge_conditional(vae.state_dict(), partial.state_dict())
    write_official(path, {f"module.{key}": value for key, value in state.items()})


def peak_mib() -> int:
    """Largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1024 if sys.platform != "darwin" else 1024**2))


def train_step(vae: VDVAE, partial: PartialEncoder, name: str, batch: int) -> tuple[float, float]:
    """One update of the partial encoder with the preset's settings on a batch of noise.

    Returns:
        Loss in nats per dimension, and the norm of its gradient.
    """
    settings = preset_named(name).conditional or preset_named(name).unconditional
    config = dataclasses.replace(settings, batch_size=batch, steps=1)
    size = vae.contract.size
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(batch, size, size, 3), dtype=np.uint8)
    masks = rng.random((4, size, size)) < 0.5
    rows = np.arange(batch)
    objective = ForwardKL(vae, partial, Inpainting(), images, rows, rows, masks, masks, config, 0)
    optimizer = torch.optim.AdamW(
        partial.parameters(),
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
    )
    loss, _ = objective.loss(0)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(partial.parameters(), config.clip_norm)
    optimizer.step()
    return float(loss.detach()), float(norm)


def measure(name: str, path: Path, batch: int, threads: int) -> dict[str, Any]:
    """Seconds and peak memory of loading, sampling and training."""
    torch.set_num_threads(threads)
    result: dict[str, Any] = {"preset": name, "file_mib": round(path.stat().st_size / 2**20)}

    def timed(what: str, work: Callable[[], T]) -> T:
        start, start_cpu = time.perf_counter(), time.process_time()
        value = work()
        seconds, processor = time.perf_counter() - start, time.process_time() - start_cpu
        result[what] = f"{seconds:.1f} s ({processor:.1f}), {peak_mib():,} MiB"
        return value

    vae, partial = timed("load", lambda: load_official_conditional(path, preset_named(name)))
    for module in (vae, partial):
        place(module, "cpu")
        count = sum(p.numel() for p in module.parameters())
        result[f"{'vae' if module is vae else 'partial'}_parameters"] = count
    posterior = ImagePosterior(ConditionalModel(vae, partial), Inpainting())
    size = vae.contract.size
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (1, 3, size, size), generator=generator, dtype=torch.uint8)
    mask = torch.zeros(1, 1, size, size, dtype=torch.bool)
    mask[..., : size // 2] = True
    observation = posterior.observe(pixels, mask)
    sample = timed("sample", lambda: posterior.sample(observation, 1))
    assert sample.shape == (1, 1, 3, size, size)
    assert torch.equal(sample[0] * mask, pixels * mask)
    loss, norm = timed("step", lambda: train_step(vae, partial, name, batch))
    result["loss"] = f"{loss:.3g}, {norm:.3g}"
    return result


def _measure_into(queue: Any, *arguments: Any) -> None:
    queue.put(measure(*arguments))


def format_table(results: list[dict[str, Any]]) -> str:
    """Markdown, one row for each preset."""
    columns = {
        "preset": "preset",
        "vae_parameters": "parameters: frozen VAE",
        "partial_parameters": "partial encoder",
        "file_mib": "file, MiB",
        "load": "load: seconds (processor), peak memory",
        "sample": "sample one image",
        "step": "one training step",
        "loss": "loss (nats/dim), gradient norm",
    }
    rows = [list(columns.values()), ["---"] * len(columns)]
    for result in results:
        values = (result[name] for name in columns)
        rows.append([f"{value:,}" if isinstance(value, int) else value for value in values])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    both = ["cifar10", "ffhq256"]
    parser.add_argument("--presets", nargs="+", default=both, choices=list(PRESETS))
    parser.add_argument("--batch", type=int, default=1, help="images of the training step")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    results = []
    spawn = multiprocessing.get_context("spawn")  # memory of one part must not count for the next
    for name in arguments.presets:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model-ema.th"
            writer = spawn.Process(target=write_random, args=(name, path))
            writer.start()
            writer.join()
            if writer.exitcode:
                raise SystemExit(f"{name}: writing the file ended with {writer.exitcode}")
            queue = spawn.SimpleQueue()
            reader = spawn.Process(
                target=_measure_into,
                args=(queue, name, path, arguments.batch, arguments.threads),
            )
            reader.start()
            reader.join()
            if reader.exitcode:
                raise SystemExit(f"{name}: measuring ended with {reader.exitcode}")
            results.append(queue.get())
    print(f"{arguments.threads} threads, training batch of {arguments.batch}\n")
    print(format_table(results))


if __name__ == "__main__":
    main()
