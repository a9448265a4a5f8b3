"""The conditional model: a frozen VAE and c(z | y) (Harvey, Naderiparizi, Wood 2022)."""

from condvae.conditional.model import ConditionalModel, Trunk, run_trunk
from condvae.conditional.objectives import forward_kl
from condvae.conditional.partial_encoder import (
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
