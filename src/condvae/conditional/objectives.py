"""Training objectives of the conditional part."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from condvae.conditional.model import Trunk
from condvae.conditional.partial_encoder import PartialEncoder
from condvae.distributions import DiagonalGaussian

__all__ = ["forward_kl"]


def forward_kl(
    trunk: Trunk,
    partial: PartialEncoder,
    condition: Tensor,
    *,
    log_std_floor: float | None = None,
) -> Tensor:
    """KL(q(z | x) || c(z | y)) per group, z drawn from q: IPA's objective O_for.

    Minimising its mean over images and conditions minimises the mass-covering divergence
    KL(r(z | y) || c(z | y)), whatever the frozen model (Harvey et al. 2022, theorem 1).

    Args:
        trunk: The frozen model's pass over the whole images, with its priors where
            ``partial.needs_prior``.
        partial: Gradients go here and nowhere else.
        condition: (B,Cy,H,W).
        log_std_floor: Count smaller log-stds of c and q as this value, gradients passing as if they
            were not changed. Copied posterior heads meet inputs they never saw and start with log-stds
            down to -26, where the KL overflows; a floor keeps gradients finite until they have
            learned better. None = the exact KL.

    Returns:
        (B,L) in nats; exact wherever no log-std is below the floor.

    Raises:
        ValueError: The trunk was run without the priors that residual heads need.
    """
    features = partial.encode(condition)
    priors: Sequence[DiagonalGaussian | None] = trunk.priors
    if not partial.needs_prior:
        priors = [None] * len(trunk.hidden)
    elif not priors:
        raise ValueError("trunk.priors = []: residual heads need run_trunk(..., priors=True)")
    rates = []
    for index, (h, q, p) in enumerate(zip(trunk.hidden, trunk.posteriors, priors, strict=True)):
        posterior = q
        conditional = partial.head(index).distribution(h, features[h.shape[2]], p)
        if log_std_floor is not None:
            log_std = conditional.log_std
            lifted = log_std + (log_std.clamp(min=log_std_floor) - log_std).detach()
            conditional = DiagonalGaussian(conditional.mean, lifted)
            # The same floor for q: else c would be pulled below it for ever where q is narrower.
            posterior = DiagonalGaussian(q.mean, q.log_std.clamp(min=log_std_floor))
        rates.append(conditional.kl_from(posterior).flatten(1).sum(dim=1))
    return torch.stack(rates, dim=1)
