"""Pictures of every use of a flat model: samples, sweeps, edits, ways, and what it reads off images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from condvae.calibration.classes import assess_classes
from condvae.cvae.generation import edit, interpolate, sample, sweep_values
from condvae.cvae.model import FlatVAE
from condvae.ground.attributes import Attribute, AttributeTable
from condvae.plots import (
    plot_attribute_samples,
    plot_attribute_sweep,
    plot_condition_paths,
    plot_confusion,
    plot_edits,
    plot_reliability,
    plot_training,
)
from pipelines.attributes.choices import change_attribute, find_ties
from pipelines.attributes.tables import AttributedImages

__all__ = ["Picture", "draw_bayes", "draw_training", "draw_uses"]

# Images that conditions are taken from, as long as they are different ones.
CANDIDATES = 100
# More do not fit a page.
MOST_ROWS, MOST_SWEEPS, MOST_CHANGES, MOST_VALUES = 24, 6, 12, 20
CONDITIONS, NOISES, PICTURES, PATHS, STEPS = 8, 4, 6, 5, 8
LOSS_UNITS = {"cvae": "nats per dimension", "prior": "nats"}
# The loss of the second stage under another name; the width of a validation score.
REPEATED = ("/prior_nats", "_standard_error")
LABELS = 99  # drawn of each image's probabilities, see `assess_probabilities`


@dataclass(frozen=True)
class Picture:
    """A figure with its file name and what to see in it."""

    name: str
    title: str
    caption: str
    figure: Figure


def draw_uses(
    model: FlatVAE,
    known: AttributedImages,
    hold_out: Sequence[Mapping[str, Any]],
    *,
    shown: int,
    seed: int,
) -> list[Picture]:
    """Draw samples for all and for single values, held-out combinations, sweeps, edits and ways.

    Args:
        model: What is shown.
        known: Images with their attributes.
        hold_out: Combinations that were not trained on.
        shown: Images in a row.
        seed: Of all noise.
    """
    ties = find_ties(known.table, known.rows("train"))
    pictures = [
        _draw_samples(model, known, shown, seed),
        _draw_single_values(model, known.table, shown, seed),
    ]
    if hold_out:
        pictures.append(_draw_held_out(model, known, hold_out, shown, seed))
    names = [a.name for a in model.attributes][:MOST_SWEEPS]
    pictures += [_draw_sweep(model, known, name, ties[name], seed) for name in names]
    if model.prior.invertible:
        pictures.append(_draw_edits(model, known, ties))
    return [*pictures, *_draw_paths(model, known, ties, seed)]


def draw_bayes(
    attributes: Sequence[Attribute], probabilities: Mapping[str, NDArray[Any]], seed: int
) -> list[Picture]:
    """Draw what p(value | x) takes for what, and whether its probabilities come true.

    Args:
        attributes: Of the conditions.
        probabilities: ``labels`` (N,A), and attribute -> (n,K) of the images where it is known.
        seed: Of ties and simulations.
    """
    labels, rng = probabilities["labels"], np.random.default_rng(seed)
    confusions, curves = [], {}
    for place, attribute in enumerate(attributes):
        table = probabilities.get(attribute.name)
        if table is None:
            continue
        true = labels[:, place][~np.isnan(labels[:, place])].astype(np.int64)
        drawn = (table.cumsum(axis=1)[:, :-1] <= rng.random((LABELS, len(table), 1))).sum(axis=2)
        curves[attribute.name] = asdict(assess_classes(drawn, true, table.shape[1], seed=seed))
        counts = np.zeros((table.shape[1],) * 2, np.int64)
        np.add.at(counts, (true, table.argmax(axis=1)), 1)
        confusions.append((attribute, counts))
    confusions = [c for c in confusions if len(c[0].values) <= MOST_VALUES]
    pictures = []
    if confusions:
        attribute, counts = max(confusions, key=lambda c: len(c[0].values))
        pictures.append(
            Picture(
                "confusion.png",
                f"The model as a classifier: {attribute.name}",
                "The likeliest value by Bayes' rule from log p(x | y), nothing else being known, "
                "on test images. A model of p(x | y) that ignores y would be no better than chance.",
                plot_confusion(counts, attribute.values, title=f"{attribute.name} by Bayes' rule"),
            )
        )
    if curves:
        chosen = dict(list(curves.items())[:MOST_SWEEPS])
        figure = plot_reliability(
            chosen, of="probabilities", title="Do probabilities by Bayes' rule come true?"
        )
        caption = (
            "Test images, by the probability of their likeliest value, nothing else being known. "
            "Points on the diagonal: the probabilities are right; below it: too sure."
        )
        pictures.append(Picture("reliability.png", "Calibration of p(value | x)", caption, figure))
    return pictures


def draw_training(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> list[Picture]:
    """Draw the curves of every stage."""
    words = {
        "cvae": "The VAE; with two stages p(z) is N(0, I) here.",
        "prior": "The prior p(z | y) on draws from the frozen encoder.",
    }
    caption = (
        "The result are the weights of the best validation. A validation curve that rises while the "
        "training curve falls: training images are being memorised."
    )
    return [
        Picture(
            f"training_{stage}.png",
            f"Training, stage {number}",
            f"{words.get(stage, stage)} {caption}",
            plot_training(_drop_repeated(history), loss_unit=LOSS_UNITS.get(stage)),
        )
        for number, (stage, history) in enumerate(histories.items(), 1)
        if history
    ]


def _drop_repeated(history: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Without what another panel shows, and the error bars of one."""
    return [{k: v for k, v in row.items() if not k.endswith(REPEATED)} for row in history]


def _draw_samples(model: FlatVAE, known: AttributedImages, shown: int, seed: int) -> Picture:
    rows_by_words: dict[str, int] = {}
    for row in known.rows("test")[:CANDIDATES].tolist():
        (words,) = known.table.describe(known.table.rows([row]))
        rows_by_words.setdefault(_say(words) or "nothing known", row)
    labels, rows = list(rows_by_words)[:CONDITIONS], list(rows_by_words.values())[:CONDITIONS]
    y = known.table.rows(rows).to(model.device)
    drawn = _colours_last(sample(model, y, shown, seed)).swapaxes(0, 1)
    return Picture(
        "samples.png",
        "Samples for given attributes",
        "Each row was asked for all that is known of the real test image it begins with. Its images "
        "should differ as real ones with these attributes do.",
        plot_attribute_samples(
            dict(zip(labels, drawn, strict=True)),
            real=_colours_last(known.pixels(np.array(rows))),
        ),
    )


def _draw_single_values(model: FlatVAE, table: AttributeTable, shown: int, seed: int) -> Picture:
    wanted = [{a.name: value} for a in model.attributes for value in sweep_values(a)][:MOST_ROWS]
    y = torch.cat([table.parse(condition) for condition in wanted]).to(model.device)
    drawn = _colours_last(sample(model, y, shown, seed)).swapaxes(0, 1)
    return Picture(
        "single_values.png",
        "Samples for one value",
        "Each row was asked for one value, everything else being unknown: the rest should vary as "
        "it does among real images with that value.",
        plot_attribute_samples(
            {_say(c): d for c, d in zip(wanted, drawn, strict=True)}, title="Samples for one value"
        ),
    )


def _draw_held_out(
    model: FlatVAE,
    known: AttributedImages,
    hold_out: Sequence[Mapping[str, Any]],
    shown: int,
    seed: int,
) -> Picture:
    table, rows, test = known.table, {}, known.rows("test")
    for wanted in hold_out:
        code = table.parse(wanted)[0]
        named = ~code.isnan()
        has = (table.values[:, named] == code[named]).all(dim=1).numpy()
        # Those of the test first; a rare combination may have none there.
        found = np.array([*test[has[test]], *np.setdiff1d(np.flatnonzero(has), test)])[:shown]
        y = table.rows(found).to(model.device)
        rows[f"{_say(wanted)}, real"] = np.asarray(known.images.pixels[found])
        rows[f"{_say(wanted)}, sampled"] = _colours_last(sample(model, y, 1, seed)[0])
    return Picture(
        "held_out.png",
        "Combinations that were never trained on",
        "Real images of combinations that training left out, and below each a sample for all that is "
        "known of it. The model has seen either value, but never both together.",
        plot_attribute_samples(
            rows,
            title="Held-out combinations",
            note="Above a real image, below it a sample for its attributes.",
        ),
    )


def _draw_sweep(
    model: FlatVAE, known: AttributedImages, name: str, tied: set[str], seed: int
) -> Picture:
    values = sweep_values(model.attributes[known.table.index(name)])[:MOST_VALUES]
    y = known.table.rows(known.rows("test")[:1]).repeat(NOISES, 1)
    # As `sweep` does it, image 0 of each noise, with what the value settles.
    images = [
        sample(model, _change(known, y, name, value, tied)[1].to(model.device), 1, seed)[0]
        for value in values
    ]
    follows = f" What a value says of {', '.join(sorted(tied))} changes with it." if tied else ""
    return Picture(
        f"sweep_{_file_name(name)}.png",
        f"Sweep of {name}",
        f"{_say_rest(known, y, tied | {name})}{follows}",
        plot_attribute_sweep(_colours_last(torch.stack(images, dim=1)), name, values),
    )


def _draw_edits(model: FlatVAE, known: AttributedImages, ties: Mapping[str, set[str]]) -> Picture:
    table, rows = known.table, known.rows("test")[:PICTURES]
    pixels, y = known.pixels(rows), table.rows(rows)
    changes = [
        (a.name, value)
        for a in model.attributes
        for value in dict.fromkeys((sweep_values(a)[0], sweep_values(a)[-1]))
    ][:MOST_CHANGES]
    edited = [edit(model, pixels, *[y.to(model.device)] * 2)]
    for name, value in changes:
        conditions = _change(known, y, name, value, ties[name])
        edited.append(edit(model, pixels, *(c.to(model.device) for c in conditions)))
    words = ["unchanged", *(f"{name} = {value}" for name, value in changes)]
    names = [f"test image {row}" for row in rows.tolist()]
    return Picture(
        "edits.png",
        "Edits of given pictures",
        "A picture's latents are taken to the prior's noise under its own attributes, and back under "
        "others: what the attribute does not say should stay. “Unchanged” is what encoding and "
        "decoding alone make of it. What a value settles changes with it; what it leaves open is "
        "unknown before and after.",
        plot_edits(_colours_last(pixels), _colours_last(torch.stack(edited)), words, names),
    )


def _draw_paths(
    model: FlatVAE, known: AttributedImages, ties: Mapping[str, set[str]], seed: int
) -> list[Picture]:
    table = known.table
    attribute = max(model.attributes, key=lambda a: len(sweep_values(a)))
    name, values = attribute.name, sweep_values(attribute)
    pairs = list(pairwise(values))[:: max(1, (len(values) - 1) // PATHS)][:PATHS]
    if not pairs:  # attributes of one value each
        return []
    y = table.rows(known.rows("test")[:1])
    first, last = (
        torch.cat([_change(known, y, name, pair[end], ties[name])[1] for pair in pairs])
        for end in (0, 1)
    )
    words = [[f"{name} = {pair[end]}" for pair in pairs] for end in (0, 1)]
    given = _say_rest(known, y, ties[name] | {name})
    pictures = []
    for file, title, seed_b, caption in (
        ("paths.png", "From one condition to another", None, "the noise stays"),
        (
            "paths_noise.png",
            "From one condition and noise to another",
            seed + 1,
            "the base noise takes an arc that is standard normal all the way",
        ),
    ):
        ends = first.to(model.device), last.to(model.device)
        strips = _colours_last(interpolate(model, *ends, STEPS, seed, seed_b=seed_b))
        text = (
            f"The features of y move on a straight line, {caption}. Images in between belong to no "
            f"value of the attribute; none of them should fall apart. {given}"
        )
        figure = plot_condition_paths(strips, *words, noise_kept=seed_b is None)
        pictures.append(Picture(file, title, text, figure))
    return pictures


def _change(
    known: AttributedImages, y: Tensor, name: str, value: str, tied: set[str]
) -> tuple[Tensor, Tensor]:
    """Conditions (B,A) before and after; see `change_attribute`."""
    return change_attribute(known.table, known.rows("train"), y, name, value, tied)


def _say_rest(known: AttributedImages, y: Tensor, names: set[str]) -> str:
    """What the first condition says besides some attributes and what they settle."""
    (words,) = known.table.describe(y[:1])
    rest = {name: value for name, value in words.items() if name not in names}
    return f"Given besides: {_say(rest) or 'nothing'}."


def _say(condition: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in condition.items())


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)


def _colours_last(images: Tensor) -> NDArray[np.uint8]:
    """uint8 (...,C,H,W) -> (...,H,W,C)."""
    return np.ascontiguousarray(images.movedim(-3, -1).cpu().numpy())
