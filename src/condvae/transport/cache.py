"""Where fetched files lie."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["CACHE_VARIABLE", "cache_folder"]


CACHE_VARIABLE = "CONDVAE_CACHE"


def cache_folder(folder: str | os.PathLike[str] | None = None) -> Path:
    """Where fetched files lie: `folder`, else ``$CONDVAE_CACHE``, else ``~/.cache/condvae``."""
    chosen = folder or os.environ.get(CACHE_VARIABLE) or "~/.cache/condvae"
    return Path(chosen).expanduser()
