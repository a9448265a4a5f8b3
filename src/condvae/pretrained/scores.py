"""Does a model score what its publisher says?"""

from __future__ import annotations

import math
from dataclasses import dataclass

from condvae.configuration import ConfigurationError, check_positive
from condvae.pretrained.cards import PretrainedCard

__all__ = ["Verdict", "check_score"]

# The published figures are rounded to two or three digits, and their latents were drawn differently.
ROUNDING_BITS = 0.005
# The subset of images differs from sample to sample.
STANDARD_ERRORS = 3.0
# A check that would let a score pass which is off by more than this share is none.
LARGEST_SHARE = 0.025


@dataclass(frozen=True)
class Verdict:
    """Whether a measured score agrees with the published one.

    Attributes:
        passed: It does, and enough images were used to say so.
        bits_per_dim: Measured.
        expected: Published.
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


def check_score(
    bits_per_dim: float, standard_error: float, n: int, card: PretrainedCard
) -> Verdict:
    """Compare a measured score with the card's.

    Passes when they differ by at most 0.005 bits (rounding of the published figure) plus 3 standard
    errors, in either direction: a score that is too good is as wrong as one that is too bad. When 3
    standard errors are more than 2.5 % of the published score the images are too few, and it fails.

    Args:
        bits_per_dim: Mean over `n` test images.
        standard_error: Of that mean, over images.
        n: Number of images.
        card: With `expected_bits_per_dim`.

    Returns:
        The verdict; a measured value that is not finite fails.

    Raises:
        ConfigurationError: The card has no published score, or `n` or `standard_error` is impossible.
    """
    expected = card.expected_bits_per_dim
    if expected is None:
        raise ConfigurationError(f"no score is published for this model: {card.description}")
    check_positive("n", n)
    if not (math.isfinite(standard_error) and standard_error >= 0):
        raise ConfigurationError(f"standard_error = {standard_error!r}: expected finite and >= 0")
    tolerance = ROUNDING_BITS + STANDARD_ERRORS * standard_error
    difference = bits_per_dim - expected
    most = LARGEST_SHARE * expected
    off = not (math.isfinite(bits_per_dim) and abs(difference) <= tolerance)
    too_few = STANDARD_ERRORS * standard_error > most
    outcome = "FAIL" if off or too_few else "pass"
    message = (
        f"{outcome}: {bits_per_dim:.4f} bits/dim (standard error {standard_error:.4f}) on {n} images, "
        f"published {expected:.4f} on {card.scored_on or 'images not stated'}; difference "
        f"{difference:+.4f}, tolerance {tolerance:.4f}"
    )
    if too_few and not off:
        needed = math.ceil(n * (STANDARD_ERRORS * standard_error / most) ** 2)
        message += f"; too few images to tell, take about {needed}"
    if off and card.known_mismatch is not None:
        message += f"; this file is {card.known_mismatch}"
    return Verdict(not (off or too_few), bits_per_dim, expected, tolerance, n, message)
