"""Guidance of a flat model: latents that follow y more closely than p(z | y) does.

The law that guidance stands for is proportional to ``p(z | y)^w p(z | unknown)^(1 - w)``: where y makes
a latent likelier than knowing nothing does, it becomes likelier still.

References:
    J. Ho, T. Salimans. Classifier-free diffusion guidance. NeurIPS workshop, 2021.
    D. Rubin. Using the SIR algorithm to simulate posterior distributions. Bayesian Statistics 3, 1988.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from condvae.cvae.model import FlatVAE
from condvae.ground.configuration import ConfigurationError, check_positive
from condvae.ground.distributions import DiagonalGaussian
from condvae.posterior.guidance import guide_gaussian

__all__ = ["CANDIDATES", "check_guidance", "choose_candidates", "guide_prior", "is_gaussian"]

CANDIDATES = 64
"""Draws of p(z | y) of which guidance chooses one, where the prior is no Gaussian."""


def check_guidance(model: FlatVAE, weight: float) -> None:
    """Refuse a weight that this model cannot be guided by.

    Raises:
        ConfigurationError: A negative weight; of a prior that does not depend on y, or a model that
            never saw an unknown attribute, any but 1; below 1 where the prior is no Gaussian.
    """
    check_positive("guidance", weight, zero=True)
    if weight == 1.0:
        return
    prior = f"guidance = {weight!r}: prior = {model.config.prior!r}"
    if model.prior_conditions is None:
        raise ConfigurationError(f"{prior} does not depend on y; expected 1 (none)")
    if model.config.drop_share == 0.0:
        raise ConfigurationError(
            f"guidance = {weight!r}: with drop_share = 0.0 training never saw an unknown attribute, "
            "which guidance compares with; expected 1 (none)"
        )
    if weight < 1.0 and not is_gaussian(model):
        raise ConfigurationError(
            f"{prior} is guided by a choice among draws of p(z | y), which are too much alike for "
            "weights below 1; expected at least 1"
        )


def is_gaussian(model: FlatVAE) -> bool:
    """Whether p(z | y) is a Gaussian of y, so that the guided law is one too."""
    return model.config.prior == "gaussian"


def _unknown_context(model: FlatVAE) -> Tensor:
    """Features (1,E) of the condition that knows nothing, as the prior takes them."""
    unknown = torch.full((1, len(model.attributes)), math.nan, device=model.device)
    return model.prior_context(unknown)


def guide_prior(model: FlatVAE, context: Tensor, weight: float) -> DiagonalGaussian:
    """Return the guided law of a Gaussian prior, exactly.

    Args:
        model: With the prior ``gaussian``.
        context: (P,E), features of y for the prior.
        weight: w >= 0.

    Returns:
        Mean and log-std (P,Z).

    Raises:
        ConfigurationError: There is no such law, see `condvae.posterior.guidance.guide_gaussian`.
    """
    unknown = _unknown_context(model).expand(len(context), -1)
    return guide_gaussian(_gaussian_of(model, context), _gaussian_of(model, unknown), weight)


def choose_candidates(
    model: FlatVAE, candidates: Tensor, context: Tensor, uniform: Tensor, weight: float
) -> Tensor:
    """Choose one of M draws of p(z | y), with a probability that grows with what y says of it.

    Candidate z is chosen with probability proportional to ``(p(z | y) / p(z | unknown))^(w - 1)``
    (sampling-importance-resampling, Rubin 1988). The result approaches the guided law as M grows. For
    a given M it stays within ln M nats of p(z | y), whatever the weight: large weights are held back.

    Args:
        model: Gives both densities.
        candidates: (P,M,Z), draws of p(z | y).
        context: (P,E), features of y for the prior.
        uniform: (P,M), in [0, 1): decides which is chosen.
        weight: w >= 1.

    Returns:
        (P,Z).
    """
    p, m, _ = candidates.shape
    flat = candidates.flatten(0, 1)
    own = model.prior.log_prob(flat, context.repeat_interleave(m, dim=0))
    ratio = own - model.prior.log_prob(flat, _unknown_context(model).expand(p * m, -1))
    # The largest of logits with Gumbel noise is a draw of the categorical that they are the logits of.
    gumbel = -torch.log(-torch.log(uniform.double()))
    scores = (weight - 1.0) * ratio.double().reshape(p, m) + gumbel.to(ratio.device)
    return candidates[torch.arange(p, device=candidates.device), scores.argmax(dim=1)]


def _gaussian_of(model: FlatVAE, context: Tensor) -> DiagonalGaussian:
    # Two points tell a map from noise that is linear.
    zero = torch.zeros(len(context), model.config.latents, dtype=context.dtype, device=model.device)
    mean = model.prior.from_base(zero, context)
    return DiagonalGaussian(mean, (model.prior.from_base(zero + 1.0, context) - mean).log())
