"""The page of completed pictures: one overview each, warnings, settings."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from pipelines.pages.rendering import data_address, render

__all__ = ["MOST_SHOWN", "PAGE", "render_page"]

PAGE = "index.html"
# Pictures inside the page; the others are listed by name, so that the page stays readable.
MOST_SHOWN = 100
_WIDEST = 1100  # pixels


def render_page(manifest: Mapping[str, Any], folder: Path) -> str:
    """Return the page as HTML that refers to no other file and runs no script.

    Args:
        manifest: Of the run, see `condvae.completion.complete_pictures`.
        folder: Of the run's results.
    """
    pictures = [
        {
            **picture,
            "file": Path(picture["picture"]).name,
            "mask_file": Path(picture["mask"]).name,
            "overview": _thumbnail(folder / picture["name"] / "overview.png")
            if place < MOST_SHOWN
            else None,
        }
        for place, picture in enumerate(manifest["pictures"])
    ]
    settings = manifest["settings"]
    return render(
        "completion",
        pictures=pictures,
        rejected=manifest["rejected"],
        warned=sum(bool(picture["warnings"]) for picture in pictures),
        stamp=manifest["sampled_from"] if _is_changed(settings) else None,
        command=manifest.get("command", ""),
        replay=manifest.get("replay"),
        facts=_list_facts(manifest),
    )


def _is_changed(settings: Mapping[str, Any]) -> bool:
    """Whether the completions are no samples of the posterior; old manifests know no guidance."""
    return bool(settings["temperature"] != 1.0 or settings.get("guidance", 1.0) != 1.0)


def _describe_guidance(settings: Mapping[str, Any]) -> str:
    """The weight, and the rule where it matters."""
    weight = f"{settings.get('guidance', 1.0):g}"
    return weight if weight == "1" else f"{weight} by {settings.get('guidance_rule', 'product')}"


def _list_facts(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Settings and provenance in words."""
    settings = manifest["settings"]
    polarity = {
        "white_is_hole": "white is the hole, black is observed",
        "white_is_observed": "white is observed, black is the hole",
    }
    rate = manifest["completions_per_second"]
    return [
        ("completions per picture", str(settings["n"])),
        ("seed", str(settings["seed"])),
        ("temperature", f"{settings['temperature']:g}"),
        ("guidance", _describe_guidance(settings)),
        ("sampled from", manifest["sampled_from"]),
        ("mask files", polarity[settings["polarity"]]),
        (
            "observed pixels",
            "copied exactly"
            if settings["paste_observed"]
            else "drawn by the model: not exactly those given",
        ),
        ("model", manifest["model"]),
        ("model sha256", manifest["model_sha256"]),
        ("device", f"{manifest['device']}, {manifest['threads']} threads"),
        ("completions per second", "–" if rate is None else f"{rate:.1f}"),
        *((f"version of {name}", version) for name, version in manifest["versions"].items()),
        *((name, manifest[name]) for name in ("git_commit", "git_dirty") if name in manifest),
    ]


def _thumbnail(path: Path) -> str:
    """A picture as a data address, reduced when it is wide."""
    with Image.open(path) as picture:
        height = round(picture.height * min(1.0, _WIDEST / picture.width))
        reduced = picture.convert("RGB").resize((min(picture.width, _WIDEST), height))
    buffer = io.BytesIO()
    reduced.save(buffer, format="png", optimize=True)
    return data_address(buffer.getvalue())
