"""From conditions and noise to images: the parts that `condvae.cvae.generation` is made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from condvae.cvae.guidance import CANDIDATES, choose_candidates, guide_prior, is_gaussian
from condvae.cvae.model import FlatVAE
from condvae.ground.attributes import check_conditions
from condvae.ground.noise import case_generator

__all__ = ["Features", "ImageNoise", "decode", "draw_latents", "draw_noise", "encode_conditions"]


@dataclass(frozen=True)
class Features:
    """What networks see of B conditions.

    Attributes:
        prior: (B,E).
        decoder: (B,E), None where the decoder does not see y.
    """

    prior: Tensor
    decoder: Tensor | None

    def part(self, rows: Tensor) -> Features:
        """Those of some conditions, int64 (P,)."""
        here = rows.to(self.prior.device)
        return Features(self.prior[here], None if self.decoder is None else self.decoder[here])

    def towards(self, other: Features, share: float) -> Features:
        """On the straight line from here, share 0, to `other`, share 1; exact at both ends."""
        prior = (1.0 - share) * self.prior + share * other.prior
        if self.decoder is None or other.decoder is None:
            return Features(prior, None)
        return Features(prior, (1.0 - share) * self.decoder + share * other.decoder)


def encode_conditions(model: FlatVAE, y: Tensor) -> Features:
    """Features of conditions y (B,A), nan = unknown.

    Raises:
        ConfigurationError: Conditions that do not fit the model's attributes.
    """
    check_conditions(model.attributes, y)
    y = y.to(model.device)
    decoder = None
    if model.conditions is not None and model.config.decoder_sees_y:
        decoder = model.conditions(y)
    return Features(model.prior_context(y), decoder)


@dataclass(frozen=True)
class ImageNoise:
    """All that is random about P images.

    Attributes:
        names: Seed, case id and number of each.
        normals: (P,Z), base noise of the prior.
        component: (P,), in [0, 1), for the component of a mixture.
        pixels: (P,·,H,W), in [0, 1), for the likelihood.
    """

    names: tuple[tuple[int, str, int], ...]
    normals: Tensor
    component: Tensor
    pixels: Tensor

    def part(self, rows: Tensor) -> ImageNoise:
        """That of some images, int64 (P,)."""
        names = tuple(self.names[row] for row in rows.tolist())
        here = rows.to(self.normals.device)
        return ImageNoise(names, self.normals[here], self.component[here], self.pixels[here])

    def on_arc(self, other: ImageNoise, share: float) -> ImageNoise:
        """On the arc ``cos(t) a + sin(t) b`` between the normals, t = share * π/2.

        It is standard normal for every t where both are, and independent. Components and pixels are
        those of the nearer end.
        """
        if share in (0.0, 1.0):  # the ends are exact, which sines are not
            return other if share else self
        angle = 0.5 * math.pi * share
        normals = math.cos(angle) * self.normals + math.sin(angle) * other.normals
        near = self if share < 0.5 else other
        return ImageNoise(near.names, normals, near.component, near.pixels)


def draw_noise(
    model: FlatVAE, seed: int, case_ids: Sequence[str], numbers: Sequence[int]
) -> ImageNoise:
    """Draw what (seed, case id, number) decide, in float32 on the CPU: the same on every device.

    Args:
        model: Gives shapes, type and device.
        seed: Any integer.
        case_ids: (P), case of each image.
        numbers: (P), which of its case's images it is.
    """
    names = tuple((seed, *name) for name in zip(case_ids, numbers, strict=True))
    size, channels = model.contract.size, model.likelihood.noise_channels
    normals = torch.empty(len(names), model.config.latents, dtype=torch.float32)
    component = torch.empty(len(names), dtype=torch.float32)
    pixels = torch.empty(len(names), channels, size, size, dtype=torch.float32)
    for row, (_, case_id, number) in enumerate(names):
        generator = case_generator(seed, case_id, str(number))
        torch.randn(normals.shape[1:], generator=generator, out=normals[row])
        torch.rand((), generator=generator, out=component[row])
        torch.rand(pixels.shape[1:], generator=generator, out=pixels[row])
    where = model.device, model.dtype
    return ImageNoise(names, normals.to(*where), component.to(*where), pixels.to(*where))


def draw_latents(
    model: FlatVAE,
    noise: ImageNoise,
    features: Features,
    temperature: float = 1.0,
    guidance: float = 1.0,
) -> Tensor:
    """Draw z (P,Z) from p(z | y), or the law that guidance makes of it; see `condvae.cvae.guidance`.

    Args:
        model: Gives the prior.
        noise: Of P images.
        features: Of their P conditions.
        temperature: Multiplies the normals, those of candidates too.
        guidance: Weight w; 1 = none.
    """
    context = features.prior
    if guidance == 1.0:
        return model.prior.sample(noise.normals, context, temperature, noise.component)
    if is_gaussian(model):
        return guide_prior(model, context, guidance).sample(noise.normals, temperature)
    normals, component, choice = _draw_candidates(model, noise)
    candidates = model.prior.sample(
        normals.flatten(0, 1),
        context.repeat_interleave(CANDIDATES, dim=0),
        temperature,
        component.flatten(),
    )
    return choose_candidates(model, candidates.reshape(normals.shape), context, choice, guidance)


def decode(model: FlatVAE, z: Tensor, features: Features, uniform: Tensor | None = None) -> Tensor:
    """Turn latents (P,Z) into images uint8 (P,C,H,W) on the CPU.

    Args:
        model: Gives the decoder, as `FlatVAE.decode` uses it.
        z: (P,Z).
        features: Of P conditions.
        uniform: `ImageNoise.pixels`, for a draw of the likelihood; None = its mean.
    """
    parameters: Tensor = model.decoder(z.to(model.dtype), features.decoder)
    parameters = parameters.to(torch.promote_types(parameters.dtype, torch.float32))
    if uniform is None:
        return model.mean_image(parameters).cpu()
    return model.sample_image(parameters, uniform).cpu()


def _draw_candidates(model: FlatVAE, noise: ImageNoise) -> tuple[Tensor, Tensor, Tensor]:
    """Normals (P,M,Z), uniforms (P,M) for a mixture's components and (P,M) for the choice."""
    shape = len(noise.names), CANDIDATES
    normals = torch.empty(*shape, model.config.latents, dtype=torch.float32)
    component, choice = (torch.empty(shape, dtype=torch.float32) for _ in range(2))
    for row, (seed, case_id, number) in enumerate(noise.names):
        generator = case_generator(seed, case_id, f"{number} candidates")
        torch.randn(normals.shape[1:], generator=generator, out=normals[row])
        torch.rand(CANDIDATES, generator=generator, out=component[row])
        torch.rand(CANDIDATES, generator=generator, out=choice[row])
    where = model.device, model.dtype
    return normals.to(*where), component.to(*where), choice.to(*where)
