"""Terms of the bounds on log-likelihoods that an `ImagePosterior` gives."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

__all__ = ["BoundTerms", "ObservationTerms"]


@dataclass(frozen=True)
class BoundTerms:
    """Terms of the bound on log p(x~ | y), one draw z ~ q(z | x), per case.

    Attributes:
        rate_nats: (B,L), KL(q || c) of every latent group.
        predicted_nats: (B), -log p(x~ | z), unobserved pixels only.
        all_nats: (B), -log p(x | z), every pixel.
        predicted_dimensions: (B), values in x~.
        dimensions: Values in x.
    """

    rate_nats: Tensor
    predicted_nats: Tensor
    all_nats: Tensor
    predicted_dimensions: Tensor
    dimensions: int

    @property
    def bound_bits(self) -> Tensor:
        """(B), upper bound on -log2 p(x~ | y). Divide sums by sums of `predicted_dimensions`."""
        return (self.rate_nats.sum(dim=1) + self.predicted_nats) / math.log(2)

    @property
    def negative_elbo_nats_per_dim(self) -> Tensor:
        """(B), the same with x~ = x, per dimension of x: the number the paper tabulates."""
        return (self.rate_nats.sum(dim=1) + self.all_nats) / self.dimensions


@dataclass(frozen=True)
class ObservationTerms:
    """Terms of the bound on log p(y), y = the observed pixels, mean over draws z ~ c(z | y).

    Attributes:
        rate_nats: (B,L) float64, KL(c || p) of every latent group.
        observed_nats: (B) float64, -log p(observed pixels | z).
        observed_dimensions: (B), observed values.
    """

    rate_nats: Tensor
    observed_nats: Tensor
    observed_dimensions: Tensor

    @property
    def bits_per_observed_dim(self) -> Tensor:
        """(B), upper bound on -log2 p(y) per observed value; nan where nothing is observed."""
        nats = self.rate_nats.sum(dim=1) + self.observed_nats
        bits = nats / math.log(2) / self.observed_dimensions
        return bits.masked_fill(self.observed_dimensions == 0, math.nan)
