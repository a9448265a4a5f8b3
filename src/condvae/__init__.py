"""condvae: conditional image models from pretrained hierarchical VAEs.

The names users need are here; each is loaded when it is first used, so that ``import condvae`` is
quick and a room's libraries are needed only by those who enter it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from condvae.models.folder import load_posterior, load_vae, save_posterior, save_vae
    from condvae.posterior.image_posterior import ImagePosterior
    from condvae.tasks import Inpainting

__all__ = [
    "ImagePosterior",
    "Inpainting",
    "load_posterior",
    "load_vae",
    "save_posterior",
    "save_vae",
]

_HOMES = {
    "ImagePosterior": "condvae.posterior.image_posterior",
    "Inpainting": "condvae.tasks",
    "load_posterior": "condvae.models.folder",
    "load_vae": "condvae.models.folder",
    "save_posterior": "condvae.models.folder",
    "save_vae": "condvae.models.folder",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'condvae' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
