"""Are new pictures like those the model is known to work on, and does it work on them?"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from condvae import evaluation as ev
from condvae.calibration import correct_holm
from condvae.calibration.verdict import CALIBRATED
from condvae.data.records import image_sha256
from condvae.evaluation.bins import POOLED
from condvae.evaluation.cases import build_cases_of_every_image
from condvae.evaluation.monitoring import (
    DEGRADED,
    DRIFTED,
    NOTED,
    Finding,
    judge_flags,
    shift_of_features,
)
from condvae.ground.files import fingerprint
from condvae.ground.images import to_nchw
from condvae.masks.kinds import bin_name
from condvae.masks.sampling import MaskConfig
from condvae.posterior.anomaly import range_scores
from condvae.posterior.input_check import InputVerdict, check_observations
from condvae.scores.frechet import frechet_distance
from condvae.tasks import SideInformation
from pipelines.evaluation.judging import Bench, Judgement, judge_samplers
from pipelines.parameters import ReevaluationConfig, SamplingConfig
from pipelines.reevaluation.arrivals import read_pictures
from pipelines.reevaluation.judging import assess, own_sampling

__all__ = ["judge_arrivals"]

log = logging.getLogger(__name__)


def _choose(hashes: tuple[str, ...], most: int) -> list[int]:
    """At most so many pictures: by content, so that the choice does not depend on names or order."""
    return sorted(range(len(hashes)), key=lambda number: hashes[number])[:most]


def _open_new_bench(
    bench: Bench, pixels: NDArray[np.uint8], hashes: list[str], masks: MaskConfig, folder: Path
) -> Bench:
    """A bench with one case of every new picture, judged by the same networks.

    Args:
        bench: Of the frozen cases.
        pixels: uint8 (N,H,W,C).
        hashes: N, of the pixels.
        masks: As the model was trained with.
        folder: For intermediate scores.
    """
    truths = to_nchw(torch.from_numpy(pixels))
    seed, task = bench.settings.seed, bench.task
    cases = build_cases_of_every_image(
        range(len(pixels)),
        hashes,
        pixels.shape[1],
        masks,
        masks_per_image=1,
        seed=seed,
        prefix="new",
    )
    rows = np.array([case.image_id for case in cases])
    training = np.random.default_rng(seed).permutation(bench.images.indices("train"))
    chosen = np.sort(training[: ev.largest_bank(truths[0].numel())])
    signatures = None
    if not task.uses_mask:
        signatures = (
            ev.list_signatures(task, pixels, rows, SideInformation()),
            ev.list_signatures(task, bench.images.pixels, chosen, SideInformation()),
        )
    bank = to_nchw(torch.from_numpy(bench.images.pixels[chosen]))
    calibrator = ev.Calibrator(
        cases, truths[rows], bank, bench.extractors.network, seed, signatures
    )
    return replace(
        bench,
        cases=cases,
        rows=rows,
        truths=truths[rows],
        labels=None,
        calibrator=calibrator,
        identity=fingerprint({"bench": bench.identity, "images": hashes}),
        folder=folder,
    )


def _measure_drift(
    bench: Bench,
    source: ev.PosteriorSource,
    names: list[str],
    config: ReevaluationConfig,
    reference: NDArray[np.uint8],
) -> tuple[dict[str, Any], list[Finding]]:
    """Test what is observed of new pictures and what they show; both with Holm's correction.

    Args:
        bench: One case of every new picture.
        source: Observes these cases.
        names: Of the pictures, by row.
        config: Levels and numbers.
        reference: uint8 (M,H,W,C), test images of the data set.
    """
    verdicts: list[InputVerdict] = []
    for start in range(0, len(bench.cases), source.batch_size):
        observation = source.observe(start, start + source.batch_size)
        verdicts += check_observations(source.posterior, observation)
    features = bench.extractors.fidelity.features(bench.truths)
    known = bench.extractors.fidelity.features(to_nchw(torch.from_numpy(reference)))
    shift = shift_of_features(
        features, known, permutations=config.permutations, seed=bench.settings.seed
    )
    flags = _judge_flags(bench, verdicts, source.posterior.card)
    p_values = {"features": shift.p_value}
    if flags is not None:
        p_values["input check"] = flags["p_value"]
    adjusted = correct_holm(p_values)
    distance = frechet_distance(features, known, paired=False, resamples=0, force=True)
    found = {
        "pictures": len(names),
        "adjusted_p_values": adjusted,
        "features": {**asdict(shift), "frechet_distance": distance.value}
        | {"extractor": bench.extractors.fidelity.name},
        "input_check": flags,
        "most_unusual": _rank_pictures(bench, verdicts, features, known, names),
    }
    return found, _findings(found, config.alpha)


def _describe_scores(
    bench: Bench, judgement: Judgement, level: float, *, drifted: bool
) -> tuple[dict[str, Any], list[Finding]]:
    """Report scores and calibration on new pictures.

    That completions of pictures of another kind are not calibrated is no news: it counts where the
    pictures have not drifted.
    """
    facts = {**bench.facts, "k": judgement.source.completions, "temperature": judgement.temperature}
    rows = ev.tabulate({"ipa": judgement.scores}, bench.cases, facts, level=level)
    verdict = assess(bench, judgement)["verdicts"][POOLED]
    keys = ("metric", "value", "low", "high", "n")
    found = {
        "metrics": [{key: row[key] for key in keys} for row in rows if row["bin"] == POOLED],
        "calibration": verdict["summary"],
    }
    if drifted or CALIBRATED in verdict["words"]:
        return found, []
    message = f"completions of the new pictures: {verdict['summary']}"
    return found, [Finding(DEGRADED, "calibration on new data", message)]


def _judge_flags(
    bench: Bench, verdicts: list[InputVerdict], card: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Input check of all cases against its nominal rate; None where nothing could be checked."""
    counts: dict[str, list[int]] = {}
    for case, verdict in zip(bench.cases, verdicts, strict=True):
        if verdict.checked:
            name = bin_name(case.bin)
            count = counts.setdefault(name, [0, 0, card["input_reference"]["bins"][name]["n"]])
            count[0] += verdict.unusual
            count[1] += 1
    if not counts:
        return None
    found = judge_flags({name: (c[0], c[1], c[2]) for name, c in counts.items()})
    return {**asdict(found), "share": found.share}


def _rank_pictures(
    bench: Bench,
    verdicts: list[InputVerdict],
    features: NDArray[np.float32],
    known: NDArray[np.float32],
    names: list[str],
    most: int = 8,
) -> list[dict[str, Any]]:
    """The most unusual pictures: by the input check, else by the distance of their features."""
    scores, by = range_scores(verdicts), "distance from the range of the input check"
    if np.isnan(scores).any():
        scale = known.std(axis=0)
        scale[scale == 0] = 1.0
        scores = np.sqrt(np.square((features - known.mean(axis=0)) / scale).mean(axis=1))
        by = "distance of features from the mean, in standard deviations"
    order = np.argsort(-scores, kind="stable")[:most]
    return [
        {
            "file": names[bench.rows[i]],
            "row": int(bench.rows[i]),
            "score": float(scores[i]) if np.isfinite(scores[i]) else None,
            "scored_by": by,
        }
        for i in order
    ]


def _findings(found: Mapping[str, Any], alpha: float) -> list[Finding]:
    features, flags = found["features"], found["input_check"]
    adjusted = found["adjusted_p_values"]
    messages = {
        "features": f"features of {features['n_new']} new pictures against {features['n_reference']} "
        f"test images ({features['extractor']}): kernel distance {features['distance']:.3g}, Fréchet "
        f"distance {features['frechet_distance']:.3g}"
    }
    if flags is not None:
        messages["input check"] = (
            f"the input check calls {flags['flagged']} of {flags['n']} new pictures unusual "
            f"({flags['share']:.1%}), {flags['expected']:.1%} are expected"
        )
    return [
        Finding(
            DRIFTED if adjusted[name] <= alpha else NOTED,
            name,
            f"{message}; p = {adjusted[name]:.2g} (Holm), alarm at {alpha:g}",
        )
        for name, message in messages.items()
    ]


def judge_arrivals(
    bench: Bench,
    inputs: dict[str, Any],
    names: list[str],
    config: ReevaluationConfig,
    masks: MaskConfig,
    how: SamplingConfig,
    device: str,
) -> dict[str, Any]:
    """Judge new pictures: are they like the test images, and how well are they completed?

    Args:
        bench: Of the frozen cases; its networks and training images serve here too.
        inputs: Of the re-evaluation.
        names: Of the pictures, relative to their folder.
        config: Levels and numbers.
        masks: As the model was trained with.
        how: This project draws; temperature and guidance are the registered model's.
        device: Where to compute.

    Returns:
        ``drift`` and ``scores``, None for a task that new pictures are not enough for; ``findings``.
    """
    found = read_pictures(Path(inputs["new_data"]), names, bench.images)
    chosen = _choose(tuple(map(image_sha256, found)), config.most_images)
    pixels, hashes = found[chosen], [image_sha256(found[i]) for i in chosen]
    test = bench.images.indices("test")
    rows = np.random.default_rng(bench.settings.seed).permutation(test)[: config.most_images]
    if not set(bench.task.needs) <= {"pixels", "mask"}:
        message = (
            f"task {bench.task.name!r} needs {', '.join(bench.task.needs)}, which new pictures come "
            "without: they are not judged"
        )
        return {
            "drift": None,
            "scores": None,
            "findings": [asdict(Finding(NOTED, "new data", message))],
        }
    new = _open_new_bench(
        bench, pixels, hashes, masks, Path(inputs["folder"]) / "scores_of_new_data"
    )
    judgement = judge_samplers(
        new,
        ("ipa",),
        inputs["posterior"],
        own_sampling(inputs, how),
        completions=inputs["manifest"]["completions"],
        bound_draws=(),
        device=device,
    )["ipa"]
    source = judgement.source
    if not isinstance(source, ev.PosteriorSource):
        raise TypeError(f"{type(source).__name__}: expected completions of a posterior")
    of_names = [names[i] for i in chosen]
    drift, findings = _measure_drift(
        new, source, of_names, config, bench.images.pixels[np.sort(rows)]
    )
    drifted = any(finding.weight == DRIFTED for finding in findings)
    scores, more = _describe_scores(new, judgement, bench.settings.level, drifted=drifted)
    return {
        "drift": drift,
        "scores": scores,
        "findings": [asdict(finding) for finding in findings + more],
    }
