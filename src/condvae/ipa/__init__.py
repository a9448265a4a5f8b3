"""The conditional model: a frozen VAE and c(z | y) (Harvey, Naderiparizi, Wood 2022)."""

from condvae.ipa.model import ConditionalModel, Trunk, run_trunk
from condvae.ipa.objective import forward_kl
from condvae.ipa.partial_encoder import (
    INITIALISATIONS,
    ConditionalLatents,
    PartialEncoder,
    UnconditionalLatents,
    heads_for,
    initialise,
)

__all__ = [
    "INITIALISATIONS",
    "ConditionalLatents",
    "ConditionalModel",
    "PartialEncoder",
    "Trunk",
    "UnconditionalLatents",
    "forward_kl",
    "heads_for",
    "initialise",
    "run_trunk",
]
