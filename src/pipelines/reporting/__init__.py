"""Figures and a self-contained page about one evaluation."""

from __future__ import annotations

from pipelines.reporting.pipeline import create_pipeline

__all__ = ["create_pipeline"]
