"""Conditions as features: one embedding per attribute and value, "unknown" among them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from condvae.ground.attributes import Attribute, check_conditions
from condvae.ground.configuration import ConfigurationError, check_positive

__all__ = ["ConditionEncoder", "drop"]


class ConditionEncoder(nn.Module):
    """Turns conditions y (B,A) into features (B,E).

    Every attribute has embeddings of its own: one per value and one for "unknown"; a continuous one
    has a linear function of its value and one for "unknown". Their sum goes through a residual
    network of two layers.

    Args:
        attributes: A of them, at least one.
        features: E.
    """

    def __init__(self, attributes: Sequence[Attribute], features: int) -> None:
        super().__init__()
        check_positive("features", features)
        if not attributes:
            raise ConfigurationError("attributes = (): expected at least one")
        self.attributes, self.features = tuple(attributes), features
        # A continuous attribute takes one row too, the constant of its linear function; "unknown" is
        # the last row of each.
        unknown = torch.tensor([len(a.values) or 1 for a in attributes])
        ends = (unknown + 1).cumsum(0)
        continuous = torch.tensor([a.is_continuous for a in attributes])
        self.register_buffer("unknown", ends - 1, persistent=False)
        self.register_buffer("first", ends - 1 - unknown, persistent=False)
        self.register_buffer("continuous", continuous, persistent=False)
        self.embeddings = nn.Parameter(torch.randn(int(ends[-1]), features))
        self.slopes = nn.Parameter(torch.randn(int(continuous.sum()), features))
        self.mix = nn.Sequential(
            nn.Linear(features, features), nn.SiLU(), nn.Linear(features, features)
        )

    unknown: Tensor
    first: Tensor
    continuous: Tensor

    def embed(self, y: Tensor) -> Tensor:
        """Return the embedding of each attribute's value, (B,A,E).

        Args:
            y: (B,A), nan = unknown; part a depends on y[:, a] alone.

        Raises:
            ConfigurationError: Another shape or type, an index out of range; names the attribute.
        """
        check_conditions(self.attributes, y)
        known = ~y.isnan()
        value = y.nan_to_num(0.0)
        index = torch.where(self.continuous, 0, value).long() + self.first
        parts = embedding(torch.where(known, index, self.unknown), self.embeddings)
        linear = value[:, self.continuous, None].to(parts.dtype) * self.slopes
        return parts.index_add(1, self.continuous.nonzero()[:, 0], linear)

    def forward(self, y: Tensor) -> Tensor:
        """Return features (B,E) of conditions y (B,A); see `embed`."""
        # Unit variance whatever A is; the residual keeps it from the first step on.
        total = self.embed(y).sum(dim=1) / math.sqrt(len(self.attributes))
        mixed: Tensor = total + self.mix(total)
        return mixed


def drop(y: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Make values unknown, so that training sees partial conditions of every size and empty ones.

    A condition is made partial with probability `share`: a rate is drawn from U(0, 1), and each of its
    values is dropped with that probability. The number of unknown values is then uniform on 0..A, so
    that single values among many attributes, and the empty condition that guidance compares with, are
    as common as nearly full ones. Values dropped at one fixed rate would hardly ever leave one alone.

    Args:
        y: (B,A); left as it is.
        share: In [0, 1]. A known value becomes unknown with probability `share` / 2.
        generator: Of the choice.

    Returns:
        (B,A), a copy with nan where values are dropped.

    Raises:
        ConfigurationError: `share` out of range.
    """
    if not 0.0 <= share <= 1.0:
        raise ConfigurationError(f"drop_share = {share!r}: expected in [0, 1]")
    drawn = torch.rand(len(y), y.shape[1] + 2, generator=generator, device=generator.device)
    partial, rate, values = drawn[:, :1] < share, drawn[:, 1:2], drawn[:, 2:]
    return y.masked_fill((partial & (values < rate)).to(y.device), math.nan)
