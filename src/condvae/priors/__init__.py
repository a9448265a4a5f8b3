"""Conditional densities over latents. The core rooms find this one by name, when they need it."""

from condvae.priors.flows import CouplingFlow, FlowDistribution, transformed_elements
from condvae.priors.group_mixture import GroupMixture, MixtureDistribution
from condvae.priors.univariate import UNIVARIATES, Univariate
from condvae.priors.vector import PRIORS, ConditionalPrior, make_prior

__all__ = [
    "PRIORS",
    "UNIVARIATES",
    "ConditionalPrior",
    "CouplingFlow",
    "FlowDistribution",
    "GroupMixture",
    "MixtureDistribution",
    "Univariate",
    "make_prior",
    "transformed_elements",
]
