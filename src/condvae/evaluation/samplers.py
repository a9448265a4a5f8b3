"""The samplers that are compared: the trained posterior and what it must beat."""

from __future__ import annotations

import re

from condvae.ground.configuration import check_choice
from condvae.ground.devices import place
from condvae.ipa import ConditionalModel, PartialEncoder, UnconditionalLatents, initialise
from condvae.posterior.image_posterior import ImagePosterior

__all__ = ["SAMPLER_DEFINITIONS", "make_sampler", "split_temperature"]

SAMPLER_DEFINITIONS = {
    "ipa": "The trained posterior: latents from the partial encoder c(z | y).",
    "untrained": "The same network with random weights: what training the partial encoder is worth.",
    "prior": "Unconditional samples of the VAE with the observed pixels pasted in: what looking at "
    "the observation is worth.",
}

_HEATED = re.compile(r"(?P<name>.+)_t(?P<temperature>\d+(\.\d+)?)")


def split_temperature(name: str, temperature: float) -> tuple[str, float]:
    """Take apart ``ipa_t0.7``: a sampler at a temperature of its own.

    Args:
        name: A key of `SAMPLER_DEFINITIONS`, possibly with ``_t<temperature>`` behind it.
        temperature: Of samplers without one.

    Raises:
        ConfigurationError: Unknown name.
    """
    if found := _HEATED.fullmatch(name):
        name, temperature = found["name"], float(found["temperature"])
    check_choice("sampler", name, SAMPLER_DEFINITIONS)
    return name, temperature


def make_sampler(name: str, posterior: ImagePosterior, seed: int) -> ImagePosterior:
    """Return a sampler that shares the frozen VAE of `posterior`.

    Args:
        name: A key of `SAMPLER_DEFINITIONS`.
        posterior: The trained posterior.
        seed: Of the random weights of ``untrained``.

    Raises:
        ConfigurationError: Unknown name.
    """
    check_choice("sampler", name, SAMPLER_DEFINITIONS)
    vae = posterior.model.vae
    if name == "ipa":
        return posterior
    if name == "prior":
        return ImagePosterior(ConditionalModel(vae, UnconditionalLatents()), posterior.task)
    partial = PartialEncoder(vae, posterior.task.condition_channels(posterior.contract))
    initialise(partial, vae, "random", seed)
    place(partial.to(vae.dtype), vae.device).eval().requires_grad_(False)
    return ImagePosterior(ConditionalModel(vae, partial), posterior.task)
