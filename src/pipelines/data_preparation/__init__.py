"""Data preparation: from a source of pictures to a memory-mapped store and its manifest."""

from __future__ import annotations

from pipelines.data_preparation.pipeline import create_pipeline

__all__ = ["create_pipeline"]
