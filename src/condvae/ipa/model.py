"""A frozen VAE and a conditional distribution over its latents.

References:
    W. Harvey, S. Naderiparizi, F. Wood. Conditional image generation by conditioning variational
    auto-encoders. ICLR 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from condvae.ground.distributions import DiagonalGaussian
from condvae.ipa.partial_encoder import ConditionalLatents
from condvae.vdvae.decoder import LatentGroup
from condvae.vdvae.model import VDVAE, Noise

__all__ = ["ConditionalModel", "Trunk", "run_trunk"]


@dataclass(frozen=True)
class Trunk:
    """One pass of the unconditional model over full images.

    Because z comes from q, nothing here depends on the conditional part: every head can be evaluated
    from one trunk.

    Attributes:
        hidden: L tensors (B,width,R,R), the hidden state each group sees; fewer when the pass
            stopped earlier.
        posteriors: As many distributions q(z | z above, x).
        latents: As many tensors (B,Z,R,R) drawn from q.
        output: (B,width,H,W) the decoder's output, empty unless asked for.
        priors: As many distributions p(z | z above), none unless asked for.
    """

    hidden: list[Tensor]
    posteriors: list[DiagonalGaussian]
    latents: list[Tensor]
    output: Tensor
    priors: list[DiagonalGaussian] = field(default_factory=list)

    def repeat(self, times: int) -> Trunk:
        """The same pass for `times` copies of the batch, one after another; the output is left out."""
        if times == 1:
            return self

        def tile(x: Tensor) -> Tensor:
            return x.repeat(times, 1, 1, 1)

        def tiled(groups: list[DiagonalGaussian]) -> list[DiagonalGaussian]:
            return [DiagonalGaussian(tile(g.mean), tile(g.log_std)) for g in groups]

        return Trunk(
            [tile(h) for h in self.hidden],
            tiled(self.posteriors),
            [tile(z) for z in self.latents],
            self.output[:0],
            tiled(self.priors),
        )


def run_trunk(
    vae: VDVAE,
    pixels: Tensor,
    noise: Noise,
    *,
    output: bool = False,
    priors: bool = False,
    groups: int | None = None,
    gradients: bool = False,
) -> Trunk:
    """Draw z ~ q(z | x) with the unconditional model and keep what the heads need.

    Args:
        vae: The frozen model.
        pixels: uint8 (B,C,H,W).
        noise: Gives standard normal noise of ``group.latent_shape``.
        output: Also run what lies below the last latent (scores and the training of decoders).
        priors: Also keep the priors (only residual heads need them). They are computed on the way
            down in any case, but for the last group's.
        groups: Without `output`, stop after so many groups; None = all.
        gradients: Record them, for a model that is trained too.
    """
    hidden: list[Tensor] = []
    kept_priors: list[DiagonalGaussian] = []
    posteriors: list[DiagonalGaussian] = []
    latents: list[Tensor] = []
    with torch.set_grad_enabled(gradients and torch.is_grad_enabled()):
        activations = vae.encode(pixels)

        def from_posterior(group: LatentGroup, h: Tensor) -> Tensor:
            posterior = group.block.posterior(h, activations[group.block.resolution])
            z = posterior.sample(noise(group))
            # The first hidden state is a parameter or a view of one, no_grad or not.
            hidden.append(h if gradients else h.detach())
            posteriors.append(posterior)
            latents.append(z)
            if priors:
                p = group.prior
                # Views of it would keep the prior block's whole output, mostly skip features.
                kept_priors.append(DiagonalGaussian(p.mean.clone(), p.log_std.clone()))
            return z

        result = vae.decoder.descend(from_posterior, pixels.shape[0], output=output, groups=groups)
    return Trunk(hidden, posteriors, latents, result, kept_priors)


@dataclass(frozen=True)
class ConditionalModel:
    """p(x | y) = ∫ p(x | z) c(z | y) dz: the decoder never sees y.

    Attributes:
        vae: The unconditional model.
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
        kept: Sequence[Tensor] = (),
    ) -> Tensor:
        """Draw all latents from c(z | y) and decode.

        Args:
            features: From ``latents.encode``, already expanded to `batch_size`.
            batch_size: B.
            noise: Gives standard normal noise of ``group.latent_shape``.
            temperature: Multiplies every standard deviation; one number or one per group.
            kept: Latents of the first groups, taken in place of a draw, whose noise is passed over.

        Returns:
            Likelihood parameters (B,P,H,W).
        """

        def from_condition(group: LatentGroup, h: Tensor) -> Tensor:
            t = temperature[group.index] if isinstance(temperature, tuple) else temperature
            own = noise(group)
            if group.index < len(kept):
                return kept[group.index]
            return self.latents.distribution(group, h, features).sample(own, t)

        output = self.vae.decoder.descend(from_condition, batch_size)
        return self.vae.decoder.likelihood_parameters(output)

    def rate_nats(self, pixels: Tensor, condition: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """KL(q || c) of every group along a draw from q, and the decoder's output for that draw.

        Groups with a flow or a mixture give the unbiased estimate of `forward_kl`.

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
            z = posterior.sample(noise(group))
            rates.append(conditional.kl_from(posterior, z).flatten(1).sum(dim=1))
            return z

        output = self.vae.decoder.descend(from_posterior, pixels.shape[0])
        return torch.stack(rates, dim=1), output

    def reverse_terms(
        self, features: dict[int, Tensor], pixels: Tensor, mask: Tensor, noise: Noise
    ) -> tuple[Tensor, Tensor]:
        """Terms of the bound on -log p(y) for a y of exactly known pixels, along a draw from c.

        -log p(y) <= sum_l KL(c(z_l | z above, y) || p(z_l | z above)) + E_c[-log p(y | z)]
        (O_rev of Harvey et al. 2022). Neither the encoder nor the posterior heads are used.

        Args:
            features: From ``latents.encode``.
            pixels: uint8 (B,C,H,W), known values.
            mask: bool (B,1,H,W), true = known.
            noise: Standard normal noise per group.

        Returns:
            (B,L) the KL of every group, for flows and mixtures an unbiased estimate, and (B)
            -log p(y | z); nats.
        """
        rates = []

        def from_condition(group: LatentGroup, h: Tensor) -> Tensor:
            conditional = self.latents.distribution(group, h, features)
            z = conditional.sample(noise(group))
            rates.append(group.prior.kl_from(conditional, z).flatten(1).sum(dim=1))
            return z

        output = self.vae.decoder.descend(from_condition, pixels.shape[0])
        # Chosen, not multiplied: nothing an unobserved place scores may leak in.
        seen = torch.where(mask[:, 0], self.vae.pixel_nats(output, pixels), 0.0)
        return torch.stack(rates, dim=1), seen.sum(dim=(1, 2))
