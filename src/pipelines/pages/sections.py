"""A page of sections with figures and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.pages.rendering import data_address, render

__all__ = ["PAGE", "Section", "Shown", "Table", "render_sections"]

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
        return data_address(self.content)


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


def render_sections(
    title: str, lead: str, command: str, sections: Sequence[Section], facts: Mapping[str, Any]
) -> str:
    """Return a page as HTML.

    Args:
        title: Heading.
        lead: What the page is about.
        command: That made it.
        sections: Parts, from the top.
        facts: Settings and provenance, by name.
    """
    return render(
        "sections", title=title, lead=lead, command=command, sections=sections, facts=facts
    )
