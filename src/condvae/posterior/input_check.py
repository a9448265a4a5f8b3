"""Does an observation look like the training data? A completion of one that does not means little.

The score is the bound on -log2 p(observed pixels) per observed value (`observation_bound`). It says
nothing by itself: the bound is loose, and depends on how much is seen. So it is compared with the
scores of held-out images of the training set behind masks that show about as much, which the model's
card holds. Both sides count, for what is plainer than any training image is as foreign to the model
as noise. An image that passes is not thereby known to be like the training data: what the score does
not see (a mirrored digit, say) is not found.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from condvae.ground.configuration import read_config
from condvae.ground.pixels import load_pixels
from condvae.masks.kinds import OBSERVED_BINS, bin_name, bin_of
from condvae.masks.sampling import MaskConfig, draw_mask_in_bin, reachable_bins
from condvae.posterior.image_posterior import ImagePosterior
from condvae.tasks.observation import Observation
from condvae.tasks.subject import SideInformation

__all__ = [
    "InputReference",
    "InputVerdict",
    "ReferenceBin",
    "check_observations",
    "input_reference",
    "most_observations",
]

# Smallest and largest of n values leave out a further one of the same kind with probability
# 2 / (n + 1): 1 % at 199 cases in a bin, 2 % at 99.
MOST_CASES = 199
LEAST_CASES = 99


@dataclass(frozen=True)
class ReferenceBin:
    """Scores of held-out images in one bin of the observed share.

    Attributes:
        n: Images scored, one mask each.
        low: Smallest score, bits per observed value.
        high: Largest score.
        expected_outside: Expected share of further images of the same kind outside, 2 / (n + 1).
    """

    n: int
    low: float
    high: float
    expected_outside: float


@dataclass(frozen=True)
class InputReference:
    """What `check_observations` compares with; a model's card holds it under ``input_reference``.

    Attributes:
        draws: Draws that every score is averaged over.
        seed: Of images, masks and draws.
        bins: By name of the bin of the observed share; bins without scores are absent.
    """

    draws: int
    seed: int
    bins: dict[str, ReferenceBin]


@dataclass(frozen=True)
class InputVerdict:
    """What the check says of one observation.

    Attributes:
        unusual: The score lies outside the reference; false when there was no check.
        checked: There was something to score and something to compare with.
        bits_per_observed_dim: The score; None when there was no check or it is not finite.
        low: Lower end of the reference; None when there was no check.
        high: Upper end.
        message: One line for people.
    """

    unusual: bool
    checked: bool
    bits_per_observed_dim: float | None
    low: float | None
    high: float | None
    message: str


def most_observations(images: int) -> int:
    """How many observations `input_reference` scores at most, given so many images."""
    return len(OBSERVED_BINS) * min(images, MOST_CASES)


def input_reference(
    posterior: ImagePosterior,
    images: NDArray[np.uint8],
    rows: NDArray[np.int64],
    masks: MaskConfig,
    *,
    side_information: SideInformation | None = None,
    draws: int = 4,
    seed: int = 0,
    batch_size: int = 256,
    progress: Callable[[int], object] | None = None,
) -> dict[str, Any]:
    """Score held-out images behind training masks, bin by bin of the observed share.

    At most 199 images, chosen at random, each behind one mask in every bin that the masks reach:
    at most 995 observations whatever the data set. Masks that show nothing are left out, and so is a
    bin with a score that is not finite.

    Args:
        posterior: The model, of a task with masks.
        images: uint8 (N,H,W,C), possibly memory-mapped.
        rows: Rows of images of the training set that the model was not trained on.
        masks: The masks it was trained with.
        side_information: What is known of `images` besides pixels; the task may need it.
        draws: Draws of z a score is averaged over.
        seed: Of the choice of images, masks and draws.
        batch_size: Cases at a time.
        progress: Called with the number of observations scored in every bin.

    Returns:
        The fields of `InputReference`, a JSON value.

    Raises:
        ConfigurationError: Images that do not fit the model, draws or batch_size below 1.
    """
    side_information = side_information or SideInformation()
    chosen = np.random.default_rng(seed).permutation(rows)[:MOST_CASES]
    pixels = load_pixels(images, chosen, torch.device("cpu"))
    size = posterior.contract.size
    kinds = [kind for kind, weight in masks.kinds.items() if weight > 0]
    bins = {}
    for index in range(len(OBSERVED_BINS)):
        if not any(index in reachable_bins(kind, size) for kind in kinds):
            continue
        rng = np.random.default_rng([seed, index])
        drawn = [draw_mask_in_bin(masks, size, index, rng) for _ in chosen]
        seen = [position for position, mask in enumerate(drawn) if mask.any()]
        if not seen:
            continue
        name = bin_name(index)
        shown = torch.from_numpy(np.stack([drawn[position] for position in seen])).unsqueeze(1)
        needs = posterior.task.needs
        observation = posterior.task.observe(
            side_information.subject(pixels[seen], shown, chosen[seen], needs),
            posterior.contract,
            tuple(f"reference {name} {chosen[position]}" for position in seen),
        )
        bits = posterior.observation_bound(
            observation, draws=draws, seed=seed, batch_size=batch_size
        ).bits_per_observed_dim
        if progress is not None:
            progress(len(seen))
        if bits.isfinite().all():
            n = len(seen)
            bins[name] = ReferenceBin(n, float(bits.min()), float(bits.max()), 2 / (n + 1))
    return dataclasses.asdict(InputReference(draws, seed, bins))


def check_observations(
    posterior: ImagePosterior, observation: Observation, *, batch_size: int = 256
) -> list[InputVerdict]:
    """Say of every observation whether it looks like what the model was trained on.

    The verdict on a case depends on its name, pixels and mask only, not on the batch.

    Args:
        posterior: With ``input_reference`` in its card; without, nothing is checked.
        observation: B cases.
        batch_size: Cases at a time.

    Returns:
        B verdicts.

    Raises:
        ConfigurationError: A card with a broken ``input_reference``, or batch_size below 1.
    """
    if not posterior.task.uses_mask:
        reason = f"task {posterior.task.name!r} shows no pixels themselves"
        return [_unchecked(reason) for _ in range(len(observation))]
    stored = posterior.card.get("input_reference")
    if stored is None:
        reason = "the model's card holds no scores of its validation images"
        return [_unchecked(reason) for _ in range(len(observation))]
    reference = read_config(InputReference, stored, "input_reference")
    terms = posterior.observation_bound(
        observation, draws=reference.draws, seed=reference.seed, batch_size=batch_size
    )
    dimensions = posterior.contract.dimensions
    return [
        _judge(reference, seen / dimensions, bits)
        for seen, bits in zip(
            terms.observed_dimensions.tolist(), terms.bits_per_observed_dim.tolist(), strict=True
        )
    ]


def _judge(reference: InputReference, share: float, bits: float) -> InputVerdict:
    """Compare one score with the bin of its observed share."""
    if share == 0:
        return _unchecked("nothing is observed")
    name = bin_name(bin_of(share))
    shown = f"{name.replace('_', ' to ')} % of a picture"
    if name not in reference.bins:
        return _unchecked(f"the model's card holds no scores for masks that show {shown}")
    found = reference.bins[name]
    if found.n < LEAST_CASES:
        return _unchecked(
            f"only {found.n} validation images were scored behind masks that show {shown}, at least "
            f"{LEAST_CASES} are needed"
        )
    compared = (
        f"{bits:.2f} bits per observed value, {found.n} validation images seen as much lie between "
        f"{found.low:.2f} and {found.high:.2f}"
    )
    value = bits if math.isfinite(bits) else None
    if found.low <= bits <= found.high:
        message = f"nothing unusual about the observed pixels: {compared}"
        return InputVerdict(False, True, value, found.low, found.high, message)
    plain = " (they are too plain)" if bits < found.low else ""
    message = (
        f"observed pixels look unlike the training data{plain}: {compared}; the completion may be "
        "meaningless"
    )
    return InputVerdict(True, True, value, found.low, found.high, message)


def _unchecked(reason: str) -> InputVerdict:
    return InputVerdict(False, False, None, None, None, f"input not checked: {reason}")
