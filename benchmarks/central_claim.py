"""How much training time conditioning a pretrained VAE takes, against training from scratch.

    python benchmarks/central_claim.py [--data digits] [--steps 3200] [--seeds 3] [--workers 1]

Ways to learn c(z | y) (`ARMS`) on the same images, masks, batch size and device. Learning rates are
tried with seed 0 for a third of the steps; the best goes on with all seeds. `published` takes `--steps`
steps, every other arm as many as take the same time; `joint`, the baseline from scratch, goes on until
its bound gains less than 0.5 % over the last fifth of its time. Time is steps times seconds per step,
which are measured apart, the arms in turns, so that other load falls on all of them; evaluation
takes none. The time it took to train the VAE itself is not counted. All use averaged weights.

The bound is the negative ELBO of x given y in nats per dimension, x~ = x, on validation images behind
fixed free-form masks of the published kind, every fifth of the observed share equally often. The
published training draws these masks as they come. By this bound rates are chosen too; those of `ipa_r`,
which minimises another, by its own. Frechet distances are of one completion of each of
320 test cases at the end, with a small network that was trained on the training images.

Killed, the same command goes on. Results: tables (printed, and `tables.md`), `summary.json`,
`curves.csv` and `central_claim.png` in the folder.
"""

from __future__ import annotations

import argparse
import functools
import math
import multiprocessing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from central_claim_bench import ARMS, Bench, Setting
from central_claim_runs import Job, find_costs, on_grid
from central_claim_tables import summarise, write_tables
from condvae.data import DataConfig
from condvae.data.config import FITS
from condvae.ipa import ConditionalModel, UnconditionalLatents
from condvae.models import resolve_vae
from condvae.models.folder import load_vae, read_card

TRIAL = 3  # a learning rate is tried for this part of the steps


@functools.cache
def open_bench(setting: Setting) -> Bench:
    """One for each process."""
    return Bench(setting)


def run_job(task: tuple[Setting, Job]) -> tuple[Job, dict[str, Any]]:
    """A job in a worker."""
    setting, job = task
    return job, job.run(open_bench(setting))


def run_jobs(setting: Setting, jobs: Sequence[Job], workers: int) -> dict[Job, dict[str, Any]]:
    """All results; prints a line for each."""
    tasks = [(setting, job) for job in jobs]
    results = {}
    with multiprocessing.get_context("spawn").Pool(workers) if workers > 1 else _Inline() as pool:
        for job, result in pool.imap_unordered(run_job, tasks):
            results[job] = result
            end = f"bound {result['curve'][-1][1]:.4f}" if result["curve"] else "diverged"
            steps = result["curve"][-1][0] if result["curve"] else job.steps
            print(f"[{len(results)}/{len(jobs)}] {job.name}: {steps} steps, {end}", flush=True)
    return results


class _Inline:
    """A pool of this process alone."""

    imap_unordered = staticmethod(map)

    def __enter__(self) -> _Inline:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def choose_rates(trials: Mapping[Job, Mapping[str, Any]], arms: Sequence[str]) -> dict[str, float]:
    """The rate of every arm whose trial ended lowest."""

    def score(job: Job) -> float:
        found = trials[job]["score"]
        return math.inf if found is None else float(found)

    rates = {name: ARMS[name].rates[0] for name in arms}
    for name in arms:
        tried = [job for job in trials if job.arm == name]
        if tried:
            rates[name] = min(tried, key=score).rate
    return rates


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="digits", help="digits, or NAME:PATH of an .npz")
    parser.add_argument("--limit", type=int, default=5000, help="images of an .npz")
    parser.add_argument("--fit", default="pad", choices=FITS, help="of an .npz, as `data.fit`")
    parser.add_argument("--vae", default="digits", help="registered name or model folder")
    parser.add_argument("--steps", type=int, default=3200, help="of `published`")
    parser.add_argument(
        "--longest", type=float, default=8.0, help="`joint`: times as many, at most"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--workers", type=int, default=1, help="processes, one thread each")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--pool", type=int, default=4096, help="training masks")
    parser.add_argument("--cases-per-bin", type=int, default=64)
    parser.add_argument("--folder", type=Path, default=None)
    return parser.parse_args()


def make_setting(arguments: argparse.Namespace) -> Setting:
    """What the arguments say of images and VAE; pictures get the VAE's size."""
    vae = resolve_vae(arguments.vae)
    contract = read_card(vae, "vae")["data_contract"]
    name, _, path = arguments.data.partition(":")
    shape = {"name": name, "image_size": contract["size"], "channels": contract["channels"]}
    if path:
        shape |= {"source": "npz", "path": path, "limit": arguments.limit, "fit": arguments.fit}
    default = Path("data/08_reporting/central_claim") / f"{name}-{vae.name}"
    return Setting(
        arguments.folder or default,
        DataConfig(**shape),
        vae,
        arguments.pool,
        arguments.cases_per_bin,
        arguments.device,
    )


def main() -> None:
    """Train what is not trained yet; print the tables."""
    arguments = parse_arguments()
    arms = list(dict.fromkeys(["published", *arguments.arms]))
    setting = make_setting(arguments)
    bench = open_bench(setting)
    costs = find_costs(bench)
    steps = {name: on_grid(arguments.steps / costs[name]["ratio"]) for name in arms}
    # From scratch as many steps as `published` are the least, and time is no limit.
    steps |= {"published": arguments.steps, "joint": arguments.steps}
    longest = {**steps, "joint": on_grid(arguments.longest * arguments.steps)}
    trials = [
        Job(name, rate, 0, on_grid(steps[name] / TRIAL))
        for name in arms
        for rate in ARMS[name].rates
        if len(ARMS[name].rates) > 1
    ]
    rates = choose_rates(run_jobs(setting, trials, arguments.workers), arms)
    ends = [
        Job(name, rates[name], seed, steps[name], longest[name])
        for name in sorted(arms, key=lambda name: -longest[name])
        for seed in range(arguments.seeds)
    ]
    done = run_jobs(setting, ends, arguments.workers)
    prior = ConditionalModel(load_vae(setting.vae, bench.device)[0], UnconditionalLatents())
    summary = summarise(
        {name: [done[job] for job in ends if job.arm == name] for name in arms},
        titles={name: ARMS[name].title for name in arms},
        rates=rates,
        costs=costs,
        resolutions=[block.resolution for block in prior.vae.architecture.decoder_blocks],
        prior_bound=float(bench.score(prior, bench.even)[1].mean()),
        facts={
            "data": setting.data.name,
            "vae": str(arguments.vae),
            "device": str(bench.device),
            "torch": torch.__version__,
            "manifest": bench.manifest,
            "extractor": bench.extractor.name,
            "seeds": arguments.seeds,
        },
    )
    write_tables(setting.folder, summary)


if __name__ == "__main__":
    main()
