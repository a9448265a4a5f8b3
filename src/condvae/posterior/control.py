"""Control over completions: details varied under kept content, and paths between completions.

All of it is arithmetic on the noise that completions are decoded from, which belongs to (seed, case,
number of the completion); guidance has a module of its own, `condvae.posterior.guidance`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from condvae.ground.configuration import ConfigurationError, check_choice, check_positive
from condvae.ground.devices import explain_out_of_memory, plain_inference
from condvae.posterior.image_posterior import DrawNoise, ImagePosterior, noise_by_group
from condvae.tasks.observation import Observation
from condvae.vdvae.architecture import Architecture
from condvae.vdvae.decoder import LatentGroup
from condvae.vdvae.model import Noise

__all__ = [
    "draw_latents",
    "interpolate",
    "temperature_by_resolution",
    "vary_details",
]


def temperature_by_resolution(
    architecture: Architecture, temperatures: Mapping[int, float], other: float = 1.0
) -> tuple[float, ...]:
    """Write temperatures by resolution as one per latent group.

    Args:
        architecture: Of the frozen VAE.
        temperatures: Temperature by resolution in pixels, ``{1: 1.0, 4: 0.9}``.
        other: Temperature of groups of all other resolutions.

    Returns:
        (L,), what `ImagePosterior.sample` takes.

    Raises:
        ConfigurationError: A resolution that no group has.
    """
    resolutions = [block.resolution for block in architecture.decoder_blocks]
    for resolution in temperatures:
        check_choice("resolution of a temperature", resolution, sorted(set(resolutions)))
    return tuple(float(temperatures.get(resolution, other)) for resolution in resolutions)


def draw_latents(
    posterior: ImagePosterior,
    observation: Observation,
    *,
    completion: int = 0,
    temperature: float | Sequence[float] = 1.0,
    seed: int = 0,
    batch_size: int = 256,
) -> list[Tensor]:
    """Return the latents that one completion of each case is decoded from.

    Args:
        posterior: The model.
        observation: B cases.
        completion: Number of the completion, as `ImagePosterior.sample` counts them.
        temperature: See `ImagePosterior.sample`.
        seed: See `ImagePosterior.sample`.
        batch_size: Cases at a time.

    Returns:
        L tensors (B,Z,R,R) in the model's floating type, on the CPU.

    Raises:
        ConfigurationError: A negative `completion`, or as `ImagePosterior.sample`.
    """
    check_positive("completion", completion, zero=True)
    check_positive("batch_size", batch_size)
    t = posterior.check_temperature(temperature)
    vae, model = posterior.model.vae, posterior.model
    observation = observation.to(vae.device, vae.dtype)
    parts: list[list[Tensor]] = []
    for start in range(0, len(observation), batch_size):
        part = observation.part(start, start + batch_size)
        cases = torch.arange(len(part))
        normals, _ = posterior.draw_noise(part, cases, torch.full_like(cases, completion), seed)
        noise = noise_by_group(normals.to(vae.device, vae.dtype))
        drawn: list[Tensor] = []
        with plain_inference(), explain_out_of_memory("batch_size", batch_size):
            features = model.latents.encode(part.condition)

            def from_condition(
                group: LatentGroup,
                h: Tensor,
                features: dict[int, Tensor] = features,
                noise: Noise = noise,
                drawn: list[Tensor] = drawn,
            ) -> Tensor:
                heat = t[group.index] if isinstance(t, tuple) else t
                z = model.latents.distribution(group, h, features).sample(noise(group), heat)
                drawn.append(z)
                return z

            vae.decoder.descend(from_condition, len(part), output=False)
        parts.append([z.cpu() for z in drawn])
    return [torch.cat(of_group) for of_group in zip(*parts, strict=True)]


def vary_details(
    posterior: ImagePosterior,
    observation: Observation,
    n: int,
    *,
    kept_groups: int,
    completion: int = 0,
    temperature: float | Sequence[float] = 1.0,
    seed: int = 0,
    paste_observed: bool = True,
    batch_size: int = 256,
) -> Tensor:
    """Draw completions that share the coarse content of one: its latents of the first groups.

    Image j takes the noise of completion j below them, so that number `completion` is that completion
    itself, and with `kept_groups` 0 all are those of `ImagePosterior.sample`. Pixels are drawn anew in
    each, even if all groups are kept.

    Args:
        posterior: The model.
        observation: B cases.
        n: S, images per case.
        kept_groups: How many groups are kept from the top, 0 to L.
        completion: Number of the completion that they are kept of.
        temperature: See `ImagePosterior.sample`.
        seed: See `ImagePosterior.sample`.
        paste_observed: See `ImagePosterior.sample`.
        batch_size: See `ImagePosterior.sample`.

    Returns:
        uint8 (S,B,C,H,W) on the CPU.

    Raises:
        ConfigurationError: `kept_groups` out of range, or as `draw_latents`.
    """
    groups = len(posterior.model.vae.architecture.decoder_blocks)
    if not 0 <= kept_groups <= groups:
        raise ConfigurationError(f"kept_groups = {kept_groups!r}: expected 0 to {groups}")
    latents = draw_latents(
        posterior,
        observation,
        completion=completion,
        temperature=temperature,
        seed=seed,
        batch_size=batch_size,
    )

    def draw_noise(part: Observation, cases: Tensor, ks: Tensor) -> tuple[Tensor, Tensor]:
        return posterior.draw_noise(part, cases, ks, seed)

    return _decode_all(
        posterior,
        observation,
        n,
        draw_noise,
        temperature=temperature,
        kept=latents[:kept_groups],
        paste_observed=paste_observed,
        batch_size=batch_size,
    )


def interpolate(
    posterior: ImagePosterior,
    observation: Observation,
    seed_a: int,
    seed_b: int,
    steps: int,
    *,
    completion: int = 0,
    temperature: float | Sequence[float] = 1.0,
    paste_observed: bool = True,
    batch_size: int = 256,
) -> Tensor:
    """Go from one completion to another on an arc through the noise they are made from.

    Between independent normals a and b, ``cos(t) a + sin(t) b`` is standard normal for every t from 0
    to π/2, in every latent group alike; the uniforms of the pixels take the same arc as normal
    quantiles. So every image on the way is a valid completion by itself, whatever the heads are.

    Args:
        posterior: The model.
        observation: B cases.
        seed_a: Of the first image: completion `completion` for this seed, exactly.
        seed_b: Of the last one; another seed, for equal noise is not independent.
        steps: S, images with both ends, at least 2.
        completion: Number of the completion in both seeds.
        temperature: See `ImagePosterior.sample`.
        paste_observed: See `ImagePosterior.sample`.
        batch_size: See `ImagePosterior.sample`.

    Returns:
        uint8 (S,B,C,H,W) on the CPU.

    Raises:
        ConfigurationError: Equal seeds, less than 2 steps, or as `ImagePosterior.sample`.
    """
    if seed_a == seed_b:
        raise ConfigurationError(f"seed_a = seed_b = {seed_a!r}: expected two different seeds")
    if steps < 2:
        raise ConfigurationError(f"steps = {steps!r}: expected at least 2, both ends")
    check_positive("completion", completion, zero=True)

    def draw_noise(part: Observation, cases: Tensor, ks: Tensor) -> tuple[Tensor, Tensor]:
        numbers = torch.full_like(ks, completion)
        normals_a, uniforms_a = posterior.draw_noise(part, cases, numbers, seed_a)
        normals_b, uniforms_b = posterior.draw_noise(part, cases, numbers, seed_b)
        angles = ks * (0.5 * math.pi / (steps - 1))
        normals = _on_arc(normals_a, normals_b, angles)
        quantiles = [torch.special.ndtri(u.double()) for u in (uniforms_a, uniforms_b)]
        uniforms = torch.special.ndtr(_on_arc(quantiles[0], quantiles[1], angles))
        # Rounding up to 1 in float32 would leave the half-open interval that uniforms lie in.
        uniforms = uniforms.float().clamp(max=1.0 - 2.0**-24)
        # The ends are exact, which sines and quantiles are not.
        for end, own in ((0, (normals_a, uniforms_a)), (steps - 1, (normals_b, uniforms_b))):
            normals[ks == end], uniforms[ks == end] = own[0][ks == end], own[1][ks == end]
        return normals, uniforms

    return _decode_all(
        posterior,
        observation,
        steps,
        draw_noise,
        temperature=temperature,
        paste_observed=paste_observed,
        batch_size=batch_size,
    )


def _on_arc(a: Tensor, b: Tensor, angles: Tensor) -> Tensor:
    """Rows of ``cos(angle) a + sin(angle) b``, one angle a row, in the type of `a`."""
    shape = (-1, *[1] * (a.ndim - 1))
    cos, sin = (f(angles.double()).to(a.dtype).reshape(shape) for f in (torch.cos, torch.sin))
    return cos * a + sin * b


def _decode_all(
    posterior: ImagePosterior,
    observation: Observation,
    n: int,
    draw_noise: DrawNoise,
    *,
    temperature: float | Sequence[float],
    kept: Sequence[Tensor] = (),
    paste_observed: bool,
    batch_size: int,
) -> Tensor:
    """uint8 (S,B,C,H,W), see `ImagePosterior.decode`."""
    check_positive("n", n)
    result = torch.empty(n, *observation.pixels.shape, dtype=torch.uint8)
    for cases, ks, pixels in posterior.decode(
        observation,
        n,
        draw_noise,
        temperature=temperature,
        kept=kept,
        paste_observed=paste_observed,
        batch_size=batch_size,
    ):
        result[ks, cases] = pixels
    return result
