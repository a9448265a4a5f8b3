"""Guidance: completions that follow what was observed more closely, or less, than the posterior does.

References:
    J. Ho, T. Salimans. Classifier-free diffusion guidance. NeurIPS workshop, 2021.
    Latent-VAE, arXiv 2303.13714, 2023: the extrapolation of means and variances.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from condvae.ground.configuration import ConfigurationError, check_choice, check_positive
from condvae.ground.distributions import ConditionalDistribution, DiagonalGaussian
from condvae.ipa.partial_encoder import ConditionalLatents
from condvae.posterior.image_posterior import ImagePosterior
from condvae.vdvae.decoder import LatentGroup

__all__ = [
    "GUIDANCE_RULES",
    "GuidedLatents",
    "describe_guidance",
    "extrapolate_gaussian",
    "guide_gaussian",
    "guide_posterior",
]

GUIDANCE_RULES = ("product", "extrapolation")


def guide_gaussian(
    conditional: DiagonalGaussian, prior: DiagonalGaussian, weight: float
) -> DiagonalGaussian:
    """Return the normal law proportional to ``conditional^weight * prior^(1 - weight)``.

    Its precision is ``weight / conditional variance + (1 - weight) / prior variance``.

    Args:
        conditional: c(z | z above, y), (B,Z,R,R).
        prior: p(z | z above), of the same shape.
        weight: 1 gives `conditional` itself, 0 `prior`; above 1 both its difference from the prior
            and, where it is narrower than the prior, its certainty are exaggerated.

    Raises:
        ConfigurationError: A precision that is not positive: above 1 where `conditional` is wider
            than the prior by too much, so that there is no such law.
    """
    if weight == 1.0:
        return conditional
    if weight == 0.0:
        return prior
    ratio = torch.exp(2.0 * (conditional.log_std - prior.log_std))
    # Precisions in units of the conditional's.
    precision = weight + (1.0 - weight) * ratio
    if not bool((precision > 0).all()):
        widest = float(ratio.max())
        raise ConfigurationError(
            f"guidance = {weight!r}: the variance of c(z | y) is up to {widest:.3g} times the "
            f"prior's; expected below {widest / (widest - 1.0):.3g}"
        )
    mean = (weight * conditional.mean + (1.0 - weight) * ratio * prior.mean) / precision
    return DiagonalGaussian(mean, conditional.log_std - 0.5 * precision.log())


def extrapolate_gaussian(
    conditional: DiagonalGaussian, prior: DiagonalGaussian, weight: float
) -> DiagonalGaussian:
    """Return the normal law whose mean and log variance lie on the line from `prior` to `conditional`.

    The mean is ``mean_p + w (mean_c - mean_p)``, the variance ``var_p (var_c / var_p)^w``: the rule of
    Latent-VAE with both of its weights w - 1. Unlike the product there is such a law for every weight;
    where `conditional` is the wider one, a weight above 1 widens it further.

    Args:
        conditional: c(z | z above, y), (B,Z,R,R).
        prior: p(z | z above), of the same shape.
        weight: 1 gives `conditional` itself, 0 `prior`.
    """
    if weight == 1.0:
        return conditional
    if weight == 0.0:
        return prior
    return DiagonalGaussian(
        prior.mean + weight * (conditional.mean - prior.mean),
        prior.log_std + weight * (conditional.log_std - prior.log_std),
    )


class GuidedLatents(nn.Module):
    """Latents drawn group by group between c(z | y) and the prior p(z), or beyond c(z | y).

    The counterpart of classifier-free guidance (Ho and Salimans 2021), with the frozen prior as the
    unconditional branch. Groups of weight 1 and 0 may have any distribution, all others need Gaussian
    ones. Weights of 1 for the first groups and 0 for the rest take only the coarse content from y.

    Args:
        latents: c(z | y).
        weight: w >= 0, one number or one per group. Only w = 1 is the posterior.
        rule: One of `GUIDANCE_RULES`: ``product``, c(z | y)^w p(z)^(1 - w) normalised, see
            `guide_gaussian`; ``extrapolation``, see `extrapolate_gaussian`.
    """

    def __init__(
        self,
        latents: ConditionalLatents,
        weight: float | Sequence[float],
        rule: str = GUIDANCE_RULES[0],
    ) -> None:
        super().__init__()
        self.latents = latents
        self.weight = weight if isinstance(weight, (int, float)) else tuple(weight)
        self.rule = rule

    def encode(self, condition: Tensor) -> dict[int, Tensor]:
        """Condition (B,Cy,H,W) -> features per resolution."""
        return self.latents.encode(condition)

    def distribution(
        self, group: LatentGroup, h: Tensor, features: dict[int, Tensor]
    ) -> ConditionalDistribution:
        """The guided distribution of one group.

        Raises:
            ConfigurationError: A head with a flow, or a weight too large for the rule ``product``; see
                `guide_gaussian`.
        """
        weight = self.weight[group.index] if isinstance(self.weight, tuple) else self.weight
        if weight == 0.0:
            return group.prior
        conditional = self.latents.distribution(group, h, features)
        if weight == 1.0:
            return conditional
        where = f"latent group {group.index} ({group.block.resolution} pixels)"
        if not isinstance(conditional, DiagonalGaussian):
            raise ConfigurationError(
                f"guidance = {weight!r}: {where} has a {type(conditional).__name__}; guidance needs "
                "Gaussian heads, expected 1 (none) for groups with a flow or a mixture"
            )
        if self.rule == "extrapolation":
            return extrapolate_gaussian(conditional, group.prior, weight)
        try:
            return guide_gaussian(conditional, group.prior, weight)
        except ConfigurationError as error:
            raise ConfigurationError(f"{error} in {where}") from None


def guide_posterior(
    posterior: ImagePosterior,
    weight: float | Sequence[float],
    rule: str = GUIDANCE_RULES[0],
) -> ImagePosterior:
    """Return a posterior that shares all weights and draws from `GuidedLatents`.

    Its card says so under ``guidance`` (and ``guidance_rule``, unless it is ``product``), and has no
    scores of validation images, which hold for w = 1.

    Args:
        posterior: Stays as it is.
        weight: w >= 0, one number or one per group; 1 returns `posterior` itself.
        rule: One of `GUIDANCE_RULES`.

    Raises:
        ConfigurationError: A negative weight, a wrong number of them, or an unknown rule.
    """
    check_choice("guidance_rule", rule, GUIDANCE_RULES)
    weights = [weight] if isinstance(weight, (int, float)) else list(weight)
    groups = len(posterior.model.vae.architecture.decoder_blocks)
    if not isinstance(weight, (int, float)) and len(weights) != groups:
        raise ConfigurationError(
            f"guidance with {len(weights)} values: expected one number or {groups}, one per latent "
            "group"
        )
    for value in weights:
        check_positive("guidance", value, zero=True)
    if all(value == 1.0 for value in weights):
        return posterior
    model = dataclasses.replace(
        posterior.model, latents=GuidedLatents(posterior.model.latents, weight, rule)
    )
    card = {key: value for key, value in posterior.card.items() if key != "input_reference"}
    guidance = weight if isinstance(weight, (int, float)) else list(weight)
    said = describe_guidance(guidance, rule)
    return dataclasses.replace(posterior, model=model, card={**card, **said})


def describe_guidance(weight: float | list[float], rule: str) -> dict[str, Any]:
    """What a card or a record says of guidance: nothing for weight 1, the rule if not ``product``."""
    if weight == 1.0:
        return {}
    return {"guidance": weight, **({} if rule == GUIDANCE_RULES[0] else {"guidance_rule": rule})}
