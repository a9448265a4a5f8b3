"""Does a model score what its publisher says?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from condvae.ground.configuration import ConfigurationError, check_positive, read_config
from condvae.models.registry import PretrainedCard, read_cards

__all__ = ["ScoreMismatchError", "Verdict", "check_score", "stated_score"]

# The published figures are rounded to two or three digits, and their latents were drawn differently.
ROUNDING_BITS = 0.005
# The subset of images differs from sample to sample.
STANDARD_ERRORS = 3.0
# Three standard errors of a measurement are at most this share of the score it is held against. The
# tolerance may be wider by rounding and by the error of the card's score, which no image mends.
LARGEST_SHARE = 0.025


class ScoreMismatchError(RuntimeError):
    """A model does not score what its card says, or too few images were used to tell."""


@dataclass(frozen=True)
class Verdict:
    """Whether a measured score agrees with the card's.

    Attributes:
        passed: It does, and enough images were used to say so.
        bits_per_dim: Measured.
        expected: On the card.
        tolerance: Largest difference that passes, bits per dim.
        n: Images measured.
        message: One line for people.
    """

    passed: bool
    bits_per_dim: float
    expected: float
    tolerance: float
    n: int
    message: str


def stated_score(folder: Path, card: Mapping[str, Any]) -> tuple[PretrainedCard, float]:
    """What a VAE in a model folder is expected to score, for `check_score`.

    A VAE trained here carries the score of its test images, with a standard error. A converted
    checkpoint is looked up among the published ones by the name of its file; their figures come
    without an error.

    Args:
        folder: The model folder.
        card: Its card.

    Returns:
        A card with `expected_bits_per_dim`, and that score's standard error.

    Raises:
        ConfigurationError: Nobody states a score, or it is no positive number.
    """
    if card.get("test_bits_per_dim") is not None:
        images, name = card.get("test_images", "the"), card.get("name", "its data")
        entry = {
            "kind": "vae",
            "description": f"VAE of {name}",
            "folder": str(folder),
            "sha256": card["sha256"],
            "expected_bits_per_dim": card["test_bits_per_dim"],
            "scored_on": f"{images} test images of {name}",
        }
        error = card.get("test_bits_per_dim_standard_error") or 0.0
        return read_config(PretrainedCard, entry, f"{folder}: card"), float(error)
    official = (card.get("weights_source") or {}).get("official")
    for published in read_cards().values():
        if published.folder is None and published.file_name == official:
            _refuse_scoreless(published)
            return published, 0.0
    raise ConfigurationError(
        f"{folder}: nobody states what this VAE scores; expected test_bits_per_dim on its card (see "
        "`kedro run --pipeline=pretrain`), or a published checkpoint under its own file name"
    )


def check_score(
    bits_per_dim: float,
    standard_error: float,
    n: int,
    card: PretrainedCard,
    expected_standard_error: float = 0.0,
) -> Verdict:
    """Compare a measured score with the card's.

    Passes when they differ by at most 0.005 bits (rounding of the published figure) plus 3 standard
    errors of the difference, in either direction: a score that is too good is as wrong as one that is
    too bad. When 3 standard errors of the measurement alone are more than 2.5 % of the card's score
    the images are too few, and it fails.

    Args:
        bits_per_dim: Mean over `n` test images.
        standard_error: Of that mean, over images.
        n: Number of images.
        card: With `expected_bits_per_dim`.
        expected_standard_error: Of the card's score, taken as independent of the measurement's.

    Returns:
        The verdict; a measured value that is not finite fails.

    Raises:
        ConfigurationError: The card has no published score, or `n` or a standard error is impossible.
    """
    expected = _refuse_scoreless(card)
    check_positive("n", n)
    for name, error in (
        ("standard_error", standard_error),
        ("expected_standard_error", expected_standard_error),
    ):
        if not (math.isfinite(error) and error >= 0):
            raise ConfigurationError(f"{name} = {error!r}: expected finite and >= 0")
    combined = math.hypot(standard_error, expected_standard_error)
    tolerance = ROUNDING_BITS + STANDARD_ERRORS * combined
    difference = bits_per_dim - expected
    most = LARGEST_SHARE * expected
    off = not (math.isfinite(bits_per_dim) and abs(difference) <= tolerance)
    too_few = STANDARD_ERRORS * standard_error > most
    outcome = "FAIL" if off or too_few else "pass"
    stated_by = "published" if card.folder is None else "its card says"
    message = (
        f"{outcome}: {bits_per_dim:.4f} bits/dim (standard error {standard_error:.4f}) on {n} images, "
        f"{stated_by} {expected:.4f} on {card.scored_on or 'images not stated'}; difference "
        f"{difference:+.4f}, tolerance {tolerance:.4f}"
    )
    if too_few and not off:
        needed = math.ceil(n * (STANDARD_ERRORS * standard_error / most) ** 2)
        message += f"; too few images to tell, take about {needed}"
    if off and card.known_mismatch is not None:
        message += f"; this file is {card.known_mismatch}"
    return Verdict(not (off or too_few), bits_per_dim, expected, tolerance, n, message)


def _refuse_scoreless(card: PretrainedCard) -> float:
    """The card's score."""
    if card.expected_bits_per_dim is None:
        raise ConfigurationError(f"no score is published for this model: {card.description}")
    return card.expected_bits_per_dim
