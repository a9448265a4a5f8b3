"""The unconditional hierarchical VAE.

References:
    R. Child. Very deep VAEs generalize autoregressive models and can outperform them on images.
    ICLR 2021.
    L. Hazami, R. Mama, R. Thurairatnam. Efficient-VDVAE: Less is more. 2022 (the second family).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from condvae.ground.images import DataContract, encoder_input, likelihood_target
from condvae.ground.likelihoods import LogisticMixture
from condvae.vdvae.architecture import Architecture
from condvae.vdvae.decoder import Decoder, LatentGroup
from condvae.vdvae.encoder import new_encoder

__all__ = ["VDVAE", "ElboTerms", "Noise"]

Noise = Callable[[LatentGroup], Tensor]


@dataclass(frozen=True)
class ElboTerms:
    """What the evidence lower bound is made of.

    Attributes:
        rate_nats: (B,L), KL(q || p) of every group.
        pixel_nats: (B,H,W), -log p(pixel | z), all channels of a pixel together.
    """

    rate_nats: Tensor
    pixel_nats: Tensor

    @property
    def negative_elbo_nats(self) -> Tensor:
        """(B), per image."""
        return self.rate_nats.sum(dim=1) + self.pixel_nats.sum(dim=(1, 2))


class VDVAE(nn.Module):
    """Very deep VAE: `encoder`, `decoder` (parameter names of the official layout), likelihood.

    Args:
        architecture: Shapes.
        contract: What the model expects of images; its size and channels must agree.
    """

    def __init__(self, architecture: Architecture, contract: DataContract) -> None:
        super().__init__()
        if (architecture.image_size, architecture.channels) != (contract.size, contract.channels):
            raise ValueError(
                f"architecture for {architecture.channels} x {architecture.image_size}² images, "
                f"data contract for {contract.channels} x {contract.size}²"
            )
        if architecture.is_efficient and contract.bits != 8:
            raise ValueError(
                f"bits = {contract.bits}: in the family efficient_vdvae only 8 are supported (with 5 "
                "its encoder sees, and its mixture ends, otherwise)"
            )
        self.architecture = architecture
        self.contract = contract
        self.likelihood = LogisticMixture(
            architecture.channels,
            architecture.mixtures,
            contract.bits,
            scale="softplus" if architecture.is_efficient else "exp",
        )
        self.encoder = new_encoder(architecture, architecture.channels)
        self.decoder = Decoder(architecture, self.likelihood)

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of the weights."""
        return self.decoder.gain.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.decoder.gain.device

    def encode(self, pixels: Tensor) -> dict[int, Tensor]:
        """uint8 (B,C,H,W) -> activations per resolution."""
        activations: dict[int, Tensor] = self.encoder(
            encoder_input(pixels, self.contract, self.dtype)
        )
        return activations

    def pixel_nats(self, output: Tensor, pixels: Tensor) -> Tensor:
        """-log p(pixel | z) (B,H,W) from the decoder's output and uint8 pixels (B,C,H,W)."""
        parameters = self.decoder.likelihood_parameters(output)
        # The mixture's cumulative probabilities need at least float32.
        parameters = parameters.to(torch.promote_types(parameters.dtype, torch.float32))
        target = likelihood_target(pixels, self.contract, parameters.dtype)
        return -self.likelihood.log_prob(parameters, target)

    def elbo(self, pixels: Tensor, noise: Noise) -> ElboTerms:
        """Terms of the ELBO with one sample from q.

        Args:
            pixels: uint8 (B,C,H,W).
            noise: Gives standard normal noise of ``group.latent_shape``.
        """
        activations = self.encode(pixels)
        rates = []

        def from_posterior(group: LatentGroup, h: Tensor) -> Tensor:
            posterior = group.block.posterior(h, activations[group.block.resolution])
            rates.append(group.prior.kl_from(posterior).flatten(1).sum(dim=1))
            return posterior.sample(noise(group))

        output = self.decoder.descend(from_posterior, pixels.shape[0])
        return ElboTerms(torch.stack(rates, dim=1), self.pixel_nats(output, pixels))
