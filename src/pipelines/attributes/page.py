"""A page of sections with figures and tables."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

__all__ = ["PAGE", "Section", "Shown", "Table", "render_page"]

PAGE = "report.html"


@dataclass(frozen=True)
class Shown:
    """A figure of a page: heading, caption, file name and PNG bytes."""

    name: str
    title: str
    caption: str
    content: bytes

    @property
    def source(self) -> str:
        """The picture as a data address."""
        return "data:image/png;base64," + base64.b64encode(self.content).decode()


@dataclass(frozen=True)
class Table:
    """A table of a page; the first column names its rows."""

    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Section:
    """A part of a page."""

    title: str
    text: str = ""
    tables: Sequence[Table] = field(default_factory=tuple)
    figures: Sequence[Shown] = field(default_factory=tuple)


def render_page(
    title: str, lead: str, command: str, sections: Sequence[Section], facts: Mapping[str, Any]
) -> str:
    """Return a page as HTML that refers to no other file and runs no script.

    Args:
        title: Heading.
        lead: What the page is about.
        command: That made it.
        sections: Parts, from the top.
        facts: Settings and provenance, by name.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja2").render(
        title=title, lead=lead, command=command, sections=sections, facts=facts
    )
