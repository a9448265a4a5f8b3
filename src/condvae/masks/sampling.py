"""Which masks a model is trained and judged on: kinds in a mixture, balanced by observed share.

Free-form masks alone leave most images nearly empty (two in five show less than 20 %), while tables
average evenly over five bins of the observed share. A stratified draw removes the difference.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from condvae.ground.configuration import ConfigurationError, check_choice, check_positive
from condvae.masks.kinds import (
    MASK_KINDS,
    OBSERVED_BINS,
    Mask,
    MaskKind,
    bin_name,
    bin_of,
    hole_range_of,
)
from condvae.masks.published import PUBLISHED_KINDS, NoMaskInRangeError

__all__ = [
    "ALL_MASK_KINDS",
    "MaskConfig",
    "draw_mask_in_bin",
    "draw_masks",
    "reachable_bins",
    "usable_bins",
]

ALL_MASK_KINDS = MASK_KINDS | PUBLISHED_KINDS
"""Every kind of mask by its name in the configuration."""

_PROBES = 200
_LEAST_ACCEPTED = 4
_MOST_TRIES = 20_000


@dataclass(frozen=True)
class MaskConfig:
    """Which masks to draw.

    Attributes:
        kinds: Weight of each kind of mask (names of `ALL_MASK_KINDS`); they need not add up to
            one.
        stratified: Whether each of the five bins of the observed share gets a fifth of the masks.
        pool: Masks drawn once per training run and used again and again, which keeps drawing on the
            CPU out of the training step; None = every observation has a mask of its own.
    """

    kinds: dict[str, float] = field(
        default_factory=lambda: {
            "free_form": 0.4,
            "rectangles": 0.2,
            "patches": 0.2,
            "half": 0.1,
            "centre_box": 0.05,
            "blank": 0.05,
        }
    )
    stratified: bool = True
    pool: int | None = 4096

    def __post_init__(self) -> None:
        for name, weight in self.kinds.items():
            check_choice("kinds", name, ALL_MASK_KINDS)
            check_positive(f"kinds.{name}", weight, zero=True)
        if not 0 < sum(self.kinds.values()) < float("inf"):
            raise ConfigurationError(f"kinds = {self.kinds!r}: expected at least one weight > 0")
        if self.pool is not None:
            check_positive("pool", self.pool)


def draw_masks(
    config: MaskConfig, size: int, count: int, seed: int | np.random.Generator
) -> NDArray[np.bool_]:
    """Draw masks; the same arguments always give the same masks.

    Stratified, every bin of the observed share gets ``count / 5`` masks, give or take one, in
    random order; inside a bin the kinds follow their weights among those that reach the bin. Not
    stratified, the kinds follow their weights and the observed share is what comes out. A mask that
    hides nothing is drawn again in either case.

    Args:
        config: Kinds and weights.
        size: Side of the masks in pixels.
        count: How many, at least 1.
        seed: Seed of the draw, or a source of randomness to draw from.

    Returns:
        bool (count, size, size), True = observed.

    Raises:
        ConfigurationError: A bin that none of the kinds reaches at this size.
    """
    check_positive("count", count)
    rng = np.random.default_rng(seed)
    masks = np.empty((count, size, size), dtype=bool)
    if config.stratified:
        bins = rng.permutation(np.arange(count) % len(OBSERVED_BINS))
        for position, index in enumerate(bins.tolist()):
            masks[position] = draw_mask_in_bin(config, size, index, rng)
    else:
        names, weights = _weights(tuple(config.kinds.items()))
        for position, choice in enumerate(rng.choice(len(names), count, p=weights).tolist()):
            masks[position] = _draw(names[choice], size, None, rng)
    return masks


def draw_mask_in_bin(config: MaskConfig, size: int, index: int, rng: np.random.Generator) -> Mask:
    """Draw one mask with an observed share in a given bin.

    Args:
        config: Kinds and weights; `stratified` does not matter.
        size: Side of the mask in pixels.
        index: Index of the bin in `condvae.masks.kinds.OBSERVED_BINS`.
        rng: Source of randomness.

    Returns:
        bool (size, size), True = observed, never all observed.

    Raises:
        ConfigurationError: None of the kinds reaches the bin at this size.
    """
    names, weights = _weights_in_bin(tuple(config.kinds.items()), size, index)
    choice = int(np.searchsorted(np.cumsum(weights), rng.random(), side="right"))
    return _draw(names[min(choice, len(names) - 1)], size, index, rng)


def usable_bins(config: MaskConfig, size: int) -> tuple[int, ...]:
    """Return the bins that masks are drawn in: all five if stratified, else those they reach.

    Args:
        config: Kinds and weights.
        size: Side of the mask in pixels.
    """
    bins = tuple(range(len(OBSERVED_BINS)))
    if config.stratified:
        return bins
    kinds = [kind for kind, weight in config.kinds.items() if weight > 0]
    return tuple(i for i in bins if any(i in reachable_bins(kind, size) for kind in kinds))


@lru_cache(maxsize=256)
def reachable_bins(kind: str, size: int) -> tuple[int, ...]:
    """Return the bins that a kind of mask reaches in at least 2 % of its draws at this size.

    Rarer ones count as out of reach: drawing until one turns up would take too long. The answer
    comes from 200 draws per bin with a fixed seed, so it never depends on the run. A kind that
    stays in the wanted range by itself reaches a bin when it can draw one mask for it.
    """
    chosen, rng, bins = ALL_MASK_KINDS[kind], np.random.default_rng(0), range(len(OBSERVED_BINS))
    if chosen.stays_inside:
        return tuple(index for index in bins if _can_draw(chosen, size, index, rng))
    if not chosen.follows_range:
        shares = [_hit(chosen.draw(rng, size, (0.0, 1.0))) for _ in range(_PROBES)]
        hits = [shares.count(index) for index in bins]
    else:
        hits = [
            sum(_hit(chosen.draw(rng, size, hole_range_of(index))) == index for _ in range(_PROBES))
            for index in bins
        ]
    return tuple(index for index, count in enumerate(hits) if count >= _LEAST_ACCEPTED)


def _can_draw(kind: MaskKind, size: int, index: int, rng: np.random.Generator) -> bool:
    """Whether a kind that stays in the wanted range finds a mask for a bin."""
    try:
        return _hit(kind.draw(rng, size, hole_range_of(index))) == index
    except NoMaskInRangeError:
        return False


@lru_cache(maxsize=256)
def _weights_in_bin(
    kinds: tuple[tuple[str, float], ...], size: int, index: int
) -> tuple[list[str], NDArray[np.float64]]:
    """Return names and normalised weights of the kinds that reach a bin."""
    name = bin_name(index)
    chosen = tuple((k, w) for k, w in kinds if w > 0 and index in reachable_bins(k, size))
    if not chosen:
        used = ", ".join(kind for kind, weight in kinds if weight > 0)
        raise ConfigurationError(
            f"masks.kinds = {used}: none of them reaches the bin {name} (% observed) at {size} "
            "pixels; add a kind that does (free_form reaches all) or set masks.stratified to false"
        )
    return _weights(chosen)


def _weights(kinds: tuple[tuple[str, float], ...]) -> tuple[list[str], NDArray[np.float64]]:
    """Split names and weights; the weights come back adding up to one."""
    weights = np.array([weight for _, weight in kinds], dtype=np.float64)
    return [name for name, _ in kinds], weights / weights.sum()


def _hit(mask: Mask) -> int:
    """Return the bin of a mask, -1 for one that hides nothing."""
    return -1 if mask.all() else bin_of(float(mask.mean()))


def _draw(name: str, size: int, index: int | None, rng: np.random.Generator) -> Mask:
    """Draw from one kind until the mask hides something and is in the bin, if one is given."""
    kind = ALL_MASK_KINDS[name]
    hole_range = (0.0, 1.0) if index is None else hole_range_of(index)
    for _ in range(_MOST_TRIES):
        mask = kind.draw(rng, size, hole_range)
        hit = _hit(mask)
        if hit >= 0 and index in (None, hit):
            return mask
    raise ConfigurationError(
        f"mask kind {name!r}: no mask with the wanted observed share in {_MOST_TRIES} draws at "
        f"{size} pixels"
    )
