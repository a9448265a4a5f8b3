"""Noise that belongs to a case, not to a batch."""

from __future__ import annotations

import hashlib

import torch

__all__ = ["case_generator"]


def case_generator(seed: int, case_id: str, purpose: str) -> torch.Generator:
    """Noise belongs to (seed, case, completion), not to a batch."""
    digest = hashlib.sha256(f"{seed}\n{case_id}\n{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
