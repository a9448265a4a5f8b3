"""Training objectives of the conditional part."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from condvae.ground.distributions import DiagonalGaussian
from condvae.ipa.model import Trunk
from condvae.ipa.partial_encoder import PartialEncoder

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
        trunk: The model's pass over the whole images, with its priors where ``partial.needs_prior``
            or where it goes through groups without a head, whose c is the prior.
        partial: Gradients go here, and where the trunk was run with them into the model.
        condition: (B,Cy,H,W).
        log_std_floor: Count smaller log-stds of c and q as this value, gradients passing as if they
            were not changed. Copied posterior heads meet inputs they never saw and start with log-stds
            down to -26, where the KL overflows; a floor keeps gradients finite until they have
            learned better. None = the exact KL.

    Returns:
        (B,L) in nats; exact wherever no log-std is below the floor. For groups with a flow, or
        a mixture, an unbiased estimate from the trunk's draw, see `FlowDistribution.kl_from`.

    Raises:
        ValueError: The trunk was run without the priors that are needed.
    """
    features = partial.encode(condition)
    priors: Sequence[DiagonalGaussian | None] = trunk.priors
    if not priors:
        if partial.needs_prior:
            raise ValueError("trunk.priors = []: residual heads need run_trunk(..., priors=True)")
        priors = [None] * len(trunk.hidden)
    rates = []
    groups = zip(trunk.hidden, trunk.posteriors, priors, trunk.latents, strict=True)
    for index, (h, q, p, z) in enumerate(groups):
        posterior = q
        conditional = partial.conditional(index, h, features[h.shape[2]], p)
        if log_std_floor is not None:
            conditional = conditional.with_floor(log_std_floor)
            # The same floor for q: else c would be pulled below it for ever where q is narrower.
            posterior = DiagonalGaussian(q.mean, q.log_std.clamp(min=log_std_floor))
            if q.log_std.requires_grad:  # a trained q must be able to come back up
                posterior = q.with_floor(log_std_floor)
        rates.append(conditional.kl_from(posterior, z).flatten(1).sum(dim=1))
    return torch.stack(rates, dim=1)
