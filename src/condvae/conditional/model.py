"""A frozen VAE and a conditional distribution over its latents.

References:
    W. Harvey, S. Naderiparizi, F. Wood. Conditional image generation by conditioning variational
    auto-encoders. ICLR 2022.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from condvae.conditional.partial_encoder import ConditionalLatents
from condvae.distributions import DiagonalGaussian
from condvae.vdvae.decoder import LatentGroup
from condvae.vdvae.model import VDVAE, Noise

__all__ = ["ConditionalModel", "Trunk", "run_trunk"]


@dataclass(frozen=True)
class Trunk:
    """One pass of the frozen model over full images, without gradients.

    Because z comes from q, nothing here depends on the conditional part: every head can be evaluated
    from one trunk.

    Attributes:
        hidden: L tensors (B,width,R,R), the hidden state each group sees.
        posteriors: L distributions q(z | z above, x).
        latents: L tensors (B,Z,R,R) drawn from q.
        output: (B,width,H,W) the decoder's output, empty unless asked for.
        priors: L distributions p(z | z above), none unless asked for.
    """

    hidden: list[Tensor]
    posteriors: list[DiagonalGaussian]
    latents: list[Tensor]
    output: Tensor
    priors: list[DiagonalGaussian] = field(default_factory=list)


def run_trunk(
    vae: VDVAE, pixels: Tensor, noise: Noise, *, output: bool = False, priors: bool = False
) -> Trunk:
    """Draw z ~ q(z | x) with the frozen model and keep what the heads need.

    Args:
        vae: The frozen model.
        pixels: uint8 (B,C,H,W).
        noise: Gives standard normal noise of ``group.latent_shape``.
        output: Also run what lies below the last latent (only scores need it).
        priors: Also keep the priors (only residual heads need them). They are computed on the way
            down in any case, but for the last group's.
    """
    hidden: list[Tensor] = []
    kept_priors: list[DiagonalGaussian] = []
    posteriors: list[DiagonalGaussian] = []
    latents: list[Tensor] = []
    with torch.no_grad():
        activations = vae.encode(pixels)

        def from_posterior(group: LatentGroup, h: Tensor) -> Tensor:
            posterior = group.block.posterior(h, activations[group.block.resolution])
            z = posterior.sample(noise(group))
            # The first hidden state is a parameter or a view of one, no_grad or not.
            hidden.append(h.detach())
            posteriors.append(posterior)
            latents.append(z)
            if priors:
                p = group.prior
                # Views of it would keep the prior block's whole output, mostly skip features.
                kept_priors.append(DiagonalGaussian(p.mean.clone(), p.log_std.clone()))
            return z

        result = vae.decoder.descend(from_posterior, pixels.shape[0], output=output)
    return Trunk(hidden, posteriors, latents, result, kept_priors)


@dataclass(frozen=True)
class ConditionalModel:
    """p(x | y) = ∫ p(x | z) c(z | y) dz: the decoder never sees y.

    Attributes:
        vae: The frozen unconditional model.
        latents: c(z | y).
    """

    vae: VDVAE
    latents: ConditionalLatents

    def sample_output(
        self,
        features: dict[int, Tensor],
        batch_size: int,
        noise: Noise,
        temperature: float | tuple[float, ...] = 1.0,
    ) -> Tensor:
        """Draw all latents from c(z | y) and decode.

        Args:
            features: From ``latents.encode``, already expanded to `batch_size`.
            batch_size: B.
            noise: Gives standard normal noise of ``group.latent_shape``.
            temperature: Multiplies every standard deviation; one number or one per group.

        Returns:
            Likelihood parameters (B,P,H,W).
        """

        def from_condition(group: LatentGroup, h: Tensor) -> Tensor:
            t = temperature[group.index] if isinstance(temperature, tuple) else temperature
            return self.latents.distribution(group, h, features).sample(noise(group), t)

        output = self.vae.decoder.descend(from_condition, batch_size)
        return self.vae.decoder.likelihood_parameters(output)

    def rate_nats(self, pixels: Tensor, condition: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """KL(q || c) of every group along a draw from q, and the decoder's output for that draw.

        Args:
            pixels: uint8 (B,C,H,W), the whole image.
            condition: (B,Cy,H,W).
            noise: Standard normal noise per group.

        Returns:
            (B,L) in nats and (B,width,H,W).
        """
        activations = self.vae.encode(pixels)
        features = self.latents.encode(condition)
        rates = []

        def from_posterior(group: LatentGroup, h: Tensor) -> Tensor:
            posterior = group.block.posterior(h, activations[group.block.resolution])
            conditional = self.latents.distribution(group, h, features)
            rates.append(conditional.kl_from(posterior).flatten(1).sum(dim=1))
            return posterior.sample(noise(group))

        output = self.vae.decoder.descend(from_posterior, pixels.shape[0])
        return torch.stack(rates, dim=1), output
