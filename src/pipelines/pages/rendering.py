"""From a template of this folder to a page that refers to no other file and runs no script."""

from __future__ import annotations

import base64
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

__all__ = ["data_address", "render"]


def render(template: str, **values: Any) -> str:
    """Return a page as HTML; a value that the template asks for and does not get is an error.

    Args:
        template: ``<name>.html.jinja2`` in this folder, without its endings.
        values: By the names that the template has for them.
    """
    return _environment().get_template(f"{template}.html.jinja2").render(values)


def data_address(png: bytes) -> str:
    """A picture as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
