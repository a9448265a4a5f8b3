"""Images on disk: sources, official splits, records of what was prepared, memory-mapped arrays."""

from __future__ import annotations

from condvae.data.config import DataConfig
from condvae.data.preparation import prepare_images
from condvae.data.records import ImageRecord, image_sha256
from condvae.data.store import PreparedImages, open_images

__all__ = [
    "DataConfig",
    "ImageRecord",
    "PreparedImages",
    "image_sha256",
    "open_images",
    "prepare_images",
]
