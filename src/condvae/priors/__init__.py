"""Conditional densities over latents. The core rooms find this one by name, when they need it."""

from condvae.priors.flows import CouplingFlow, FlowDistribution, transformed_elements
from condvae.priors.univariate import UNIVARIATES, Univariate

__all__ = [
    "UNIVARIATES",
    "CouplingFlow",
    "FlowDistribution",
    "Univariate",
    "transformed_elements",
]
