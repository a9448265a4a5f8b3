"""The unconditional hierarchical VAE (Child 2020)."""

from condvae.vdvae.architecture import Architecture
from condvae.vdvae.architectures import ARCHITECTURES, architecture_named
from condvae.vdvae.decoder import LatentGroup
from condvae.vdvae.model import VDVAE, ElboTerms

__all__ = [
    "ARCHITECTURES",
    "VDVAE",
    "Architecture",
    "ElboTerms",
    "LatentGroup",
    "architecture_named",
]
