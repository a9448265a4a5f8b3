"""Tables and the figure of `central_claim.py`, from the results of its runs."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from condvae.evaluation.learning_curves import (
    LearningCurve,
    mean_curve,
    mean_of_runs,
    reach_of_runs,
)
from condvae.ground.files import open_atomic, write_json
from condvae.plots.labels import format_value
from condvae.plots.style import png_bytes
from condvae.plots.training_time import TimedRuns, plot_training_time

__all__ = ["summarise", "write_tables"]

REFERENCES = ("joint", "published", "tuned_random")
# Which arm reaches the final bound of which in what part of its steps or time.
AIMS = (
    ("published", "joint", "time", 5),
    ("tuned_random", "joint", "time", 5),
    ("ours", "joint", "time", 5),
    ("ours", "published", "steps", 8),
    ("ours", "tuned_random", "steps", 3),
    ("residual", "joint", "time", 5),
    ("residual", "published", "steps", 8),
    ("residual", "tuned_random", "steps", 3),
)


def summarise(
    results: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    titles: Mapping[str, str],
    rates: Mapping[str, float],
    costs: Mapping[str, Mapping[str, float]],
    resolutions: Sequence[int],
    prior_bound: float,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that tables and figure show, as a JSON value.

    Args:
        results: Arm -> result of every seed; `published` is among them.
        titles: Arm -> words.
        rates: Arm -> learning rate.
        costs: Arm -> seconds per step, and their ratio to those of `published`.
        resolutions: Of every latent group.
        prior_bound: Of the prior in the place of c(z | y).
        facts: Of the whole.
    """
    curves = {
        name: [LearningCurve(*zip(*run["curve"], strict=True)) for run in runs]
        for name, runs in results.items()
    }
    means = {name: mean_curve(runs) for name, runs in curves.items()}
    unit = costs["published"]["seconds"]
    arms = {}
    for name, runs in results.items():
        steps = [curve.steps[-1] for curve in curves[name]]
        arms[name] = {
            "title": titles[name],
            "rate": rates[name],
            "steps": steps,
            "step_ratio": costs[name]["ratio"],
            "seconds": unit * costs[name]["ratio"] * float(np.mean(steps)),
            "levelled": [bool(run["levelled"]) for run in runs],
            "curve": list(zip(means[name].steps, means[name].values, strict=True)),
            "curve_error": [
                mean_of_runs([curve.value_at(step) for curve in curves[name]])[1]
                for step in means[name].steps
            ],
            "seeds": [run["curve"] for run in runs],
        } | {
            key: mean_of_runs([run[key] for run in runs])
            for key in ("bound", "bound_published_masks", "frechet")
        }
    reach = {
        target: {
            name: _reach(curves[name], means[target], costs[name]["ratio"] / costs[target]["ratio"])
            for name in results
        }
        for target in REFERENCES
        if target in results
    }
    return {
        **facts,
        "seconds_per_step_of_published": unit,
        "prior_bound": prior_bound,
        "arms": arms,
        "reach": reach,
        "groups": _group_gains(results, resolutions),
    }


def _reach(
    curves: Sequence[LearningCurve], target: LearningCurve, step_ratio: float
) -> dict[str, Any]:
    """How long runs take to the final mean bound of a reference, against the reference itself."""
    own = target.steps_to(target.final)
    assert own is not None
    reached = sum(curve.steps_to(target.final) is not None for curve in curves)
    found: dict[str, Any] = {"bound": target.final, "own_steps": own, "seeds": reached}
    if (steps := reach_of_runs(curves, target.final)) is not None:
        share = steps[0] / own
        found |= {"steps": steps[0], "log_error": steps[1]}
        # At the first look already: all that is known is an upper limit.
        found["at_most"] = any(curve.values[0] <= target.final for curve in curves)
        found |= {"share_of_steps": share, "share_of_time": share * step_ratio}
    return found


def _group_gains(
    results: Mapping[str, Sequence[Mapping[str, Any]]], resolutions: Sequence[int]
) -> list[dict[str, Any]]:
    """KL of every group in nats, and what each arm on the same frozen VAE gains on `published`.

    Errors are over images, after the mean over seeds; the last row is the sum.
    """
    # From scratch the latents are others.
    rates = {
        name: np.mean([run["rates"] for run in runs], axis=0)
        for name, runs in results.items()
        if name != "joint"
    }
    rates = {name: np.c_[values, values.sum(axis=1)] for name, values in rates.items()}
    rows = []
    for index, resolution in enumerate([*map(str, resolutions), "all"]):
        first = rates["published"][:, index]
        gains = {
            name: mean_of_runs((first - values[:, index]).tolist())
            for name, values in rates.items()
            if name != "published"
        }
        rows.append(
            {"resolution": resolution, "published": mean_of_runs(first.tolist()), "gains": gains}
        )
    return rows


def write_tables(folder: Path, summary: Mapping[str, Any]) -> None:
    """Write all files; print the tables."""
    text = "\n\n".join(
        [_main_table(summary), _reach_table(summary), _aims(summary), _gains(summary)]
    )
    with open_atomic(folder / "tables.md") as file:
        file.write((text + "\n").encode())
    write_json(folder / "summary.json", _finite(summary))
    _write_curves(folder / "curves.csv", summary)
    with open_atomic(folder / "central_claim.png") as file:
        file.write(png_bytes(_draw(summary)))
    print(f"\n{text}\n\nwritten to {folder}")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: float, error: float) -> str:
    return format_value(value, error) if abs(value) < 1e5 else f"{value:.1e}"


def _main_table(summary: Mapping[str, Any]) -> str:
    rows = []
    for name, arm in summary["arms"].items():
        steps = f"{round(float(np.mean(arm['steps']))):,}" + (
            "" if all(arm["levelled"]) else " (*)"
        )
        runs = [f"{arm['rate']:g}", steps, f"{arm['step_ratio']:.2f}", f"{arm['seconds']:.0f} s"]
        values = [_number(*arm[k]) for k in ("bound", "bound_published_masks", "frechet")]
        rows.append([f"`{name}`", arm["title"], *runs, *values])
    header = ["arm", "what", "rate", "steps", "time per step", "training time", "bound"]
    header += ["bound, masks as `published` draws them", "Frechet distance"]
    milliseconds = 1000 * summary["seconds_per_step_of_published"]
    lines = [
        _table(header, rows),
        f"Means ± standard errors over {summary['seeds']} seeds; bounds in nats per dimension. A step "
        f"of `published` takes {milliseconds:.1f} ms. The prior in place of c(z | y) has a bound of "
        f"{summary['prior_bound']:.4f}. Features: {summary['extractor']}, test cases sha256 "
        f"{summary['manifest'][:12]}.",
    ]
    if not all(all(arm["levelled"]) for arm in summary["arms"].values()):
        lines.append("(*) ended before its bound had levelled: raise `--longest`.")
    return "\n\n".join(lines)


def _reach_table(summary: Mapping[str, Any]) -> str:
    rows = []
    for name in summary["arms"]:
        cells = []
        for target, found in summary["reach"].items():
            cell = found[name]
            if target == name:
                cells.append(f"{cell['own_steps']:,.0f} steps")
            elif "steps" not in cell:
                cells.append(f"not reached ({cell['seeds']} of {summary['seeds']} seeds)")
            else:
                factor, limit = math.exp(cell["log_error"]), "≤ " if cell["at_most"] else ""
                spread = "" if math.isnan(factor) else f" ×/÷ {factor:.2f}"
                cells.append(
                    f"{limit}{cell['steps']:,.0f} steps{spread}: "
                    f"{cell['share_of_steps']:.3f} of the steps, "
                    f"{cell['share_of_time']:.3f} of the time"
                )
        rows.append([f"`{name}`", *cells])
    targets = [
        f"to the final bound of `{target}`, {found['published']['bound']:.4f}"
        for target, found in summary["reach"].items()
    ]
    note = (
        "Steps to a bound are interpolated in their logarithm, geometric mean over seeds; shares are of"
        " what the reference itself took to it, its own seeds averaged."
    )
    return f"{_table(['arm', *targets], rows)}\n\n{note}"


def _aims(summary: Mapping[str, Any]) -> str:
    lines = []
    for name, target, unit, aim in AIMS:
        found = summary["reach"].get(target, {}).get(name)
        if found is None:
            continue
        start = f"- `{name}` to the final bound of `{target}` in 1/{aim} of its {unit}: "
        share = found.get(f"share_of_{unit}")
        if share is None:
            lines.append(f"{start}missed, {found['seeds']} of {summary['seeds']} seeds reach it")
        else:
            lines.append(f"{start}{'met' if share <= 1 / aim else 'missed'}, 1/{1 / share:.1f}")
    return "\n".join(lines)


def _gains(summary: Mapping[str, Any]) -> str:
    names = list(summary["groups"][0]["gains"])
    rows = [
        [str(index) if row["resolution"] != "all" else "all"]
        + [f"{row['resolution']}x{row['resolution']}" if row["resolution"] != "all" else ""]
        + [_number(*row["published"])]
        + [_number(*row["gains"][name]) for name in names]
        for index, row in enumerate(summary["groups"])
    ]
    header = ["group", "size", "KL of `published`", *(f"gain of `{name}`" for name in names)]
    note = (
        "KL(q || c) in nats on the validation images, and how much less it is after the same training "
        "time; ± standard error over images, seeds averaged."
    )
    return f"{_table(header, rows)}\n\n{note}"


def _write_curves(path: Path, summary: Mapping[str, Any]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["arm", "rate", "seed", "step", "seconds", "bound_nats_per_dim"])
    unit = summary["seconds_per_step_of_published"]
    for name, arm in summary["arms"].items():
        for seed, curve in enumerate(arm["seeds"]):
            for step, bound in curve:
                seconds = step * arm["step_ratio"] * unit
                writer.writerow([name, arm["rate"], seed, step, f"{seconds:.4g}", f"{bound:.6f}"])
    with open_atomic(path) as file:
        file.write(text.getvalue().encode())


def _draw(summary: Mapping[str, Any]) -> Any:
    unit = summary["seconds_per_step_of_published"]
    methods = {}
    for name, arm in summary["arms"].items():
        steps, bounds = zip(*arm["curve"], strict=True)
        seconds = tuple(step * arm["step_ratio"] * unit for step in steps)
        methods[f"{name}: {arm['title']}"] = TimedRuns(
            seconds, bounds, tuple(arm["curve_error"]), arm["frechet"]
        )
    return plot_training_time(
        methods,
        title=f"Conditioning a pretrained VAE: {summary['data']}",
        note=f"Frozen VAE: {Path(summary['vae']).name}. Standard errors over {summary['seeds']} seeds.",
        extractor=summary["extractor"],
        ceiling=(summary["prior_bound"], "prior (no training)"),
    )


def _finite(value: Any) -> Any:
    """The same with null for what JSON has no number for."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
