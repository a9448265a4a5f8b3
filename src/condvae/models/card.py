"""The model card: what ``card.json`` says, as ``README.md`` for people and for the Hugging Face hub.

The page is made from the card alone and can be made again at any time. Scores come to the card after
the weights, when an evaluation has judged them; the weights and their sha256 are not touched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from condvae.ground.configuration import ConfigurationError
from condvae.ground.files import open_atomic, write_json
from condvae.models.folder import CARD, WEIGHTS, read_card
from condvae.scores.definitions import METRICS

__all__ = ["README", "record_scores", "write_model_card"]

README = "README.md"
NOT_STATED = "Not stated."
# What the hub files models of these kinds under.
_HUB_TASKS = {"posterior": "image-to-image", "vae": "unconditional-image-generation"}


def write_model_card(folder: str | Path, licence: str | None = None) -> Path:
    """Write ``README.md`` into a model folder: YAML front matter as the hub expects, and Markdown.

    Args:
        folder: Written by `save_posterior` or `save_vae`.
        licence: Of the weights: an identifier of the hub (``apache-2.0``) or any words. It is put on
            the card; None takes what is there.

    Returns:
        The file.

    Raises:
        ConfigurationError: See `read_card`.
    """
    folder = Path(folder)
    card = read_card(folder)
    if licence is not None and licence != card.get("licence"):
        card["licence"] = licence
        write_json(folder / CARD, card)
    with open_atomic(folder / README) as file:
        file.write(_render(card).encode())
    return folder / README


def record_scores(folder: str | Path, sha256: str, name: str, scores: Mapping[str, Any]) -> Path:
    """Put the scores of a posterior on its card, and write the model card again.

    Args:
        folder: The model folder.
        sha256: Of the weights that were scored.
        name: Of the evaluation (``quick``, ``full``); earlier scores under it are replaced.
        scores: JSON: ``manifest`` (sha256 of the cases), ``cases, completions, temperature, seed,
            level, data`` (``name, fingerprint``), ``metrics``: a list of ``metric, value, low, high,
            standard_error, n, extractor``, and ``calibration``: None or ``words, summary, n``.

    Returns:
        The model card.

    Raises:
        ConfigurationError: See `read_card`; or the folder holds other weights by now.
    """
    folder = Path(folder)
    card = read_card(folder, "posterior")
    if card["sha256"] != sha256:
        raise ConfigurationError(
            f"{folder} holds weights with sha256 {card['sha256'][:12]}..., the scores are of "
            f"{sha256[:12]}...: another run has replaced them meanwhile"
        )
    # Last on the card, also on one that was written again with its scores after a kill.
    card["scores"] = {**card.pop("scores", {}), name: dict(scores)}
    write_json(folder / CARD, card)
    return write_model_card(folder)


def _render(card: Mapping[str, Any]) -> str:
    sections = [
        _front_matter(card),
        _introduction(card),
        _opening(card),
        _section("Data", _table(("Fact", "Value"), _data_facts(card))),
        _section("Training", _table(("Setting", "Value"), _training_facts(card))),
        _section("Scores", "\n\n".join(_scores(card)) or "Not scored yet."),
        _section("Limits", "\n".join(f"- {line}" for line in _limits(card))),
        _section("Licence", "\n".join(f"- {line}" for line in _licences(card))),
        _section("Files", _table(("File", "sha256"), [(WEIGHTS, card["sha256"])])),
    ]
    return "\n\n".join(sections) + "\n"


def _front_matter(card: Mapping[str, Any]) -> str:
    """Metadata of the hub. Slugs and JSON strings of them are YAML as they stand."""
    kind = str(card.get("kind"))
    licence = str(card.get("licence") or "unknown").lower()
    known = re.fullmatch(r"[a-z0-9][a-z0-9.-]*", licence) is not None
    tags = ["condvae", "variational-autoencoder"]
    if kind == "posterior":
        tags += ["posterior-sampling", _slug(card.get("task", ""))]
    lines = [
        "---",
        "library_name: condvae",
        f"license: {json.dumps(licence if known else 'other')}",
    ]
    if not known:
        lines.append(f"license_name: {json.dumps(_slug(licence))}")
    if kind in _HUB_TASKS:
        lines.append(f"pipeline_tag: {_HUB_TASKS[kind]}")
    lines += ["tags:", *(f"- {json.dumps(tag)}" for tag in tags if tag), "---"]
    return "\n".join(lines)


def _introduction(card: Mapping[str, Any]) -> str:
    contract, name = card.get("data_contract") or {}, _plain(card.get("name") or "model")
    side, channels = contract.get("size"), contract.get("channels")
    size = f"{side} × {side} pixels, {channels} channel{'s' if channels != 1 else ''}"
    if card.get("kind") != "posterior":
        return (
            f"# {name}: unconditional VAE\n\nA hierarchical VAE for condvae that can be conditioned. "
            f"Pictures: {size}. Parameters: {card.get('parameters')}."
        )
    task = _plain(card.get("task"))
    return (
        f"# {name}: posterior for {task}\n\nA posterior over pictures given an observation, for "
        f"condvae: a frozen hierarchical VAE ({_code(card.get('vae') or 'not named')}) and a partial "
        f"encoder c(z | y) trained for {task}. Pictures: {size}. Parameters: {card.get('parameters')}."
    )


def _opening(card: Mapping[str, Any]) -> str:
    is_posterior = card.get("kind") == "posterior"
    if is_posterior:
        code = 'posterior = load_posterior("FOLDER")  # or "hf://OWNER/NAME" once it is on the hub'
    else:
        code = 'vae, card = load_vae("FOLDER")'
    function = "load_posterior" if is_posterior else "load_vae"
    return _section("Use", f"```python\nfrom condvae import {function}\n\n{code}\n```")


def _data_facts(card: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    data, source = card.get("data") or {}, card.get("weights_source") or {}
    yield "name", card.get("name")
    yield "fingerprint", data.get("fingerprint") or source.get("data")
    yield "source", data.get("source")
    yield "split", data.get("split")
    for split, count in (data.get("images") or {}).items():
        yield f"images for {split}", count
    for name, value in (card.get("data_contract") or {}).items():
        yield f"contract: {name}", value


def _training_facts(card: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    source = card.get("weights_source") or {}
    shown_elsewhere = ("data", "architecture", "data_contract")
    yield from _leaves({k: v for k, v in source.items() if k not in shown_elsewhere})
    yield from _leaves(card.get("validation") or {})
    yield from _leaves({"architecture": card.get("architecture") or {}})


def _scores(card: Mapping[str, Any]) -> Iterator[str]:
    """A paragraph and a table for each evaluation."""
    if card.get("test_bits_per_dim") is not None:
        yield (
            f"{card['test_bits_per_dim']:.4f} bits per dim (standard error "
            f"{card.get('test_bits_per_dim_standard_error') or 0.0:.4f}) on "
            f"{card.get('test_images')} test images."
        )
    for name, scores in (card.get("scores") or {}).items():
        data = scores.get("data") or {}
        temperature = scores.get("temperature")
        yield (
            f"Evaluation {_code(name)} on {_code(data.get('name'))}: {scores.get('cases')} cases, "
            f"{scores.get('completions')} completions of each at temperature {temperature}, seed "
            f"{scores.get('seed')}. Manifest {_code(scores.get('manifest'))}, data "
            f"{_code(data.get('fingerprint'))}. Intervals hold {100 * scores.get('level', 0):g} %."
        )
        rows = [
            (
                f"{row['metric']}{_direction(row['metric'])}",
                _number(row.get("value")),
                "–"
                if row.get("low") is None
                else f"{row['low']:.4g} to {_number(row.get('high'))}",
                row.get("n"),
                row.get("extractor"),
            )
            for row in scores.get("metrics") or ()
        ]
        yield _table(("Metric", "Value", "Interval", "n", "Computed from"), rows)


def _limits(card: Mapping[str, Any]) -> Iterator[str]:
    yield "Scores hold for the data and masks named above; of other pictures they say nothing."
    if card.get("kind") != "posterior":
        return
    if not card.get("scores"):
        yield "Calibration was not measured: whether its samples cover the posterior is not known."
    for name, scores in (card.get("scores") or {}).items():
        verdict = scores.get("calibration")
        found = _plain(verdict["summary"]) if verdict else "not judged."
        yield f"Calibration, evaluation {_code(name)}: {found}"
    if not card.get("input_reference"):
        yield "The card has no reference for observations unlike the training data: none is warned of."


def _licences(card: Mapping[str, Any]) -> Iterator[str]:
    known = card.get("licences") or {}
    stated = card.get("licence")
    yield f"These weights: {_plain(stated) if stated else NOT_STATED}"
    for name, what in (("vae", "The frozen VAE"), ("data", "The training data")):
        if known.get(name):
            yield f"{what}: {_plain(known[name])}"


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}"


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A Markdown table; rows whose second value is None are left out."""
    titles = list(head)
    lines = ["| " + " | ".join(titles) + " |", "| " + " | ".join("---" for _ in titles) + " |"]
    for row in rows:
        cells = list(row)
        if cells[1] is not None:
            lines.append("| " + " | ".join(_code(c).replace("|", "\\|") for c in cells) + " |")
    return "\n".join(lines) if len(lines) > 2 else NOT_STATED


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of a nested mapping."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _direction(metric: str) -> str:
    better = METRICS[metric].better if metric in METRICS else None
    return {"lower": " ↓", "higher": " ↑"}.get(better or "", "")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _slug(text: object) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", str(text).lower()).strip("-.")


def _plain(text: object) -> str:
    """Words in which Markdown sees nothing but words."""
    return re.sub(r"([\\`*_{}\[\]<>#|~!&])", r"\\\1", " ".join(str(text).split()))


def _code(value: object) -> str:
    """A value as code, within which only backticks mean anything."""
    text = " ".join(str(value).split()) or "–"
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence, space = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{space}{text}{space}{fence}"
