"""Pixel likelihoods of the flat model behind one interface, on uint8 images."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from condvae.cvae.config import CvaeConfig
from condvae.ground.gaussian_pixels import GaussianPixels
from condvae.ground.images import DataContract, likelihood_target, pixels_from_unit_range
from condvae.ground.likelihoods import LogisticMixture

__all__ = ["GaussianLikelihood", "MixtureLikelihood", "PixelLikelihood", "make_likelihood"]


class PixelLikelihood(Protocol):
    """p(x | parameters) of 8-bit images, parameters (B,P,H,W) from a decoder.

    Attributes:
        parameter_channels: P.
        noise_channels: Channels of the uniform noise that `sample_image` takes.
        needs_uniform: Whether `log_prob` needs uniform noise (B,C,H,W).
    """

    parameter_channels: int
    noise_channels: int
    needs_uniform: bool

    def log_prob(
        self,
        parameters: Tensor,
        pixels: Tensor,
        uniform: Tensor | None = None,
        *,
        fit_variance: bool = False,
    ) -> Tensor:
        """Log-likelihood (B,) of uint8 (B,C,H,W) in nats; see `GaussianPixels.log_prob`."""
        ...

    def mean_image(self, parameters: Tensor) -> Tensor:
        """uint8 (B,C,H,W), the mean rounded to the nearest grey level."""
        ...

    def sample_image(self, parameters: Tensor, uniform: Tensor) -> Tensor:
        """Draw uint8 (B,C,H,W) with uniform noise (B, `noise_channels`, H, W) in [0, 1)."""
        ...


def make_likelihood(
    config: CvaeConfig, contract: DataContract
) -> GaussianLikelihood | MixtureLikelihood:
    """Build the likelihood that `config` names."""
    if config.likelihood == "logistic_mixture":
        return MixtureLikelihood(contract, config.mixtures)
    return GaussianLikelihood(config, contract.channels)


class GaussianLikelihood(GaussianPixels):
    """`GaussianPixels` of so many channels: the decoder gives the mean."""

    def __init__(self, config: CvaeConfig, channels: int) -> None:
        std = 1.0 if config.likelihood == "optimal" else config.fixed_std
        super().__init__(config.likelihood, discretised=config.discretised, std=std)
        self.parameter_channels = channels
        self.noise_channels = channels
        self.needs_uniform = not config.discretised


class MixtureLikelihood(nn.Module):
    """The discretised mixture of logistics; it has no weights of its own."""

    needs_uniform = False

    def __init__(self, contract: DataContract, mixtures: int) -> None:
        super().__init__()
        self.contract = contract
        self.mixture = _Mixture(contract.channels, mixtures)
        self.parameter_channels = self.mixture.parameter_channels
        self.noise_channels = self.mixture.noise_channels

    def log_prob(
        self,
        parameters: Tensor,
        pixels: Tensor,
        uniform: Tensor | None = None,
        *,
        fit_variance: bool = False,
    ) -> Tensor:
        """Log-likelihood (B,) in nats; `uniform` and `fit_variance` change nothing here."""
        del uniform, fit_variance
        parameters = parameters.to(torch.promote_types(parameters.dtype, torch.float32))
        target = likelihood_target(pixels, self.contract, parameters.dtype)
        return self.mixture.log_prob(parameters, target).flatten(1).sum(dim=1)

    def mean_image(self, parameters: Tensor) -> Tensor:
        """uint8 (B,C,H,W), the mean rounded to the nearest grey level."""
        return pixels_from_unit_range(self.mixture.mean(parameters))

    def sample_image(self, parameters: Tensor, uniform: Tensor) -> Tensor:
        """Draw uint8 (B,C,H,W) with uniform noise (B, `noise_channels`, H, W) in [0, 1)."""
        return pixels_from_unit_range(self.mixture.sample(parameters, uniform))


class _Mixture(LogisticMixture):
    def mean(self, parameters: Tensor) -> Tensor:
        """Mean (B,C,H,W) of the continuous mixture, before it is cut off at -1 and 1."""
        logits, means, _, coefficients = self._split(parameters)
        if coefficients is not None:
            # What a channel adds to the next ones: the logistics are symmetric, so means suffice.
            red, green = means[:, 0], means[:, 1] + coefficients[:, 0] * means[:, 0]
            blue = means[:, 2] + coefficients[:, 1] * red + coefficients[:, 2] * green
            means = torch.stack([red, green, blue], dim=1)
        return (logits.softmax(dim=1)[:, None] * means).sum(dim=2)
