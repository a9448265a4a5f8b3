"""Judge sources of completions on the cases of one manifest."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from condvae import evaluation as ev
from condvae.data.store import PreparedImages, open_images
from condvae.evaluation.bins import POOLED, group_cases
from condvae.evaluation.cases import EvaluationCase, read_cases
from condvae.ground.configuration import ConfigurationError, read_config
from condvae.ground.devices import resolve_device
from condvae.ground.files import fingerprint
from condvae.ground.images import DataContract, to_nchw
from condvae.masks.kinds import OBSERVED_BINS
from condvae.posterior.guidance import describe_guidance, guide_posterior
from condvae.scores.attribute_classifier import load_attribute_classifier
from condvae.scores.feature_network import load_feature_network
from condvae.tasks import Task, describe_task
from pipelines.evaluation.attribute_reader import describe_asked, find_asked
from pipelines.evaluation.posteriors import open_posterior
from pipelines.parameters import EvaluationConfig, SamplingConfig, TaskConfig
from pipelines.runs import tracking

__all__ = [
    "Bench",
    "Judgement",
    "compare_runs",
    "doubt_samples",
    "judge_samplers",
    "judge_source",
    "open_bench",
    "tabulate_judgements",
]

LARGEST_OBSERVED_ERROR = 10.0  # grey levels; ours paste what was observed

log = logging.getLogger(__name__)

EXAMPLES_PER_BIN = 2
EXTREMES = 5
# Part of the name of every folder of intermediate scores: raise it when scores change their meaning.
SCORING_VERSION = 2

Outputs = tuple[
    pd.DataFrame,
    pd.DataFrame,
    pd.DataFrame,
    pd.DataFrame,
    dict[str, Any],
    dict[str, Any],
    dict[str, Any],
    dict[str, Any],
]


@dataclass(frozen=True)
class Bench:
    """What every source is judged by.

    Attributes:
        images: The image set.
        cases: N cases.
        rows: (N,) their rows in the image set.
        truths: uint8 (N,C,H,W).
        labels: (N,) true classes, None where they are not known or the network tells none apart.
        attributes: (N,A) of 1, 0 and -1 = none, what y asks for; None where it asks for none.
        extractors: Give features, distances and classes.
        calibrator: Ranks truths among completions.
        task: What the cases are completed for.
        settings: Level and seed.
        identity: Hash of all of these.
        facts: ``seed, manifest, extractors`` for tables.
        image_store: Description of the image set.
        folder: Where intermediate scores go.
    """

    images: PreparedImages
    cases: tuple[EvaluationCase, ...]
    rows: NDArray[np.int64]
    truths: Tensor
    labels: NDArray[np.int64] | None
    attributes: NDArray[np.int64] | None
    extractors: ev.Extractors
    calibrator: ev.Calibrator
    task: Task
    settings: EvaluationConfig
    identity: str
    facts: dict[str, Any]
    image_store: dict[str, Any]
    folder: Path


@dataclass(frozen=True)
class Judgement:
    """One source's scores and how it drew.

    Attributes:
        source: Of the completions.
        scores: Case by case.
        temperature: Of the latents; nan where that means nothing.
        seconds: What scoring took in this process.
        cases: How many were scored in this process; scores of the others were kept from before.
    """

    source: ev.CompletionSource
    scores: ev.CaseScores
    temperature: float
    seconds: float
    cases: int


def open_bench(
    image_store: dict[str, Any],
    evaluation_manifest: dict[str, Any],
    feature_network: dict[str, Any],
    settings: EvaluationConfig,
    task: dict[str, Any],
    folders: Mapping[str, str],
    device: str,
) -> Bench:
    """Read cases, truths, labels and feature network, and check that they belong together.

    Raises:
        ConfigurationError: A case was made for another image set.
    """
    images = open_images(Path(image_store["folder"]))
    made = read_config(TaskConfig, task, "task").make()
    cases = read_cases(evaluation_manifest["path"], evaluation_manifest["sha256"])
    rows = np.array([case.image_id for case in cases])
    for case in cases:
        if images.records[case.image_id].sha256 != case.image_sha256:
            raise ConfigurationError(
                f"{evaluation_manifest['path']}: case {case.case_id} was made for another image set"
            )
    network, card = load_feature_network(feature_network["folder"], resolve_device(device))
    known = images.labels is not None and card.task == "classifier"
    truths = to_nchw(torch.from_numpy(images.pixels[rows]))
    # At random: the first rows of a file may all be of one class.
    training = np.random.default_rng(settings.seed).permutation(images.indices("train"))
    most = ev.largest_bank(truths[0].numel())
    chosen = np.sort(training[:most])
    bank = to_nchw(torch.from_numpy(images.pixels[chosen]))
    signatures = None
    if not made.uses_mask:
        first, second = (
            ev.list_signatures(made, images.pixels, part, images.side_information)
            for part in (rows, chosen)
        )
        signatures = first, second
    resolved, folder = resolve_device(device), feature_network["folder"]
    reader = feature_network.get("attributes")
    extractors = ev.Extractors(
        network,
        settings.fidelity.load(folder, card.extractor, resolved),
        settings.perceptual.load(folder, card.extractor, resolved),
        load_attribute_classifier(reader["folder"], resolved)[0] if reader else None,
    )
    facts: dict[str, Any] = {
        "extractors": {
            "features": extractors.fidelity.name,
            "perceptual": extractors.perceptual.name,
            "classes": card.extractor,
            **({"attributes": reader["extractor"]} if reader else {}),
        },
        "seed": settings.seed,
        "manifest": evaluation_manifest["sha256"],
    }
    return Bench(
        images,
        cases,
        rows,
        truths,
        images.labels[rows] if known and images.labels is not None else None,
        find_asked(made, images, rows),
        extractors,
        ev.Calibrator(cases, truths, bank, network, settings.seed, signatures),
        made,
        settings,
        fingerprint(
            {
                **facts,
                "network": card.sha256,
                **({"attributes": reader["sha256"]} if reader else {}),
                "data": images.fingerprint,
                "version": SCORING_VERSION,
                # What inpainting was scored by before there were other tasks.
                **({} if made.name == "inpainting" else describe_task(made)),
            }
        ),
        facts,
        image_store,
        Path(folders["evaluation"]) / "scores",
    )


def judge_source(
    bench: Bench, name: str, source: ev.CompletionSource, temperature: float
) -> Judgement:
    """Score one source, going on where an earlier attempt has stopped."""
    identity = fingerprint({"bench": bench.identity, "source": source.identity})
    started = time.perf_counter()
    bar = tracking.progress_bar(f"evaluating {name}", len(bench.cases), unit="case")
    folder = ev.ChunkFolder(bench.folder / f"{name}-{identity[:12]}")
    scores = ev.score_cases(
        source,
        bench.cases,
        bench.truths,
        bench.labels,
        bench.extractors,
        calibrator=bench.calibrator,
        task=bench.task,
        attributes=bench.attributes,
        folder=folder,
        progress=bar.update,
    )
    bar.close()
    return Judgement(source, scores, temperature, time.perf_counter() - started, folder.cases_saved)


def doubt_samples(metrics: pd.DataFrame) -> list[str]:
    """Samplers whose completions are not of what was observed; also logged."""
    rows = metrics[(metrics["metric"] == "observed_error") & (metrics["bin"] == POOLED)]
    warnings = [
        f"{sampler}: completions differ from what was observed by {error:.1f} grey levels on "
        "average. Values may be on another scale, cases in another order, or observed pixels not kept; "
        "the scores say little then"
        for sampler, error in zip(rows["sampler"], rows["value"].astype(float), strict=True)
        if error > LARGEST_OBSERVED_ERROR
    ]
    for warning in warnings:
        log.warning("%s", warning)
    return warnings


def tabulate_judgements(
    bench: Bench, judged: Mapping[str, Judgement], posterior: Mapping[str, Any] | None = None
) -> Outputs:
    """Make every table and picture array of an evaluation; the first source is the reference.

    Args:
        bench: What was judged by.
        judged: Judgements by sampler.
        posterior: Description of the posterior that samplers of ours were made of; None = none was.
    """
    level, seed = bench.settings.level, bench.settings.seed
    scores = {name: judgement.scores for name, judgement in judged.items()}
    rows = []
    for name, judgement in judged.items():
        facts = {
            **bench.facts,
            "k": judgement.source.completions,
            "temperature": judgement.temperature,
        }
        rows += ev.tabulate({name: judgement.scores}, bench.cases, facts, level=level)
    metrics = pd.DataFrame.from_records(rows)
    warnings = doubt_samples(metrics)
    reference = next(iter(judged))
    table = pd.DataFrame(ev.list_case_scores(scores, bench.cases))
    compared = ev.compare(scores, bench.cases, level=level, seed=seed, reference=reference)
    if bench.settings.compare_with is not None:
        compared += compare_runs(table, bench.settings.compare_with, level, seed)
    comparisons = pd.DataFrame.from_records(compared, columns=ev.COMPARISON_COLUMNS)
    calibration = {
        name: ev.assess_calibration(
            judgement.scores,
            bench.cases,
            bench.labels,
            completions=judgement.source.completions,
            classes=len(bench.image_store["class_names"]),
            seed=seed,
        )
        for name, judgement in judged.items()
    }
    for name, found in calibration.items():
        log.info("%s: %s", name, found["verdicts"]["pooled"]["summary"])
    first = judged[reference]
    facts = {
        **bench.facts,
        "command": tracking.command(),
        **({"posterior_sha256": posterior["sha256"]} if posterior else {}),
        "resizers": {
            extractor.name: extractor.resizer
            for extractor in (bench.extractors.fidelity, bench.extractors.perceptual)
        },
        "extractor_hashes": {
            extractor.name: extractor.sha256
            for extractor in (bench.extractors.fidelity, bench.extractors.perceptual)
            if extractor.sha256
        },
        "is_exact": bench.task.is_exact,
        **({"warnings": warnings} if warnings else {}),
        "reference": reference,
        "ours": any(isinstance(j.source, ev.PosteriorSource) for j in judged.values()),
        "k": first.source.completions,
        # JSON has no nan.
        "temperature": first.temperature if math.isfinite(first.temperature) else None,
        **_read_guidance(first.source),
        "seconds": {name: judgement.seconds for name, judgement in judged.items()},
        "seconds_per_case": {
            name: judgement.seconds / judgement.cases
            for name, judgement in judged.items()
            if judgement.cases
        },
    }
    examples = _draw_pictures(bench, judged, _choose_examples(bench))
    extreme, crps = _extreme_cases(first)
    extremes = _draw_pictures(bench, {reference: first}, extreme) | {"scores": crps}
    return metrics, metrics, comparisons, table, examples, extremes, calibration, facts


def compare_runs(table: pd.DataFrame, path: str, level: float, seed: int) -> list[dict[str, Any]]:
    """Compare every sampler with its scores in the case table `path` of an earlier run."""
    try:
        earlier = pd.read_parquet(path)
    except ValueError as error:
        raise ConfigurationError(f"evaluation.compare_with = {path!r}: {error}") from error
    lacking = [str(name) for name in table if name not in earlier]
    if lacking:
        raise ConfigurationError(
            f"evaluation.compare_with = {path!r}: no column {', '.join(lacking)}; expected the "
            "cases.parquet of another run"
        )
    rows: list[dict[str, Any]] = []
    columns = [{str(k): t[k].to_numpy() for k in table} for t in (table, earlier)]
    for name in table["sampler"].unique():
        if name in set(earlier["sampler"]):
            found = ev.compare_case_tables(
                *columns, sampler_a=name, sampler_b=name, level=level, seed=seed
            )
            rows += [row | {"sampler_b": f"{name} (earlier run)"} for row in found]
    return rows


def _choose_examples(bench: Bench) -> list[int]:
    """The first cases of each bin; of each class or attributes where those are what is seen."""
    most = EXAMPLES_PER_BIN * len(OBSERVED_BINS)
    if "labels" in bench.task.needs and bench.images.labels is not None:
        classes, first = np.unique(bench.images.labels[bench.rows], return_index=True)
        return list(first[classes >= 0][:most].tolist())
    if bench.attributes is not None and not bench.task.uses_mask:
        _, first = np.unique(bench.attributes, axis=0, return_index=True)
        return sorted(first.tolist())[:most]
    numbers: list[int] = []
    groups = group_cases(bench.cases)
    everything = groups.pop(POOLED)
    if not groups:
        return list(everything[:most].tolist())
    for group in groups.values():
        numbers += group[:EXAMPLES_PER_BIN].tolist()
    return numbers


def _extreme_cases(judgement: Judgement) -> tuple[list[int], NDArray[np.float64]]:
    """The best cases, best first, and the worst, worst last; and their CRPS per unobserved value."""
    name = "crps_per_unobserved_dim"
    crps = judgement.scores.values[name] / judgement.scores.weights[name]
    order = np.argsort(crps, kind="stable")
    most = min(EXTREMES, len(order) // 2)
    chosen = np.concatenate([order[:most], order[len(order) - most :]])
    return chosen.tolist(), crps[chosen]


def _draw_pictures(
    bench: Bench, judged: Mapping[str, Judgement], chosen: list[int]
) -> dict[str, Any]:
    """Arrays of chosen cases for the figures of the report."""
    shown = [bench.cases[i] for i in chosen]
    labels, names = bench.labels, bench.image_store["class_names"]
    if "labels" in bench.task.needs and bench.images.labels is not None:
        labels = bench.images.labels[bench.rows]
    arrays: dict[str, Any] = {
        "case_ids": np.array([case.case_id for case in shown]),
        "bins": np.array([case.bin for case in shown]),
        "labels": np.array(
            ["" if labels is None or labels[i] < 0 else names[labels[i]] for i in chosen]
            if bench.attributes is None
            else [
                describe_asked(row, bench.images.attribute_names)
                for row in bench.attributes[chosen]
            ]
        ),
        "masks": np.stack([case.mask for case in shown]),
        "truths": bench.images.pixels[bench.rows[chosen]],
    }
    pictures = _picture_observations(bench, chosen)
    if pictures is not None:
        arrays["pictures"] = pictures
    for name, judgement in judged.items():
        drawn = ev.draw_examples(judgement.source, bench.cases, bench.truths, chosen)
        arrays[f"completions/{name}"] = drawn.completions
        arrays[f"mean/{name}"] = drawn.mean
        arrays[f"standard_deviation/{name}"] = drawn.standard_deviation
    return arrays


def _picture_observations(bench: Bench, chosen: list[int]) -> NDArray[np.uint8] | None:
    """Observations as images (M,H,W,C), where they are more than some of the truths' pixels."""
    masks = torch.from_numpy(np.stack([bench.cases[i].mask for i in chosen])).unsqueeze(1)
    truths, task = bench.truths[chosen], bench.task
    known = bench.images.side_information
    subject = known.subject(truths, masks, bench.rows[chosen], task.needs)
    contract = DataContract(truths.shape[1], truths.shape[2], mean=127.5, std=127.5)
    found = task.picture(subject, contract)
    return None if found is None else np.moveaxis(found.numpy(), 1, -1)


def judge_samplers(
    bench: Bench,
    names: Sequence[str],
    posterior: dict[str, Any],
    how: SamplingConfig,
    *,
    completions: int,
    bound_draws: tuple[int, ...],
    device: str,
) -> dict[str, Judgement]:
    """Score samplers of ours.

    Args:
        bench: What they are judged by.
        names: See `condvae.evaluation.split_temperature`. A sampler with a temperature of its own
            gets no likelihood scores: they do not depend on it.
        posterior: Description of the trained posterior.
        how: Temperature of the others, batch size.
        completions: Per case.
        bound_draws: Of the importance-weighted bound of the first sampler.
        device: Where to compute.
    """
    trained = open_posterior(posterior, bench.task, bench.image_store, device)
    # Samplers without the partial encoder take nothing but the VAE from it.
    guided = guide_posterior(trained, how.guidance, how.guidance_rule)
    said = describe_guidance(how.guidance, how.guidance_rule)
    weights = "/".join([posterior["sha256"], *(f"{key} {value}" for key, value in said.items())])
    judged = {}
    for number, name in enumerate(names):
        kind, temperature = ev.split_temperature(name, how.temperature)
        draws: tuple[int, ...] | None = bound_draws if number == 0 else ()
        source = ev.PosteriorSource(
            ev.make_sampler(kind, guided, bench.settings.seed),
            bench.cases,
            bench.truths,
            completions,
            temperature,
            bench.settings.seed,
            how.batch_size,
            draws if name == kind else None,
            f"{weights}/{kind}",
            bench.images.side_information,
        )
        judged[name] = judge_source(bench, name, source, temperature)
    return judged


def _read_guidance(source: ev.CompletionSource) -> dict[str, Any]:
    """What the card of a guided posterior says of it; nothing for all other sources."""
    card = source.posterior.card if isinstance(source, ev.PosteriorSource) else {}
    return {key: card[key] for key in ("guidance", "guidance_rule") if key in card}
