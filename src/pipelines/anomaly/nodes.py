"""Nodes that score foreign images and say how well the scores tell them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from condvae.data.foreign import make_foreign, name_of_foreign, open_foreign
from condvae.data.store import PreparedImages, open_images
from condvae.evaluation.anomaly import ANOMALY_SCORES, NORMAL, fit_scorer, tabulate_auroc
from condvae.evaluation.cases import build_cases
from condvae.ground.configuration import read_config
from condvae.ground.files import open_atomic
from condvae.masks.sampling import MaskConfig
from condvae.plots import plot_auroc, plot_score_histograms, png_bytes
from pipelines.evaluation.posteriors import open_posterior
from pipelines.parameters import AnomalyConfig, SamplingConfig, TaskConfig
from pipelines.runs import tracking

log = logging.getLogger(__name__)


def score_foreign_images(
    image_store: dict[str, Any],
    posterior: dict[str, Any],
    anomaly: dict[str, Any],
    masks: dict[str, Any],
    task: dict[str, Any],
    sampling: dict[str, Any],
    device: str,
) -> pd.DataFrame:
    """Score test images and every foreign set behind the same masks; one row per value."""
    config = read_config(AnomalyConfig, anomaly, "anomaly")
    batch_size = read_config(SamplingConfig, sampling, "sampling").batch_size
    made = read_config(TaskConfig, task, "task").make()
    mask_config = made.choose_masks(read_config(MaskConfig, masks, "masks"))
    images = open_images(Path(image_store["folder"]))
    trained = open_posterior(posterior, made, image_store, device)
    with tracking.progress_bar("training images", config.reference_pairs, unit="img") as bar:
        scorer = fit_scorer(
            trained,
            images.pixels,
            images.indices("train"),
            mask_config,
            pairs=config.reference_pairs,
            draws=config.draws,
            seed=config.seed,
            batch_size=batch_size,
            side_information=images.side_information,
            progress=bar.update,
        )
    rows = images.indices("test").tolist()
    hashes = [images.records[row].sha256 for row in rows]
    per_bin, size = config.cases_per_bin, image_store["image_size"]
    cases = build_cases(
        rows, hashes, size, mask_config, per_bin=per_bin, seed=config.seed, prefix="anomaly"
    )
    # Where nothing is observed there is nothing to score.
    cases = tuple(case for case in cases if case.mask.any())
    shown = np.stack([case.mask for case in cases])
    chosen = np.array([case.image_id for case in cases])
    names = [case.case_id for case in cases]
    sets = _gather_sets(config, images, chosen)
    tables = []
    with tracking.progress_bar("scoring", len(sets) * len(cases), unit="img") as bar:
        for name, (pixels, origins) in sets.items():
            found = scorer.score(
                pixels, shown, chosen, names, images.side_information, progress=bar.update
            )
            tables += [
                pd.DataFrame(
                    {
                        "set": name,
                        "score": score,
                        "case_id": names,
                        "image": origins,
                        "observed_share": [case.observed_share for case in cases],
                        "value": values,
                    }
                )
                for score, values in found.items()
            ]
    return pd.concat(tables, ignore_index=True)


def _gather_sets(
    config: AnomalyConfig, images: PreparedImages, chosen: NDArray[np.int64]
) -> dict[str, tuple[NDArray[np.uint8], list[str]]]:
    """Set -> as many images as cases, and names of what they were made from; normal images first."""
    pixels = images.pixels[chosen]
    origins = [str(row) for row in chosen]
    sets = {NORMAL: (pixels, origins)}
    for name in config.against:
        sets[name] = (make_foreign(name, pixels, config.seed), origins)
    if config.path is not None:
        name = name_of_foreign(config.path)
        found = open_foreign(config.path, pixels.shape[1:])
        order = np.random.default_rng(config.seed).permutation(len(found))
        places = order[np.arange(len(chosen)) % len(found)]
        sets[name] = (np.asarray(found[places]), [f"{name} {place}" for place in places])
    return sets


def report_auroc(
    anomaly_scores: pd.DataFrame,
    posterior: dict[str, Any],
    anomaly: dict[str, Any],
    folders: dict[str, str],
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Tabulate and draw how well the scores tell the sets; log it to MLflow."""
    config = read_config(AnomalyConfig, anomaly, "anomaly")
    scores = {
        str(name): {
            str(score): part["value"].to_numpy(np.float64)
            for score, part in own.groupby("score", sort=False)
        }
        for name, own in anomaly_scores.groupby("set", sort=False)
    }
    first = anomaly_scores["score"] == anomaly_scores["score"].iloc[0]
    origins = {
        str(name): own["image"].tolist()
        for name, own in anomaly_scores[first].groupby("set", sort=False)
    }
    normal = anomaly_scores[first & (anomaly_scores["set"] == NORMAL)]
    rows = tabulate_auroc(scores, normal["observed_share"].to_numpy(), origins)
    table = pd.DataFrame.from_records(rows).assign(
        reference_pairs=config.reference_pairs,
        draws=config.draws,
        seed=config.seed,
        posterior=posterior["sha256"],
    )
    tracking.log_metrics(
        {f"anomaly/{row['set']}/{row['score']}/{row['bin']}": row["value"] for row in rows}
    )
    for row in rows:
        if row["bin"] == "pooled":
            log.info(
                "%s, %s: AUROC %.3f ± %.3f",
                *(row["set"], row["score"], row["value"], row["standard_error"]),
            )
    figures = {
        "auroc.png": plot_auroc(rows, titles=ANOMALY_SCORES),
        "scores.png": plot_score_histograms(scores, NORMAL, titles=ANOMALY_SCORES),
    }
    folder = Path(folders["anomaly"])
    for name, figure in figures.items():
        with open_atomic(folder / name) as file:
            file.write(png_bytes(figure))
    files = {"folder": folder.as_posix(), "figures": list(figures)}
    return table, table, files
