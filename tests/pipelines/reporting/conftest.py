"""A made-up evaluation: digits completed by pasting other digits into the holes.

The sampler "ipa" pastes digits of the true class, more surely the more is observed; "untrained"
does so half of the time, "prior" by chance only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits

from condvae.plots import BINS, POOLED

K = 10
MANIFEST = "3f" * 32
EXTRACTOR = "digits_classifier_f2_abababab"
HIT_RATES = {"ipa": 0.8, "untrained": 0.4, "prior": 0.0}


@pytest.fixture(scope="session")
def examples() -> dict[str, np.ndarray]:
    """Three cases per bin, stacked as the evaluation stacks them; digits enlarged to 16 pixels."""
    rng = np.random.default_rng(0)
    digits = load_digits()
    pool = np.rint(digits.images * (255 / 16)).astype(np.uint8).repeat(2, 1).repeat(2, 2)[..., None]
    bins = np.repeat(np.arange(5), 3)
    count = len(bins)
    masks = np.zeros((count, 16, 16), dtype=bool)
    for mask, index in zip(masks, bins, strict=True):
        height = round(16 * (0.2 * index + 0.1))
        top = rng.integers(0, 17 - height)
        mask[top : top + height] = True
    masks[::2] = masks[::2].transpose(0, 2, 1)
    truths, labels = pool[:count], digits.target[:count]
    arrays = {
        "case_ids": np.array([f"{index:05d}-0" for index in range(count)]),
        "bins": bins,
        "labels": labels.astype(str),
        "masks": masks,
        "truths": truths,
    }
    for sampler, rate in HIT_RATES.items():
        hits = rng.random((K, count)) < np.minimum(1.0, rate * (1 + bins / 8))
        same = [rng.choice(np.flatnonzero(digits.target == label), K) for label in labels]
        chosen = np.where(hits, np.stack(same, axis=1), rng.integers(0, len(pool), (K, count)))
        completions = np.where(masks[..., None], truths, pool[chosen])
        arrays[f"completions/{sampler}"] = completions
        arrays[f"mean/{sampler}"] = completions.mean(axis=0, dtype=np.float32)
        arrays[f"standard_deviation/{sampler}"] = completions.std(axis=0, dtype=np.float32)
    return arrays


@pytest.fixture(scope="session")
def metrics() -> pd.DataFrame:
    """Seven metrics with intervals; the Fréchet distance is missing in one bin."""
    levels = {
        "posterior_coverage": (0.9, 0.01, {"ipa": 0.0, "untrained": -0.3, "prior": -0.05}),
        "negative_elbo_nats_per_dim": (2.1, 0.02, {"ipa": 0.0, "untrained": 0.35, "prior": 0.4}),
        "bound_bits_per_unobserved_dim": (2.9, 0.04, {"ipa": 0.0, "untrained": 0.9, "prior": 1.1}),
        "frechet_distance": (9.0, 0.6, {"ipa": 0.0, "untrained": 6.0, "prior": 30.0}),
        "perceptual_best_of_k": (0.12, 0.004, {"ipa": 0.0, "untrained": 0.02, "prior": 0.05}),
        "perceptual_diversity": (0.3, 0.006, {"ipa": 0.0, "untrained": 0.02, "prior": 0.1}),
        "class_agreement": (0.55, 0.018, {"ipa": 0.2, "untrained": 0.05, "prior": -0.2}),
    }
    slopes = {
        "posterior_coverage": 0.0,
        "class_agreement": 0.1,
        "negative_elbo_nats_per_dim": -0.01,
    }
    rows = []
    for metric, (level, error, offsets) in levels.items():
        slope = slopes.get(metric, -0.2 * level)
        for sampler, offset in offsets.items():
            for place, name in enumerate((*BINS, POOLED)):
                pooled = name == POOLED
                share = 0.5 if pooled else 0.1 + 0.2 * place
                value = level + (offset + slope) * share + offset / 3
                lost = metric == "frechet_distance" and name == BINS[0]
                row = {"metric": metric, "bin": name, "sampler": sampler}
                row["value"] = float("nan") if lost else value
                row["standard_error"] = error / (2.2 if pooled else 1.0)
                rows.append(row | {"n": 500 if pooled else 100, "k": K, "temperature": 1.0})
    table = pd.DataFrame(rows).assign(seed=0, manifest=MANIFEST, level=0.95)
    half = 1.96 * table["standard_error"]
    learned = ["frechet_distance", "perceptual_best_of_k", "perceptual_diversity"]
    return table.assign(
        low=table["value"] - half,
        high=table["value"] + half,
        extractor=np.where(table["metric"].isin(learned), EXTRACTOR, "pixels"),
    )


@pytest.fixture(scope="session")
def extremes(examples: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Two best and two worst cases of "ipa"."""
    chosen = [12, 13, 0, 1]
    arrays = {key: examples[key][chosen] for key in ("case_ids", "bins", "labels", "masks")}
    arrays |= {key: examples[key][chosen] for key in ("truths", "mean/ipa")}
    arrays["standard_deviation/ipa"] = examples["standard_deviation/ipa"][chosen]
    arrays["completions/ipa"] = examples["completions/ipa"][:, chosen]
    return arrays | {"scores": np.array([0.5, 0.75, 60.0, 72.5])}


@pytest.fixture(scope="session")
def calibration() -> dict[str, dict[str, Any]]:
    """ "ipa" is calibrated, as far as few images tell; the others are not."""
    points = np.arange(1, 10) / 10
    found = {}
    for sampler, counts in (("ipa", [10, 10]), ("untrained", [18, 2]), ("prior", [3, 17])):
        good = sampler == "ipa"
        verdict: dict[str, Any] = {
            "words": ["calibrated at this n"] if good else ["too narrow", "biased"],
            "summary": "",
            "n": 20,
            "rejected": [] if good else ["pixel_1", "tarp_y_pixels"],
            "visible_bias": None,
            "visible_spread": None,
        }
        seen = verdict | {"n": 100, "visible_bias": 0.4, "visible_spread": 1.5}
        tests = [
            {
                "name": name,
                "n": 20,
                "draws": 9,
                "counts": counts,
                "p_value": 0.5 if good else 1e-4,
                "adjusted_p_value": 1.0 if good else 2e-4,
                "bias": 0.0,
                "spread": 1.0,
                "ecdf": {
                    "points": points.tolist(),
                    "ecdf": points.tolist(),
                    "low": np.maximum(points - 0.3, 0).tolist(),
                    "high": np.minimum(points + 0.3, 1).tolist(),
                    "level": 0.95,
                },
            }
            for name in ("pixel_1", "tarp_y_pixels")
        ]
        coverage = [
            {"group": g, "level": x, "value": x, "standard_error": 0.01, "n": 100}
            for g in (*BINS, POOLED)
            for x in (0.5, 0.9)
        ]
        found[sampler] = {
            "verdicts": {BINS[0]: verdict, BINS[4]: verdict, POOLED: seen},
            "tests": tests,
            "coverage": coverage,
            "classes": None,
        }
    return found


@pytest.fixture(scope="session")
def comparisons(metrics: pd.DataFrame) -> pd.DataFrame:
    """Paired differences of the metrics above; the interval is made up."""
    cells = metrics.set_index(["metric", "bin", "sampler"])["value"]
    rows = []
    for metric in metrics["metric"].unique():
        for name in (*BINS, POOLED):
            for a, b in (("ipa", "untrained"), ("ipa", "prior")):
                difference = cells[metric, name, a] - cells[metric, name, b]
                half = 0.1 * abs(cells[metric, POOLED, a])
                row = {"metric": metric, "bin": name, "sampler_a": a, "sampler_b": b}
                row |= {"difference": difference, "low": difference - half}
                row |= {"high": difference + half, "level": 0.95}
                row["relative_difference"] = difference / cells[metric, name, b]
                rows.append(row | {"n": 500 if name == POOLED else 100})
    return pd.DataFrame(rows)


@pytest.fixture(scope="session")
def training_history() -> list[dict[str, float | None]]:
    """Two hundred rows with a noisy, falling loss."""
    rng = np.random.default_rng(1)
    rows: list[dict[str, float | None]] = []
    for index in range(1, 201):
        loss = 1.2 + 2.0 * float(np.exp(-index / 40)) + 0.05 * float(rng.normal())
        row: dict[str, float | None] = {"step": 10 * index, "images_seen": 640 * index}
        row |= {"loss": loss, "train/images_per_second": 900 + 30 * float(rng.normal())}
        row["validation/loss"] = loss + 0.02 if index % 20 == 0 else None
        rows.append(row)
    return rows


@pytest.fixture(scope="session")
def run_facts() -> dict[str, object]:
    """Facts of a run, with every known key."""
    return {
        "task": "inpaint",
        "command": "kedro run --pipeline inpaint --env base",
        "data": {"name": "digits", "images": {"train": 1257, "validation": 270, "test": 270}},
        "weights": {"name": "digits16", "sha256": "ab" * 32, "source": None, "trained": True},
        "classifier_accuracy": 0.978,
        "loss_unit": "nats per dimension",
        "device": "cpu",
        "seconds": {"prepare": 1.234, "train": 312.7, "evaluate": 45.1},
        "peak_memory_mib": 812.25,
        "git_commit": "0123456789abcdef0123456789abcdef01234567",
        "seed": 0,
        "temperature": 1.0,
        "K": K,
        "manifest": MANIFEST,
        "extractor": {"extractor": "digits_classifier_f2", "sha256": "ab" * 32},
        "resizers": {EXTRACTOR: "none"},
        "sampler_definitions": {"prior": "Draws that ignore y <itself>, then pasted."},
    }
