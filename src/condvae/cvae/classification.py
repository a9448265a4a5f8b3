"""A conditional image model as a classifier: p(value | x) by Bayes' rule from log p(x | y)."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from condvae.ground.attributes import Attribute, attribute_index, check_conditions
from condvae.ground.configuration import ConfigurationError, check_positive
from condvae.ground.devices import plain_inference

__all__ = ["ScoringModel", "classify", "value_shares"]


class ScoringModel(Protocol):
    """What Bayes' rule needs: `condvae.cvae.model.FlatVAE`, or anything that scores images."""

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """The A attributes of its conditions."""

    def log_prob(
        self, pixels: Tensor, y: Tensor, draws: int, *, seed: int, batch_size: int
    ) -> Tensor:
        """Estimate log p(x | y) of uint8 (B,C,H,W) in nats, (B,)."""


@plain_inference()
def classify(
    model: ScoringModel,
    pixels: Tensor,
    y: Tensor,
    name: str,
    draws: int,
    *,
    seed: int = 0,
    shares: Tensor | None = None,
    batch_size: int = 256,
) -> Tensor:
    """Probabilities of the values of one attribute: ``p(v | x, rest) ∝ p(x | v, rest) p(v | rest)``.

    ``p(x | v, rest)`` is the bound of `FlatVAE.log_prob`, with the same noise for every value. It costs
    V times `draws` passes of the decoder per image.

    Args:
        model: Gives log p(x | y).
        pixels: uint8 (B,C,H,W).
        y: (B,A), nan = unknown: the rest. What it says of `name` is not looked at.
        name: Of a categorical attribute.
        draws: K, importance-weighted draws of each log p(x | y).
        seed: Of the draws.
        shares: p(v | rest), (V,) or (B,V), not negative; any scale. None = all equal; those of a
            training set are `value_shares`.
        batch_size: Pairs of image and draw decoded at a time.

    Returns:
        float64 (B,V) on the CPU, rows add up to 1.

    Raises:
        ConfigurationError: Unknown or continuous attribute, shares of the wrong shape or range, or as
            `FlatVAE.log_prob`.
    """
    check_positive("draws", draws)
    check_conditions(model.attributes, y)
    place, count = _categorical(model.attributes, name)
    log_shares = _log_shares(shares, len(y), count)
    scores = torch.empty(len(y), count, dtype=torch.float64)
    for value in range(count):
        changed = y.clone()
        changed[:, place] = value
        scores[:, value] = model.log_prob(pixels, changed, draws, seed=seed, batch_size=batch_size)
    return (scores + log_shares).softmax(dim=1)


def value_shares(attributes: tuple[Attribute, ...], y: Tensor, name: str) -> Tensor:
    """How often each value of an attribute occurs among conditions, float64 (V,); unknown ones not.

    Args:
        attributes: A of them.
        y: (N,A), of the training images.
        name: Of a categorical attribute.

    Raises:
        ConfigurationError: Unknown or continuous attribute, or no condition that knows it.
    """
    check_conditions(attributes, y)
    place, count = _categorical(attributes, name)
    known = y[:, place][~y[:, place].isnan()].long()
    if not len(known):
        raise ConfigurationError(f"attribute {name!r}: unknown in all {len(y)} conditions")
    return torch.bincount(known, minlength=count).double() / len(known)


def _categorical(attributes: tuple[Attribute, ...], name: str) -> tuple[int, int]:
    """Place and number of values."""
    place = attribute_index(attributes, name)
    if attributes[place].is_continuous:
        raise ConfigurationError(
            f"attribute {name!r} is continuous; expected one with named values"
        )
    return place, len(attributes[place].values)


def _log_shares(shares: Tensor | None, batch: int, count: int) -> Tensor:
    """Logs (V,) or (B,V), up to a constant."""
    if shares is None:
        return torch.zeros(count, dtype=torch.float64)
    if tuple(shares.shape) not in {(count,), (batch, count)}:
        raise ConfigurationError(
            f"shares of shape {tuple(shares.shape)}: expected ({count},) or ({batch}, {count})"
        )
    possible = (shares >= 0).all() and shares.isfinite().all() and (shares.sum(dim=-1) > 0).all()
    if not possible:
        raise ConfigurationError(
            f"shares = {shares.tolist()!r}: expected finite values >= 0, not all of them 0"
        )
    return shares.double().cpu().log()
